"""The student and its loss: equal to s3prl's distiller on the same weights and batch, but for named differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, logsigmoid

from superb_eval.errors import UserError
from superb_eval.pretraining.batches import Batch
from superb_eval.pretraining.distillation import Distillation, frame_losses
from superb_eval.pretraining.objective import Terms
from superb_eval.pretraining.recipe import DistillationSettings, StudentSettings, TeacherSettings
from superb_eval.pretraining.student import build_student
from tests.operations import Operations
from upstreams import registry
from upstreams.base import Upstream
from upstreams.distilhubert import Heads
from upstreams.loading import checkpoint_conversion, weight_names

CONV = "[(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2"
TINY = {
    "encoder_embed_dim": 64,
    "encoder_ffn_embed_dim": 96,
    "encoder_attention_heads": 1,
    "conv_pos": 16,
    "conv_pos_groups": 2,
}
BASE_CONV = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
BASE = {"encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072, "encoder_attention_heads": 12}


def make_batch(lengths: list[int]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    wavs = torch.zeros(len(lengths), max(lengths))
    for row, length in zip(wavs, lengths, strict=True):
        row[:length] = 0.1 * torch.randn(length, generator=generator)
    none = (0,) * len(lengths)
    return Batch(wavs, tuple(lengths), none, none, none, 1)


def single(batch: Batch, k: int) -> Batch:
    """The k-th waveform of a batch alone, without padding."""
    return Batch(batch.wavs[k : k + 1, : batch.lengths[k]], batch.lengths[k : k + 1], (0,), (0,), (0,), 1)


def run(objective: Distillation, batch: Batch) -> Terms:
    """The terms of a batch."""
    terms: Terms = objective(objective.prepare(batch))
    return terms


def loss(terms: Terms) -> Tensor:
    """As the trainer sums terms, in one process."""
    return sum((t.weight * t.total / t.frames for t in terms.values()), start=torch.zeros(()))


def write_teacher(path: Path, sizes: dict[str, Any], conv: str, layers: int = 4) -> Path:
    """Write a converted HuBERT in s3prl's layout."""
    from upstreams import s3prl

    s3prl.supply_missing_names()
    from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig
    from s3prl.upstream.utils import merge_with_parent

    config = {**sizes, "encoder_layers": layers, "label_rate": 50, "conv_feature_layers": conv, "dropout_input": 0.1}
    settings = merge_with_parent(HubertConfig, config), merge_with_parent(HubertPretrainingConfig, {"label_rate": 50})
    torch.manual_seed(0)
    weights = HubertModel(*settings, [["a", "b"]]).state_dict()
    content = {"task_cfg": {"label_rate": 50}, "model_cfg": config, "model_weight": weights}
    torch.save({**content, "dictionaries_symbols": [["a", "b"]]}, path)
    return path


class Theirs:
    """s3prl's distiller, initialised from its own teacher as in its pre-training expert (`pretrain/distiller`).

    That expert is not in the package: its few lines of arithmetic around the model are reimplemented here from its
    description. Dropout is off in the student, as equality needs it.
    """

    def __init__(self, path: Path, sizes: dict[str, Any], conv: str, predicted: tuple[int, ...]) -> None:
        from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel
        from s3prl.upstream.hubert.expert import UpstreamExpert

        settings = {**sizes, "extractor_conv_feature_layers": conv, "encoder_layers": 2}
        settings |= {"n_tasks": len(predicted), "pred_layer_id": list(predicted), "out_layer_type": "expand-last"}
        settings |= {"final_dim": sizes["encoder_embed_dim"], "dropout": 0.0, "attention_dropout": 0.0}
        torch.manual_seed(1)
        self.model = DistillerModel(DistillerConfig({**settings, "activation_dropout": 0.0}))
        self.teacher, self.predicted = UpstreamExpert(str(path)), predicted
        network = self.teacher.model
        self.model.feature_extractor.load_state_dict(network.feature_extractor.state_dict())
        self.model.post_extract_proj.load_state_dict(network.post_extract_proj.state_dict())
        self.model.encoder.pos_conv.load_state_dict(network.encoder.pos_conv.state_dict())
        for own, copied in zip(self.model.encoder.layers, network.encoder.layers, strict=False):
            own.load_state_dict(copied.state_dict())

    def targets(self, batch: Batch) -> Tensor:
        wavs = [wav[:n] for wav, n in zip(batch.wavs, batch.lengths, strict=True)]
        with torch.no_grad():
            states = self.teacher(wavs)["hidden_states"]
        return torch.stack([states[k] for k in self.predicted], dim=1)

    def predictions(self, batch: Batch) -> Tensor:
        mask = (torch.arange(batch.wavs.shape[1]) < torch.tensor(batch.lengths)[:, None]).float()
        predictions: Tensor = self.model(batch.wavs, mask)[2]
        return predictions

    def loss(self, batch: Batch) -> Tensor:
        prediction, target = self.predictions(batch), self.targets(batch)
        return (prediction - target).abs().mean() - logsigmoid(cosine_similarity(prediction, target, dim=-1)).mean()


def ours(teacher: Upstream, predicted: tuple[int, ...], *, replay: bool, theirs: Theirs | None = None) -> Distillation:
    """A student of the teacher; with `theirs`, its heads get their weights."""
    settings = DistillationSettings(layers=predicted, padding=replay)
    student = build_student(StudentSettings(dropout=0.0), teacher, len(predicted), padded=replay)
    if theirs is not None:
        heads = checkpoint_conversion._heads(theirs.model.state_dict(), "x.ckpt")
        assert heads is not None
        student.heads.load_state_dict(heads)
    return Distillation(student, teacher, settings, TeacherSettings(dropout=False))


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "hubert.pt", TINY, CONV)


@pytest.mark.parametrize(
    ("address", "lengths"),
    [
        ("s3prl:hubert_local@{}", [9_000, 9_000]),
        ("s3prl:hubert_local@{}", [16_000, 9_000, 12_345]),
        # s3prl's teacher counts a frame that is partly padding as valid; without padding ours is equal.
        ("hubert_padded@{}", [9_000, 9_000]),
    ],
)
@pytest.mark.parametrize("predicted", [(2, 4), (1, 2, 4)])
def test_equal_to_s3prls_distiller(
    teacher_file: Path, address: str, lengths: list[int], predicted: tuple[int, ...]
) -> None:
    check_equal(teacher_file, address, lengths, predicted, TINY, CONV)


@pytest.mark.slow
def test_equal_to_s3prls_distiller_at_full_width(tmp_path: Path) -> None:
    path = write_teacher(tmp_path / "hubert_base.pt", BASE, BASE_CONV, layers=12)
    check_equal(path, "s3prl:hubert_local@{}", [16_000, 12_000], (4, 8, 12), BASE, BASE_CONV)


def check_equal(
    path: Path, address: str, lengths: list[int], predicted: tuple[int, ...], sizes: dict[str, Any], conv: str
) -> None:
    """Compare initialisation, targets, predictions and the loss, with s3prl's choices on."""
    theirs = Theirs(path, sizes, conv, predicted)
    objective = ours(registry.load(address.format(path)), predicted, replay=True, theirs=theirs)
    theirs.teacher.eval()
    their_weights = weight_names.to_transformers(theirs.model.state_dict())
    for name, weight in objective.student.trunk.state_dict().items():
        assert torch.equal(weight, their_weights.pop(name)), name
    assert not their_weights
    batch = make_batch(lengths)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(objective.targets(batch), theirs.targets(batch), **close)
    torch.testing.assert_close(objective.student(batch.padded), theirs.predictions(batch), **close)
    mine, other = loss(run(objective, batch)), theirs.loss(batch)
    torch.testing.assert_close(mine, other, **close)
    mine.backward()
    other.backward()
    one = objective.student.trunk.feature_extractor.conv_layers[0].conv.weight.grad
    torch.testing.assert_close(one, theirs.model.feature_extractor.conv_layers[0][0].weight.grad, **close)


@pytest.mark.parametrize("count", [1, 3])
def test_heads_are_drawn_as_s3prls(count: int) -> None:
    from s3prl.upstream.distiller.module import SplitLinear

    torch.manual_seed(7)
    theirs = torch.nn.Sequential(torch.nn.Linear(16, 16 * count), torch.nn.GELU(), SplitLinear(16, count, 16))
    torch.manual_seed(7)
    own = Heads(16, count, 16)
    assert torch.equal(own.shared.weight, theirs[0].weight)
    if count > 1:  # a single one is an ordinary linear layer there, and its weights lie the other way round
        assert torch.equal(own.weight, theirs[2].weight)
        assert torch.equal(own.bias, theirs[2].bias.flatten(0, 2))
    assert own.weight.abs().max() <= 0.25
    assert float(own.weight.detach().std()) == pytest.approx(0.25 / 3**0.5, rel=0.15)


def test_the_teachers_dropout_may_stay_on_as_in_s3prl(teacher_file: Path) -> None:
    """With the same seed, the same targets as s3prl's teacher in training mode."""
    teacher = registry.load(f"s3prl:hubert_local@{teacher_file}")
    theirs = Theirs(teacher_file, TINY, CONV, (2, 4))
    theirs.teacher.train()
    batch = make_batch([9_000, 7_000])
    deterministic = ours(teacher, (2, 4), replay=True)
    assert torch.equal(deterministic.targets(batch), deterministic.targets(batch))
    with_dropout = Distillation(deterministic.student, teacher, deterministic.settings, TeacherSettings(dropout=True))
    torch.manual_seed(3)
    own = with_dropout.targets(batch)
    torch.manual_seed(3)
    torch.testing.assert_close(own, theirs.targets(batch), rtol=1e-5, atol=1e-5)
    assert not torch.equal(own, with_dropout.targets(batch))


def test_dropout_of_a_transformers_teacher_drops_no_layers_and_masks_no_frames() -> None:
    """Transformers' training mode would drop layers and mask spans too."""
    teacher = registry.load("hubert_nano@random")
    objective = Distillation(
        build_student(StudentSettings(), teacher, 1),
        teacher,
        DistillationSettings(layers=(2,)),
        TeacherSettings(dropout=True),
    )
    for module in teacher.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in teacher.model.encoder.layers:  # type: ignore[union-attr]
        layer.attention.dropout = 0.0
    batch = make_batch([8_000])
    first = objective.targets(batch)
    assert all(torch.equal(first, objective.targets(batch)) for _ in range(5))


@pytest.fixture
def nano() -> Upstream:
    return registry.load("hubert_nano@random")


def test_padding_does_not_count(nano: Upstream) -> None:
    """Sums over a padded batch are those of its clips one by one: ours, unlike s3prl's."""
    objective = ours(nano, (1, 2), replay=False).eval()
    lengths = [16_000, 5_000, 9_999]
    batch = make_batch(lengths)
    together = run(objective, batch)
    alone = [run(objective, single(batch, k)) for k in range(len(lengths))]
    for name, term in together.items():
        assert int(term.frames) == 49 + 15 + 30
        torch.testing.assert_close(term.total, sum(terms[name].total for terms in alone), rtol=1e-4, atol=1e-4)
    assert int(run(ours(nano, (1, 2), replay=True), batch)["l1_1"].frames) == 3 * 49


def test_frame_losses_by_hand() -> None:
    prediction, target = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, -3.0]])
    parts = frame_losses(prediction, target, squared=True)
    assert parts["l1"].item() == pytest.approx((1 + 7) / 2)
    assert parts["l2"].item() == pytest.approx((1 + 49) / 2)
    assert parts["cosine"].item() == pytest.approx(0.693147, abs=1e-5)  # orthogonal: log 2
    aligned = frame_losses(target, 2 * target)
    assert aligned["cosine"].item() == pytest.approx(torch.log1p(torch.exp(torch.tensor(-1.0))).item())
    assert "l2" not in aligned


def test_terms_can_be_weighted_and_left_out(nano: Upstream) -> None:
    objective = ours(nano, (1, 2), replay=False)
    batch = make_batch([8_000])
    for settings, names in {
        DistillationSettings(layers=(1, 2), cosine=0.0): {"l1"},
        DistillationSettings(layers=(1, 2), l1=0.0): {"cosine"},
        DistillationSettings(layers=(1, 2), l1=0.0, l2=2.0, cosine=0.0): {"l2"},
    }.items():
        objective.settings = settings
        weighted = {name.split("_")[0] for name, term in run(objective, batch).items() if term.weight}
        assert weighted == names
    assert run(objective, batch)["l2_1"].weight == 1.0  # 2, over two layers


def test_teachers_that_may_leak_padding_process_clips_of_one_length(teacher_file: Path) -> None:
    """s3prl's wrapper doesn't report the frames of a length, so a clip's targets must be those it has alone."""
    objective = ours(registry.load(f"s3prl:hubert_local@{teacher_file}"), (2, 4), replay=False)
    lengths = [12_000, 5_000, 12_000]
    batch = make_batch(lengths)
    together = objective.targets(batch)
    for k in range(len(lengths)):
        alone = objective.targets(single(batch, k))[0]
        torch.testing.assert_close(together[k, :, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)


def test_standardised_targets(nano: Upstream) -> None:
    objective = ours(nano, (1, 2), replay=False)
    batches = [make_batch([16_000, 9_000]), make_batch([12_000])]
    objective.standardise(batches)
    every = []
    for batch in batches:
        every += [objective.targets(single(batch, k))[0] for k in range(len(batch.wavs))]
    frames = torch.cat(every, dim=1)  # [layers, frames, dim]
    assert frames.mean(1).abs().max() < 1e-3
    torch.testing.assert_close(frames.std(1, correction=0), torch.ones(2, 192), rtol=1e-2, atol=1e-2)


def test_the_teacher_is_neither_trained_nor_saved(nano: Upstream) -> None:
    objective = ours(nano, (1, 2), replay=False)
    before = nano.fingerprint()
    assert all(name.startswith(("student.", "mean", "scale")) for name in objective.state_dict())
    loss(run(objective.train(), make_batch([8_000]))).backward()
    assert all(p.grad is not None for p in objective.parameters())  # none that DDP would wait for
    assert all(p.grad is None for p in nano.parameters())
    assert nano.fingerprint() == before


@pytest.mark.parametrize("address", ["hubert_nano@random", "{}"])
def test_a_teacher_in_bf16_rounds_its_weights_once_to_what_autocast_makes_of_them(address: str, tmp_path: Path) -> None:
    from transformers import WavLMConfig, WavLMModel

    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96, "num_hidden_layers": 2}
    torch.manual_seed(0)
    WavLMModel(WavLMConfig(**sizes, conv_dim=(16,) * 7, num_conv_pos_embeddings=16)).save_pretrained(tmp_path)
    teacher = registry.load(address.format(f"hf:{tmp_path}"))
    batch, counts, targets = make_batch([16_000, 9_000]), [], []
    objective = ours(teacher, (1, 2), replay=False)
    for held in (False, True):
        objective.teacher_settings = TeacherSettings(precision="bf16")
        if held:
            objective = Distillation(objective.student, teacher, objective.settings, objective.teacher_settings)
        with Operations() as operations:
            targets.append(objective.targets(batch))
        counts.append(operations.count)
    assert torch.equal(*targets)
    assert counts[1] < counts[0]


def test_sizes_of_the_papers_student() -> None:
    """The sizes of HuBERT Base, without its weights' values."""
    student = build_student(StudentSettings(initialise=()), registry.load("hubert@random"), 3)
    assert sum(p.numel() for p in student.trunk.parameters()) == 23_491_200
    assert sum(p.numel() for p in student.heads.parameters()) == 3_543_552


def test_a_student_may_be_initialised_as_its_truncated_teacher(nano: Upstream) -> None:
    everything = StudentSettings(layers=1, projection_norm=True, initialise=("convolution", "encoder", "norms"))
    student = build_student(everything, nano, 1).eval()
    wav = make_batch([8_000]).wavs[0]
    torch.testing.assert_close(student.upstream([wav])["paper"][0], nano([wav])["hidden_states"][1])


def test_initialisation_is_drawn_where_nothing_is_copied(nano: Upstream) -> None:
    torch.manual_seed(0)
    nothing = build_student(StudentSettings(initialise=()), nano, 1)
    half = build_student(StudentSettings(initialise=("convolution",)), nano, 1)
    source = {name.removeprefix("model."): weight for name, weight in nano.state_dict().items()}
    convolution, layer = "feature_extractor.conv_layers.3.conv.weight", "encoder.layers.1.attention.k_proj.weight"
    assert not torch.equal(nothing.trunk.state_dict()[convolution], source[convolution])
    assert torch.equal(half.trunk.state_dict()[convolution], source[convolution])
    assert not torch.equal(half.trunk.state_dict()[layer], source[layer])


@pytest.mark.parametrize(
    ("teacher", "settings", "predicted", "message"),
    [
        ("hubert_nano@random", {}, (1, 3), r"the teacher hubert_nano has hidden states 0 to 2"),
        ("hubert_nano@random", {"layers": 3}, (1,), r"be copied from the teacher: it has no encoder.layers.2"),
        ("hubert_nano@random", {"hidden": 96}, (1,), r"is \[192, 192\] in the teacher and \[96, 192\] in the student"),
        ("fbank", {}, (0,), r"can't be copied from the teacher.*-o \"student.initialise=\[encoder\]"),
        (
            "fbank",
            {"initialise": (), "hidden": 16, "heads": 1, "feed_forward": 16, "conv": (8,) * 7},
            (0,),
            "every 160",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    teacher: str, settings: dict[str, Any], predicted: tuple[int, ...], message: str
) -> None:
    upstream = registry.load(teacher)

    def make() -> Distillation:
        student = build_student(StudentSettings(**settings), upstream, len(predicted))
        return Distillation(student, upstream, DistillationSettings(layers=predicted), TeacherSettings())

    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["Wav2Vec2", "WavLM"])
def test_other_families_teach(tmp_path: Path, kind: str) -> None:
    """Any upstream may be a teacher; here it is a class of the user's own."""
    (tmp_path / "teacher.py").write_text(
        f"""
import torch
from transformers import {kind}Config as C, {kind}Model as M

class Teacher(torch.nn.Module):
    def __init__(self):
        super().__init__()
        sizes = dict(hidden_size=64, num_attention_heads=1, intermediate_size=96, num_hidden_layers=3)
        self.net = M(C(**sizes, conv_dim=(16,) * 7))

    def forward(self, wavs):
        batch = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        return {{"hidden_states": list(self.net(batch, output_hidden_states=True).hidden_states)}}

    def get_downsample_rates(self, key):
        return 320
"""
    )
    teacher = registry.load(f"{tmp_path / 'teacher.py'}:Teacher")
    objective = ours(teacher, (1, 3), replay=False)
    source = {name.partition("net.")[2]: weight for name, weight in teacher.state_dict().items()}
    name = "encoder.layers.1.feed_forward.output_dense.weight"
    assert torch.equal(objective.student.trunk.state_dict()[name], source[name])
    assert torch.isfinite(loss(run(objective, make_batch([9_000, 6_000]))))
