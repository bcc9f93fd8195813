"""CITATION.cff: what it needs by the format's version 1.2.0, and this version of the package."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from superb_eval.version import __version__

PATH = Path(__file__).parents[1] / "CITATION.cff"


def test_the_citation_is_of_this_version_and_names_the_papers() -> None:
    content = yaml.safe_load(PATH.read_text(encoding="utf8"))
    assert content["cff-version"] == "1.2.0" and content["version"] == __version__
    assert {"title", "message", "authors", "license"} <= content.keys() and content["license"] == "Apache-2.0"
    titles = [reference["title"] for reference in content["references"]]
    assert [title.partition(":")[0] for title in titles] == ["SUPERB", "DistilHuBERT"]
    for reference in content["references"]:
        assert {"type", "authors", "year"} <= reference.keys()
        assert re.fullmatch(r"10\.\d{4,}/\S+", reference["doi"])
        assert all(author["family-names"] for author in reference["authors"])
