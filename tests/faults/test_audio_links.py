"""A corpus whose audio is linked in: read as any other, with the same results, and recorded."""

from __future__ import annotations

import shutil
from pathlib import Path

from superb_eval import recipe
from superb_eval.corpora import load_corpus
from superb_eval.corpora.checks import check_corpus
from superb_eval.results import record as records
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate

SHORT = ("train.steps=20", "train.eval_every=20", "train.batch_size=8", "train.lr=1e-2")


def test_a_run_on_linked_audio_equals_that_on_copied_audio_and_counts_the_links(tones: Path, tmp_path: Path) -> None:
    linked = tmp_path / tones.name
    linked.mkdir()
    shutil.copytree(tones / "ks", linked / "ks")
    (linked / "audio").symlink_to(tones / "audio")
    runs = [
        evaluate(RunConfig("fbank_nonorm", "ks", root, overrides=SHORT, out=tmp_path / name, store=tmp_path / "store"))
        for name, root in (("copied", tones), ("linked", linked))
    ]
    (copied, first), (other, second) = runs
    assert first.name == second.name and copied.metrics == other.metrics
    assert copied.corpus.links == ""
    assert other.corpus.links.startswith("72 of 72 audio files are links that lead out of the corpus folder, such as")
    assert other.corpus.links.endswith(".flac") and str(tones / "audio") in other.corpus.links
    assert records.read(second / records.NAME) == other
    report = check_corpus(load_corpus.read_corpus(recipe.load(recipe.find("ks", "nano")), linked), "keyword")
    assert f"{other.corpus.links}." in report.remarks and not report.problems
