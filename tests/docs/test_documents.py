"""Documents hold what they promise: links lead somewhere, commands exist, examples are good YAML and TOML."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from downstreams import registry as tasks
from superb_eval import recipe
from tests.docs import commands, documents
from tests.docs.documents import OTHERS, ROOT, WALKED, Line
from tests.recorded import pages

ALL = documents.paths(*WALKED, *OTHERS)
LINES = [line for path in ALL for line in (*documents.lines(path), *documents.mentions(path))]
LANGUAGES = {"sh", "python", "yaml", "toml", ""}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", ALL, ids=named)
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in documents.links(path):
        place, _, anchor = link.partition("#")
        if place.startswith("https://"):
            assert re.fullmatch(r"https://[\w.-]+\.\w+(/[\w./~%+-]*)?", place), link
            continue
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), f"{named(path)}: {link}"
        assert target.is_relative_to(ROOT), f"{named(path)}: {link} leaves the repository"
        if anchor:
            assert anchor in documents.headings(target), f"{named(path)}: {link}: no such heading"


@pytest.mark.parametrize("path", documents.paths("docs/*.md"), ids=named)
def test_a_page_links_only_to_pages(path: Path) -> None:
    """The site holds nothing else of the repository."""
    for link in documents.links(path):
        place = link.partition("#")[0]
        if place and not place.startswith("https://"):
            assert (path.parent / place).resolve().is_relative_to(ROOT / "docs"), link


def test_every_page_is_in_the_sites_navigation() -> None:
    content = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf8"))
    pages = set(re.findall(r"[\w-]+\.md", str(content["nav"])))
    assert pages == {path.name for path in (ROOT / "docs").glob("*.md")}
    for path in (ROOT / "docs").glob("*.md"):
        for included, section in re.findall(r'--8<-- "([^":]+):?(\w*)"', documents.text_of(path)):
            text = documents.section(ROOT / included, section)
            assert not documents.links_in(text), f"{included} is shown on the site too, where links would break"


def _id(line: Line) -> str:
    return " ".join(line.words)[:60]


COMMANDS = [line for line in LINES if line.words[0] == "superb-eval"]


@pytest.mark.parametrize("line", COMMANDS, ids=_id)
def test_every_command_line_is_one(line: Line) -> None:
    commands.check(line.words, whole=line.whole)


def test_there_are_command_lines_and_blocks_have_languages() -> None:
    assert len(COMMANDS) > 60
    for path in documents.paths(*WALKED):
        for block in documents.blocks(path):
            assert block.language in LANGUAGES, block.place


def test_other_commands_are_targets_of_make_and_good_python() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE)
    for line in LINES:
        if line.words[0] == "make":
            assert set(line.words[1:]) <= set(targets), line
        else:
            assert line.words[0] in {"superb-eval", "pip", "torchrun", "git", "cd"}, line


def test_examples_of_recipes_and_projects_can_be_read() -> None:
    for path in documents.paths(*WALKED):
        for block in documents.blocks(path):
            if block.language == "yaml":
                loaded = recipe.Recipe.model_validate(yaml.safe_load(block.text))
                assert loaded.task in tasks.names()
            if block.language == "toml" and sys.version_info >= (3, 11):
                import tomllib

                assert tomllib.loads(block.text)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; `strict` makes an error of a link that leads nowhere, and of a name that the API reference lacks."""
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_the_site_holds_every_page_and_fetches_nothing(site: Path) -> None:
    assert "superb_eval.runs.config.RunConfig" in (site / "api.html").read_text(encoding="utf8")
    assert (site / "images" / "report.png").is_file()
    for path in site.glob("*.html"):
        fetched = re.findall(r'<(?:script|img|iframe)[^>]*src="?(\w+:[^"> ]*)', path.read_text(encoding="utf8"))
        fetched += re.findall(r'<link[^>]*rel="?stylesheet[^>]*href="?(\w+:[^"> ]*)', path.read_text(encoding="utf8"))
        assert not fetched, f"{path.name} fetches {fetched}"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), "")


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on the path")
def test_the_search_works_in_pages_that_are_opened_as_files(site: Path, tmp_path: Path) -> None:
    found = {}
    for words in ("interval", "zzzqqq"):
        address = f"{(site / 'index.html').as_uri()}?q={words}"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"]
        options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        options += [f"--user-data-dir={tmp_path / words}", "--virtual-time-budget=8000", "--dump-dom"]
        done = subprocess.run([CHROMIUM, *options, address], capture_output=True, text=True, check=True, timeout=120)
        found[words] = done.stdout.count("md-search-result__item")
    assert found["interval"] > 3 and not found["zzzqqq"]


def test_the_readme_is_short() -> None:
    readme = (ROOT / "README.md").read_bytes()
    assert len(readme) < 7_500
    first_screen = readme.decode().splitlines()[:40]
    assert any("my-checkpoint" in line for line in first_screen) and any("report.png" in line for line in first_screen)
    picture = ROOT / "docs" / "images" / "report.png"
    assert picture.stat().st_size < 300_000


def test_no_sentence_stands_in_two_documents() -> None:
    """What is written once is true once: elsewhere there is a link. What is generated from records is true anywhere."""
    places: dict[str, set[str]] = {}
    for path in ALL:
        prose = re.sub(r"\s+", " ", pages.without_marked(documents.prose_of(path)))
        for sentence in re.split(r"(?<=[.:;|]) ", prose):
            words = re.sub(r"[^a-z0-9 ]", "", sentence.lower()).split()
            if len(words) >= 6:
                places.setdefault(" ".join(words), set()).add(named(path))
    repeated = {sentence: where for sentence, where in places.items() if len(where) > 1}
    assert not repeated
