from __future__ import annotations

import json
from pathlib import Path

import pytest

from downstreams import registry
from superb_eval import recipe
from superb_eval.cli import options
from superb_eval.data import bounds
from superb_eval.errors import UserError
from superb_eval.recipe import Recipe
from tests.campaigns.commands import type_command

MINIMAL = "task: ks\nprofile: nano\ntrain: {steps: 10, eval_every: 5}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ks.yaml"
    path.write_text(MINIMAL)
    return path


def test_what_is_left_out_takes_its_default(path: Path) -> None:
    loaded = recipe.load(path)
    assert (loaded.train.lr, loaded.train.batch_size, loaded.train.clip) == (1e-4, 32, 1.0)
    assert loaded.head == {"projector_dim": 256}


@pytest.mark.parametrize("name", recipe.shipped())
def test_every_shipped_recipe_is_valid_and_lies_where_it_says(name: str) -> None:
    loaded = recipe.load(recipe.find(name, "mini"))
    assert name == f"recipes/{loaded.profile}/{loaded.task}.yaml"
    assert (loaded.profile == "superb") or loaded.departures


def test_the_official_recipe_is_the_protocol() -> None:
    """protocol: s3prl downstream/speech_commands/config.yaml and dataset.py."""
    official = recipe.load(recipe.find("ks", "superb"))
    train = official.train
    assert (train.steps, train.batch_size, train.accumulate) == (200_000, 32, 1)
    assert train.rates() == (1e-1, 1e-2, 1e-3, 1e-4, 1e-5), "pooled tasks search the rate on dev; s3prl ships 1e-4"
    assert (train.optimizer, train.clip, train.eval_every, train.balance) == ("adam", 1.0, 5000, ("train", "dev"))
    assert (official.corpus.gain_db, official.head) == (-3.0, {"projector_dim": 256})
    assert official.features.key == "hidden_states" and not official.features.normalize


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.lr=1e-3", lambda r: r.train.lr == 1e-3),
        ("train.steps=7", lambda r: r.train.steps == 7),
        ("train.balance=[train, dev]", lambda r: r.train.balance == ("train", "dev")),
        ("features.layer=last", lambda r: r.features.layer == "last"),
        ("features.layer=-1", lambda r: r.features.layer == -1),
        ("head.projector_dim=64", lambda r: r.head == {"projector_dim": 64}),
        ("features.pooled=false", lambda r: r.features.pooled is False),
    ],
)
def test_overrides_mean_what_they_say(path: Path, override: str, read) -> None:  # type: ignore[no-untyped-def]
    assert read(recipe.load(path, [override]))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.stesp=3", r"unknown key 'train\.stesp'\. Did you mean 'steps'\?"),
        ("head={of what: 1}", r"unknown key 'head\.of what'\. .*Known here: "),
        ("of what=1", r"unknown key 'of what'\. .*Known here: task"),
        ("trian.steps=3", r"unknown key 'trian'\. Did you mean 'train'\?"),
        ("head.projektor_dim=3", r"unknown key 'head\.projektor_dim'\. Did you mean 'projector_dim'\?"),
        ("train.steps=0", r"'train\.steps' is 0: input should be greater than or equal to 1"),
        ("train.lr=fast", r"'train\.lr' is 'fast'"),
        ("train.optimizer=sgd", r"'train\.optimizer' is 'sgd'.*'adam' or 'adamw'"),
        ("train.steps", "by KEY=VALUE such as train.steps=100. To choose where output goes: --out train.steps"),
        ("task=kz", "no task is called 'kz'. Did you mean 'ks'"),
        ("train.steps.x=1", "'steps' is no section"),
        ("head=[", "not a value that YAML can read"),
    ],
)
def test_mistakes_are_explained(path: Path, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        recipe.load(path, [override])


def test_every_mistake_is_told_at_once(path: Path) -> None:
    path.write_text("task: ks\nprofile: nano\ntrian: {}\ntrain: {setps: 1}\n")
    with pytest.raises(UserError) as caught:
        recipe.load(path)
    assert all(word in str(caught.value) for word in ("'trian'", "'train.setps'", "'train.steps' is missing"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"task: ks\n  bad: [", "line 2: not valid YAML"),
        (b"- a\n- b\n", "found list"),
        (b"", "found NoneType"),
        (b"\xff\xfe\x00", "is no UTF-8 text"),
        (b"task: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_files_that_are_no_recipes_are_explained(path: Path, content: bytes, sentence: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        recipe.load(path)


def test_names_are_found_or_the_near_miss_is_offered() -> None:
    assert recipe.find("ks", "mini").name == "ks.yaml"
    with pytest.raises(UserError, match="no superb recipe for task 'kss'. Did you mean 'ks'"):
        recipe.find("kss", "superb")
    with pytest.raises(UserError, match="no such recipe file. Shipped: .*recipes/mini/ks.yaml"):
        recipe.find("recipes/mini/sk.yaml", "mini")


def test_the_digest_is_of_the_resolved_recipe(path: Path) -> None:
    assert recipe.load(path).digest() == recipe.load(path, ["train.lr=0.0001"]).digest()
    assert recipe.load(path).digest() != recipe.load(path, ["train.lr=1e-3"]).digest()


def test_a_later_key_is_in_the_digest_only_where_it_differs_from_its_default(path: Path) -> None:
    assert recipe.load(path).digest() == recipe.load(path, ["train.schedule=constant"]).digest()
    assert recipe.load(path).digest() != recipe.load(path, ["train.schedule=linear"]).digest()


@pytest.mark.parametrize("task", ["pr", "asr", "ks", "sid", "asv", "sd", "ic", "sf", "er"])
def test_mini_recipes_end_with_a_rate_of_zero_and_evaluate_ten_times(task: str) -> None:
    train = recipe.load(recipe.find(task, "mini")).train_settings
    assert train.rate_factor(train.steps) < 0.01
    assert train.steps == 10 * train.eval_every


RECORDED = json.loads(Path(__file__).with_name("test_recipe_digests.json").read_text())
"""Recipes of records from when each task's section `corpus` had the keys of all tasks, and their digests."""


@pytest.mark.parametrize("name", RECORDED)
def test_recipes_of_former_records_keep_their_digest(name: str) -> None:
    recorded = RECORDED[name]["recipe"]
    loaded = Recipe.of_record(recorded)
    assert loaded.digest() == recipe.digest_of(recorded) == RECORDED[name]["digest"]
    assert loaded == Recipe.of_record(loaded.model_dump(mode="json"))
    assert loaded.model_dump(mode="json")["corpus"].items() <= recorded["corpus"].items()


def test_a_key_of_another_task_in_a_former_record_is_in_its_digest_alone() -> None:
    recorded = RECORDED["recipes/superb/ks.yaml"]["recipe"]
    changed = {**recorded, "corpus": {**recorded["corpus"], "chunk_seconds": 20.0}}
    assert Recipe.of_record(changed) == Recipe.of_record(recorded)
    assert recipe.digest_of(changed) != recipe.digest_of(recorded)


@pytest.mark.parametrize(
    ("task", "override", "sentence"),
    [
        (
            "ks",
            "corpus.chunk_seconds=3",
            r"unknown key 'corpus\.chunk_seconds'\. Known here: .*, silence_crops",
        ),
        ("ks", "corpus.silence_crop=3", r"unknown key 'corpus\.silence_crop'\. Did you mean 'silence_crops'\?"),
        (
            "sd",
            "corpus.chunk_seconds=0",
            r"'corpus\.chunk_seconds' is 0: input should be greater than or equal",
        ),
        ("pr", "train.lr={sweep: [0.1], step: 2}", r"unknown key 'train\.lr\.step'\. .*Known here: sweep"),
        ("sf", "head.vocabulary=words", r"'head\.vocabulary' is 'words': input should be 'characters'"),
        ("sf", "head.vocabulary={}", r"'head\.vocabulary\.sentencepiece' is missing"),
        (
            "sf",
            "head.vocabulary={sentencepiece: 99, size: 3}",
            r"unknown key 'head\.vocabulary\.size'\. Known here: sentencepiece",
        ),
        (
            "asr",
            "head.vocabulary={sentencepiece: 3}",
            r"'head\.vocabulary\.sentencepiece' is 3: input should be greater",
        ),
        ("pr", "corpus.gain_bd=3", r"unknown key 'corpus\.gain_bd'\. Did you mean 'gain_db'\?"),
        ("asv", "corpus=3", r"'corpus' is 3: input should be a valid dictionary"),
    ],
)
def test_corpus_keys_are_those_of_the_task(task: str, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        recipe.load(recipe.find(task, "superb"), [override])


@pytest.mark.parametrize("task", registry.names())
def test_every_corpus_setting_of_a_task_is_described(task: str) -> None:
    for key, field in registry.get(task).CorpusSchema.model_fields.items():
        assert field.description, f"{task}: corpus.{key}"


def test_every_setting_is_described() -> None:
    for name, section in Recipe.model_fields.items():
        inner = getattr(section.annotation, "model_fields", None)
        for key, field in (inner or {name: section}).items():
            assert field.description, f"{name}.{key}"


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_tf32_is_refused_where_no_device_has_it(path: Path, device: str) -> None:
    train = recipe.load(path, ["train.precision=tf32"]).train_settings
    train.require_device("cuda:1")
    with pytest.raises(UserError, match=rf"^train\.precision=tf32 needs --device cuda, found {device}\. Choose"):
        train.require_device(device)
    for precision in ("float32", "bf16"):
        recipe.load(path, [f"train.precision={precision}"]).train_settings.require_device(device)


@pytest.mark.parametrize(
    ("task", "override", "sentence"),
    [
        ("ks", "train.steps=1e12", r"'train\.steps' is 1000000000000.0: at most 100000000 is allowed: the longest"),
        ("ks", "train.steps=1e20", r"'train\.steps' is 1e\+20: unable to parse .*, exceeded maximum size"),
        ("ks", "train.accumulate=1e9", r"'train\.accumulate' is 1000000000.0: at most 10000 is allowed"),
        ("ks", f"train.steps=1{'0' * 30}", r"-o train\.steps=10+: 10+ is an integer of more than 64 bits"),
        ("ks", f"train.lr={{sweep: {[1e-3] * 9000}}}", r"'train\.lr\.sweep' is .*: it has 9000 items, at most 100"),
        ("ks", "train.lr={sweep: [.nan]}", r"'train\.lr\.sweep\.0' is nan"),
        ("ks", "train.lr=.inf", r"'train\.lr' is inf: input should be a finite number"),
        ("ks", "train.clip=nan", r"'train\.clip' is nan: input should be a finite number"),
        ("ks", "train.order_seed=4294967296", r"'train\.order_seed' is 4294967296: at most 4294967295 is allowed"),
        ("ks", "train.order_seed=-1", r"'train\.order_seed' is -1: input should be greater than or equal to 0"),
        ("ks", "corpus.gain_db=1e9", r"'corpus\.gain_db' is 1000000000\.0: input should be less than or equal to 200"),
        (
            "ks",
            "head.projector_dim=1e12",
            r"'head\.projector_dim' is 1000000000000.0: at most 65536 is allowed",
        ),
        ("sd", "head.speakers=12", r"'head\.speakers' is 12: at most 6 is allowed: the loss compares every order"),
        ("asr", "head.layers=10000000", r"'head\.layers' is 10000000: at most 200 is allowed"),
        ("ks", 'corpus.folder="\\ud800"', r"holds a NUL or half of a character"),
        ("ks", "train.steps=!!int ''", r"a value has a tag that doesn't fit it"),
        ("ks", f"train{'.a' * 1000}=1", r"names 1000 sections in one another"),
        ("ks", f"train.steps={'[' * 5000}", r"is nested too deeply to be a setting"),
    ],
)
def test_values_beyond_every_experiment_are_refused(task: str, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        recipe.load(recipe.find(task, "mini"), [override])
    assert len(str(caught.value)) < 1000


def test_the_bound_of_seeds_is_one() -> None:
    assert options.MOST_SEED == bounds.MOST_SEED


@pytest.mark.parametrize("words", [["--seed", "4294967296"], ["--seeds", "999999999"], ["--seeds", "9" * 5000]])
def test_seeds_that_no_library_takes_are_refused_at_once(words: list[str]) -> None:
    called = type_command("run", "ks", "-u", "fbank", *words)
    assert called.refused and "seed" in called.err


def test_a_list_of_many_wrong_values_is_a_message_of_few_lines() -> None:
    with pytest.raises(UserError, match=r"and \d+ more$") as caught:
        recipe.load(recipe.find("ic", "mini"), [f"head.slots=[{'1, ' * 499}1]"])
    assert str(caught.value).count("\n") == 12
