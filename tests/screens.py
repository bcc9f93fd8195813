"""Photographs the report of a results folder: the picture of README, and the page on screens of two widths.

`python -m tests.screens RESULTS OUT [--against NAME] [--data CORPORA]` writes OUT/report.png (down to the end of the
result table at 1 280 px, light, for docs/images/report.png), and OUT/{1280,390}-{light,dark}.png of the whole page. It
needs the Python package `playwright` and a Chromium on the path (or in `$SUPERB_EVAL_CHROMIUM`), which are no part of
the setup.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from superb_eval.errors import UserError
from superb_eval.report import page
from superb_eval.report.page import ReportOptions
from superb_eval.results.table.build import TableOptions

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-quic"]


def chromium() -> str:
    """Return the path of a Chromium; empty where there is none."""
    found = (shutil.which(name) for name in ("chromium", "google-chrome"))
    return os.environ.get("SUPERB_EVAL_CHROMIUM") or next(filter(None, found), "")


def draw_all(opened: Any) -> None:
    """Scroll through an open page, so that every chart that is unfolded is drawn."""
    opened.evaluate(
        """async () => {
          const shown = Array.from(document.querySelectorAll("figure")).filter((figure) => figure.checkVisibility());
          for (const figure of shown) {
            figure.scrollIntoView({behavior: "instant", block: "center"});
            while (!figure.classList.contains("drawn")) await new Promise(requestAnimationFrame);
          }
          scrollTo({top: 0, behavior: "instant"});
        }"""
    )


def photograph(report: Path, out: Path) -> list[Path]:
    """Write the pictures of a report into a folder and return their paths.

    Raises:
        UserError: playwright or a Chromium is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UserError("tests.screens needs playwright: `pip install playwright`, and a Chromium.") from error
    if not chromium():
        raise UserError("tests.screens found no Chromium: install one, or name it in $SUPERB_EVAL_CHROMIUM.")
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium(), headless=True, args=FLAGS)
        written = [
            _screen(browser, report, out, width, scheme) for width in (1280, 390) for scheme in ("light", "dark")
        ]
        written.append(_picture(browser, report, out / "report.png"))
        browser.close()
    return written


def _screen(browser: Any, report: Path, out: Path, width: int, scheme: str) -> Path:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened, path = context.new_page(), out / f"{width}-{scheme}.png"
    opened.goto(report.as_uri())
    draw_all(opened)
    opened.screenshot(path=path, full_page=True)
    context.close()
    return path


def _picture(browser: Any, report: Path, path: Path) -> Path:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    opened = context.new_page()
    opened.goto(report.as_uri())
    bottom = opened.locator("table.results").first.evaluate("(table) => table.getBoundingClientRect().bottom")
    opened.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": bottom + 8})
    context.close()
    return path


def main() -> int:
    """Photograph the report of a results folder; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.screens", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", help="the reference; default: the largest upstream")
    parser.add_argument("--data", type=Path, help="where the corpora are now")
    parser.add_argument("--title", default="", help="heading of the page; default: the name of the results folder")
    chosen = parser.parse_args()
    options = ReportOptions(TableOptions(against=chosen.against), chosen.data, title=chosen.title)
    try:
        report = page.write(chosen.results, (chosen.out / "report.html").resolve(), options)
        for path in photograph(report, chosen.out):
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
