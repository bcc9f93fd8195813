"""The official layout of QbE: English is searched, all languages are scored."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from downstreams.qbe import QueryCorpus
from superb_eval.corpora import checks, load_corpus
from superb_eval.corpora.official import quesst14
from superb_eval.corpora.official.quesst14 import DATABASE, DOCUMENTS
from superb_eval.data.manifest import Corpus, Trial
from superb_eval.errors import UserError
from superb_eval.runs.config import RunConfig
from superb_eval.runs.evaluate import evaluate
from tests.corpora.official.linked import assert_links_are_followed

ENGLISH_DOCS = ("quesst14_00001", "quesst14_00002", "quesst14_00003")
TRUTH: dict[str, dict[str, tuple[str, ...]]] = {
    "dev": {"quesst14_dev_0001": ("quesst14_00001", "quesst14_00009"), "quesst14_dev_0009": ("quesst14_00009",)},
    "eval": {"quesst14_eval_0001": ("quesst14_00002",), "quesst14_eval_0002": ("quesst14_00003",)},
}


def wav(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(zlib.crc32(path.name.encode())).standard_normal(int(8000 * seconds)) * 0.1
    soundfile.write(path, samples, 8000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two English queries and one Czech in each split, three English documents and two Czech (which have no file)."""
    database, scoring = tmp_path / DATABASE, tmp_path / DATABASE / "scoring"
    scoring.mkdir(parents=True)
    lines = [f"quesst14Database/Audio/{name}.wav nnenglish" for name in ENGLISH_DOCS]
    lines += [f"quesst14Database/Audio/quesst14_0000{k}.wav czech" for k in (8, 9)]
    (scoring / DOCUMENTS).write_text("\n".join(lines) + "\n")
    for name in ENGLISH_DOCS:
        wav(database / "Audio" / f"{name}.wav", 1.0)
    for part, truth in TRUTH.items():
        names = [f"quesst14_{part}_000{k}" for k in (1, 2, 9)]
        keys = [f"quesst14Database/{part}_queries/{n}.wav {'czech' if n.endswith('9') else 'nnenglish'}" for n in names]
        (scoring / f"language_key_{part}.lst").write_text("\n".join(keys) + "\n")
        for name in names[:2]:
            wav(database / f"{part}_queries" / f"{name}.wav", 0.4)
        rttm = [f"LEXEME {d} 1 0.00 1.00 {q} lex {q} 0.5" for q, documents in truth.items() for d in documents]
        folder = scoring / f"groundtruth_quesst14_{part}"
        folder.mkdir()
        (folder / f"quesst14_{part}.rttm").write_text("\n".join(["SPKR-INFO x 1 <NA>", *rttm]) + "\n")
    return tmp_path


def load(root: Path, all_languages: bool = True) -> Corpus:
    return load_corpus.open_corpus("qbe", root, ("role",), QueryCorpus(all_languages=all_languages))


def test_english_is_searched(root: Path) -> None:
    corpus = load(root, all_languages=False)
    assert [(u.id, u.labels["role"]) for u in corpus.splits["dev"]] == [
        *((f"quesst14_dev_000{k}", "query") for k in (1, 2)),
        *((name, "document") for name in ENGLISH_DOCS),
    ]
    trials = corpus.splits["dev"].trials
    assert len(trials) == 6 and [t.test for t in trials if t.target] == ["quesst14_00001"]
    assert corpus.notes and "higher than the official score" in corpus.notes[0]


def test_the_lists_are_read_as_s3prl_and_torchaudio_do(root: Path) -> None:
    datasets = pytest.importorskip("torchaudio.datasets")
    corpus = load(root)
    for split, part in quesst14.PARTS.items():
        found = [u.clip.path for u in corpus.splits[split]]
        theirs = [*datasets.QUESST14(root, part).data, *datasets.QUESST14(root, "docs").data]
        assert found == theirs


def test_trials_of_other_languages_are_counted(root: Path) -> None:
    corpus = load(root)
    left = [t for t in corpus.splits["dev"].trials if not t.test]
    assert left == [
        Trial("quesst14_dev_0001", "", True, 1),
        Trial("quesst14_dev_0001", "", False, 1),
        Trial("quesst14_dev_0002", "", False, 2),
        Trial("quesst14_dev_0009", "", True, 1),
        Trial("quesst14_dev_0009", "", False, 4),
    ]
    assert not corpus.notes and corpus.expected == {"dev": 2576, "test": 2576}


def test_documents_shared_by_the_splits_are_no_leak(root: Path) -> None:
    report = checks.check_corpus(load(root), None)
    assert not report.problems
    assert any("complete copy has 2576" in remark for remark in report.remarks)


def test_the_official_recipe_runs(root: Path, tmp_path: Path) -> None:
    order = RunConfig("fbank", "qbe", root, overrides=("head.also=[]",), out=tmp_path / "results")
    record, folder = evaluate(order)
    assert (record.profile, record.corpus.name) == ("superb", "QUESST 2014 (English)")
    assert record.features.extracted == 7, "documents of both splits are extracted once"
    assert record.metrics[0].units == 2
    text = (folder / "predictions.csv").read_text()
    assert "quesst14_eval_0009 *5,0,-10.0000,1," in text.splitlines()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (DOCUMENTS, "a/b.wav\n", "line 1: 'a/b.wav'; expected TOP/FOLDER/FILE.wav LANGUAGE"),
        (DOCUMENTS, "a/../../b.wav nnenglish\n", r"line 1: 'a/\.\./\.\./b.wav nnenglish'; expected"),
        (
            DOCUMENTS,
            "x/Audio/gone.wav nnenglish\n",
            r"line 1: no such file: .*Audio/gone\.wav(?s:.*)distributed free of ch",
        ),
        (DOCUMENTS, "x/Audio/gone.wav czech\n", "no line of language nnenglish"),
        (DOCUMENTS, None, r"language_key_utterances\.lst: can't be read .*QbE needs quesst14Database/scoring"),
        ("groundtruth_quesst14_eval/quesst14_eval.rttm", "", "names no document for any query of nnenglish"),
        ("groundtruth_quesst14_dev/quesst14_dev.rttm", None, r"quesst14_dev\.rttm: can't be read"),
    ],
)
def test_incomplete_copies_are_explained(root: Path, name: str, content: str | None, sentence: str) -> None:
    path = root / DATABASE / "scoring" / name
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(UserError, match=sentence):
        load(root)


def test_the_folder_itself_gives_a_hint(root: Path) -> None:
    with pytest.raises(UserError, match=rf"Did you mean --data {root}\?"):
        load(root / DATABASE)


def test_links_to_folders_and_files_are_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert_links_are_followed(load, root, tmp_path_factory.mktemp("links") / "copies")
