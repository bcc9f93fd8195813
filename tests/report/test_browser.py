"""The report in headless Chromium, where there is one: silent, off the network, sortable, drawn, and accessible.

Needs the Python package `playwright`, a Chromium on the path (or in `$SUPERB_EVAL_CHROMIUM`), and for the audit the
file `axe.min.js` of axe-core in `$AXE_CORE`. They are no part of the setup; where they are missing, this is skipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from superb_eval.report import page
from superb_eval.report.page import ReportOptions
from tests.results.runs import known_training
from tests.screens import FLAGS, chromium, draw_all

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

AXE = os.environ.get("AXE_CORE", "")

SCREENS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not chromium(), reason="no Chromium on the path")]


@pytest.fixture(scope="module")
def report(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with known_training():
        return page.write(results, tmp_path_factory.mktemp("report") / "report.html", ReportOptions())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=chromium(), headless=True, args=FLAGS)
        yield started
        started.close()


class Opened:
    """A page with its console messages and its requests."""

    def __init__(self, browser: Any, report: Path, screen: str) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.context = browser.new_context(**SCREENS[screen])
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: self.messages.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())
        self.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")

    def draw(self) -> None:
        """Scroll through the page, so that every chart is drawn."""
        draw_all(self.page)
        self.page.wait_for_selector("figure:not(.drawn)", state="detached")


@pytest.fixture(params=SCREENS)
def opened(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Opened]:
    opened_page = Opened(browser, report, request.param)
    yield opened_page
    opened_page.context.close()


def test_it_logs_nothing_and_requests_nothing(opened: Opened, report: Path) -> None:
    opened.draw()
    assert opened.messages == []
    assert {url.partition(":")[0] for url in opened.requests} <= {"file", "data", "blob"}
    assert [url for url in opened.requests if url.startswith("file")] == [report.as_uri()]


def test_nothing_is_wider_than_the_screen(opened: Opened) -> None:
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    opened.draw()
    assert opened.page.evaluate(fits)
    opened.page.locator(".tools .intervals").first.check()
    assert opened.page.evaluate(fits)
    places = "Array.from(document.querySelectorAll('table.results'), (table) => table.parentElement)"
    assert opened.page.evaluate(f"{places}.every((place) => place.scrollWidth <= place.clientWidth)")


def test_every_chart_is_drawn(opened: Opened) -> None:
    opened.draw()
    sizes = opened.page.evaluate(
        """Array.from(document.querySelectorAll("figure .chart svg.marks"), (svg) => {
          const marks = Array.from(svg.querySelectorAll("path, rect, line"));
          const look = (mark) => getComputedStyle(mark);
          const seen = marks.filter((mark) => look(mark).fill !== "none" || look(mark).stroke !== "none");
          const box = svg.getBBox();
          const place = svg.closest(".chart");
          const fits = box.x > -8 && box.width < place.clientWidth + 8;
          return [svg.closest("figure").id, box.width, box.height, seen.length, fits, svg.getAttribute("aria-label")];
        })"""
    )
    assert len(sizes) == opened.page.locator("figure").count() > 30
    for key, width, height, marks, fits, label in sizes:
        assert width > 60 and height > 30 and marks > 3 and fits and label, key


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_charts_follow_the_colour_scheme_and_paper(opened: Opened) -> None:
    opened.page.locator("figure").nth(1).scroll_into_view_if_needed()
    opened.page.wait_for_selector("figure.drawn")
    light, dark = (f"figure .chart svg text[fill='{colour}']" for colour in ("#566170", "#a3adba"))
    assert opened.page.locator(light).count() > 5 and not opened.page.locator(dark).count()
    opened.page.emulate_media(color_scheme="dark")
    opened.page.wait_for_selector(light, state="detached")
    opened.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    opened.page.wait_for_selector(dark, state="detached")
    opened.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    opened.page.wait_for_selector(light, state="detached")
    assert opened.messages == []


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_a_chart_has_tooltips_and_can_be_saved(opened: Opened) -> None:
    figure = opened.page.locator("figure").nth(1)
    figure.scroll_into_view_if_needed()
    opened.page.wait_for_selector("figure.drawn .mark-symbol path")
    figure.locator(".mark-symbol path").first.hover(force=True)
    opened.page.wait_for_selector("#vg-tooltip-element.visible")
    assert "PR PER" in opened.page.locator("#vg-tooltip-element").inner_text()
    figure.locator(".vega-embed details summary, .chart details summary").first.click(force=True)
    for kind in ("SVG", "PNG"):
        with opened.page.expect_download() as saved:
            figure.locator(".vega-actions a", has_text=kind).click(force=True)
        assert Path(saved.value.path()).stat().st_size > 1000
        assert saved.value.suggested_filename == f"{figure.get_attribute('id')}.{kind.lower()}"
    assert opened.messages == []


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_columns_can_be_chosen_and_rows_searched(opened: Opened) -> None:
    shown = "Array.from(document.querySelectorAll('table.results thead th'), (t) => t.hidden ? '' : t.innerText)"
    assert not any("params" in text for text in opened.page.evaluate(shown))
    opened.page.locator(".choose").click()
    opened.page.locator(".choices label", has_text="params M").locator("input").check()
    assert any("params" in text for text in opened.page.evaluate(shown))
    opened.page.keyboard.press("Escape")
    opened.page.locator("#search").fill("fbank")
    visible = "Array.from(document.querySelectorAll('table.results tbody tr')).filter((r) => !r.hidden).length"
    assert opened.page.evaluate(visible) == 1
    assert "rows" in opened.page.locator("#found").inner_text()
    opened.page.locator("#search").fill("")
    assert opened.page.evaluate(visible) == 3


@pytest.mark.parametrize("opened", ["phone"], indirect=True)
def test_on_a_phone_each_row_is_a_card_and_can_be_ordered(opened: Opened) -> None:
    row = opened.page.locator("table.results tbody tr").first
    assert row.evaluate("(row) => getComputedStyle(row).display") == "block"
    first = names(opened)
    opened.page.locator(".order").first.select_option(label="upstream")
    assert names(opened) == sorted(first)


def test_axe_finds_no_serious_fault(opened: Opened) -> None:
    if not AXE:
        pytest.skip("no axe-core: give the place of axe.min.js in $AXE_CORE")
    opened.page.evaluate(Path(AXE).read_text(encoding="utf8"))
    found = opened.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    grave = [
        f"{fault['id']} ({fault['impact']}): {node['html'][:160]}"
        for fault in found["violations"]
        for node in fault["nodes"]
        if fault["impact"] in {"serious", "critical"}
    ]
    assert grave == []
    assert opened.messages == []


def names(opened: Opened) -> list[str]:
    found = opened.page.locator("table.results tbody th bdi").all_inner_texts()
    return [str(name) for name in found]


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_columns_sort_by_mouse_and_by_keyboard(opened: Opened) -> None:
    first = names(opened)
    button = opened.page.locator("button.sort", has_text="ACC").first
    button.click()
    figures = [number(cell) for cell in column(opened, "KS")]
    assert figures == sorted(figures, reverse=True), "the best come first"
    assert button.locator("xpath=..").get_attribute("aria-sort") == "descending"
    button.press("Enter")
    assert [number(cell) for cell in column(opened, "KS")] == sorted(figures)
    opened.page.locator("button.sort", has_text="upstream").click()
    assert names(opened) == sorted(first)
    opened.page.locator("button.sort", has_text="DER").click()
    assert column(opened, "SD")[-1] == "·", "gaps come last"


def number(cell: str) -> float:
    return float(re.sub(r"[^0-9.].*", "", cell))


def column(opened: Opened, heading: str) -> list[str]:
    place = opened.page.evaluate(
        """(heading) => Array.from(document.querySelectorAll("table.results thead th"))
          .findIndex((cell) => cell.innerText.startsWith(heading))""",
        heading,
    )
    cells = opened.page.locator(f"table.results tbody tr > *:nth-child({place + 1})").all_inner_texts()
    return [str(cell).split("\n")[0] for cell in cells]


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_a_figure_shows_its_provenance(opened: Opened) -> None:
    figure = opened.page.locator("button.value").first
    card = opened.page.locator(f"#{figure.get_attribute('popovertarget')}")
    assert not card.is_visible()
    figure.press("Enter")
    assert card.is_visible() and "superb-eval run" in card.inner_text()
    opened.page.keyboard.press("Escape")
    assert not card.is_visible()
    figure.hover()
    card.wait_for(state="visible", timeout=3000)


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_clips_play(opened: Opened) -> None:
    seconds = opened.page.evaluate(
        """async () => {
          const clip = document.querySelector("audio");
          const known = (done) => clip.addEventListener("loadedmetadata", done, {once: true});
          if (clip.readyState < 1) await new Promise(known);
          return clip.duration;
        }"""
    )
    assert 0.3 < seconds < 1.2


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_print_unfolds_what_is_folded(opened: Opened) -> None:
    opened.page.reload()
    closed = "document.querySelectorAll('details.task:not([open])').length"
    assert opened.page.evaluate(closed) > 0
    opened.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.page.evaluate(closed) == 0
    opened.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert opened.page.evaluate(closed) > 0
