from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from superb_eval.errors import UserError
from superb_eval.pretraining import network, shapes
from superb_eval.pretraining.batches import Batch
from superb_eval.pretraining.export import export
from superb_eval.pretraining.frontend_warmup import Regression
from superb_eval.pretraining.masked import MaskedPrediction, span_mask
from superb_eval.pretraining.objective import Objective, Terms
from superb_eval.pretraining.recipe import MaskSettings, PredictSettings, PretrainRecipe
from superb_eval.pretraining.targets import Labels
from tests.rounding import assert_near_states
from upstreams import registry
from upstreams.base import Card
from upstreams.hubert import Hubert, ValidGroupNorm

LENGTHS = (9_000, 16_000, 12_345)
CLUSTERS = 7
MORE = "{num_conv_pos_embeddings: 16, num_conv_pos_embedding_groups: 4, feat_extract_norm: %s}"


def batch(rows: tuple[int, ...] = (0, 1, 2), step: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(0)
    wavs = [0.1 * torch.randn(length, generator=generator) for length in LENGTHS]
    return Batch(
        pad_sequence([wavs[row] for row in rows], batch_first=True),
        tuple(LENGTHS[row] for row in rows),
        rows,
        (0,) * len(rows),
        tuple(100 + row for row in rows),
        step,
    )


def run(objective: MaskedPrediction, batch: Batch) -> Terms:
    terms: Terms = objective(objective.prepare(batch))
    return terms


@pytest.fixture
def objective(toy: Callable[..., PretrainRecipe]) -> MaskedPrediction:
    counts = [shapes.frame_count(length) for length in LENGTHS]
    values = np.random.default_rng(0).integers(0, CLUSTERS, sum(counts)).astype(np.uint16)
    labels = Labels(values, np.array([0, *np.cumsum(counts)]), CLUSTERS)
    model = network.create(toy("network.layers=2").network, 0)
    predict = PredictSettings(width=5, unmasked=(1.0, 0.5))
    with network.seeded(1):
        return MaskedPrediction(model, labels, MaskSettings(length=6), predict, steps=11)


def test_the_terms_of_a_batch_are_the_sums_of_its_clips(objective: MaskedPrediction) -> None:
    def sums(terms: Terms) -> dict[str, float]:
        return {name: term.total.item() for name, term in terms.items()}

    def counts(terms: Terms) -> dict[str, int]:
        return {name: int(term.frames) for name, term in terms.items()}

    together, alone = run(objective, batch()), [run(objective, batch((row,))) for row in range(3)]
    assert counts(together) == {name: sum(counts(terms)[name] for terms in alone) for name in together}
    for name, total in sums(together).items():
        assert total == pytest.approx(sum(sums(terms)[name] for terms in alone), rel=1e-4, abs=1e-5), name


def test_training_and_evaluation_run_the_same_network(objective: MaskedPrediction) -> None:
    upstream = Hubert(Card("x", "", 320), objective.model.eval())
    with torch.no_grad():
        frontend = network.run_frontend(objective.model, objective.prepare(batch()))
        ours = network.encode(objective.model, frontend)
        theirs = upstream([wav[:length] for wav, length in zip(batch().wavs, LENGTHS, strict=True)])
    for one, other, valid in zip(ours, theirs["hidden_states"][-1], frontend.valid, strict=True):
        assert_near_states(one[valid], other[valid])
    assert frontend.valid.sum(-1).tolist() == [shapes.frame_count(length) for length in LENGTHS]


def quiet(batch: Batch) -> Batch:
    """The batch at a level and an offset that a normalisation of waveforms removes."""
    valid = torch.arange(batch.wavs.shape[1]) < torch.tensor(LENGTHS)[:, None]
    return batch._replace(wavs=torch.where(valid, 0.1 * batch.wavs + 0.02, 0.0))


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_training_reads_the_waveforms_that_the_exported_encoder_reads(
    norm: str, toy: Callable[..., PretrainRecipe], tmp_path: Path
) -> None:
    model = network.create(toy("network.layers=2", f"network.more={MORE % norm}").network, 0).eval()
    export(model, tmp_path / "model")
    encoder = registry.load(f"hubert@{tmp_path / 'model'}")
    given = quiet(batch())
    with torch.no_grad():
        frontend = network.run_frontend(model, given._replace(inputs=network.frame_inputs(model, given)))
        ours = network.encode(model, frontend)
        theirs = encoder(given.padded.unpad())["hidden_states"][-1]
    assert frontend.valid.sum(-1).tolist() == [shapes.frame_count(length) for length in LENGTHS]
    for one, other, valid in zip(ours, theirs, frontend.valid, strict=True):
        assert_near_states(one[valid], other[valid])


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("warm_up", [False, True])
def test_valid_samples_are_normalised_for_layer_norms_alone(
    norm: str, warm_up: bool, objective: MaskedPrediction, toy: Callable[..., PretrainRecipe]
) -> None:
    model = network.create(toy("network.layers=2", f"network.more={MORE % norm}").network, 0)
    objective.model = model
    inputs: list[Tensor] = []
    model.feature_extractor.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    trained: Objective = Regression(model, 20) if warm_up else objective
    given = quiet(batch())
    trained(trained.prepare(given))
    (wavs,) = inputs
    if norm == "group":
        assert torch.equal(wavs, given.wavs)
        return
    for wav, length in zip(wavs, LENGTHS, strict=True):
        assert not wav[length:].any()
        assert float(wav[:length].mean()) == pytest.approx(0, abs=1e-4)
        assert float(wav[:length].square().mean()) == pytest.approx(1, abs=0.2)  # 1e-5 is added to the variance


def test_the_loss_is_fairseqs_arithmetic(objective: MaskedPrediction) -> None:
    """Written from the paper's equations, frame by frame: no matrix product, no cross-entropy."""
    terms = run(objective, batch())
    with torch.no_grad():
        frontend = network.run_frontend(objective.model, objective.prepare(batch()))
        masked = torch.zeros(frontend.valid.shape, dtype=torch.bool)
        for row, length in enumerate(LENGTHS):
            count = shapes.frame_count(length)
            rng = np.random.default_rng(100 + row)
            masked[row, :count] = torch.from_numpy(span_mask(count, objective.mask, rng))
        states = network.encode(objective.model, frontend, masked)
        head = objective.heads["2"]
        sums = {"masked": 0.0, "unmasked": 0.0, "penalty": 0.0, "masked_right": 0, "unmasked_right": 0}
        for row, length in enumerate(LENGTHS):
            for frame in range(shapes.frame_count(length)):
                projected = head.project(states[row, frame])
                target = int(objective.labels.values[objective.labels.starts[row] + frame])
                cosines = [
                    torch.cosine_similarity(projected, c, dim=0).item() / 0.1 for c in objective.heads["2"].classes
                ]
                kind = "masked" if masked[row, frame] else "unmasked"
                sums[kind] += np.log(np.exp(cosines).sum()) - cosines[target]
                sums[f"{kind}_right"] += int(np.argmax(cosines)) == target
                sums["penalty"] += float((frontend.features[row, frame] ** 2).mean())
    for name, total in sums.items():
        assert terms[name].total.item() == pytest.approx(float(total), rel=1e-4), name
    assert [terms[name].weight for name in sums] == [1.0, 1.0, 10.0, 0.0, 0.0]
    assert int(terms["masked"].frames) == int(masked.sum())


def test_each_named_layer_predicts_by_a_head_of_its_own(objective: MaskedPrediction) -> None:
    model, labels = objective.model, objective.labels
    predict = objective.predict.model_copy(update={"layers": (1, 2)})
    deep = MaskedPrediction(model, labels, objective.mask, predict, steps=11)
    deep.heads["2"].load_state_dict(objective.heads["2"].state_dict())
    alone, both = run(objective, batch()), run(deep, batch())
    assert both.keys() - alone.keys() == {f"{name}_1" for name in alone.keys() - {"penalty"}}
    for name, term in alone.items():
        torch.testing.assert_close(both[name].total, term.total)
    # The lower layer's loss is that of a network which ends there.
    model.encoder.layers = model.encoder.layers[:1]
    model.config.num_hidden_layers = 1
    cut = MaskedPrediction(model, labels, objective.mask, objective.predict, steps=11)
    cut.heads["1"].load_state_dict(deep.heads["1"].state_dict())
    torch.testing.assert_close(run(cut, batch())["masked"].total, both["masked_1"].total)


def with_codebooks(objective: MaskedPrediction, *others: int) -> MaskedPrediction:
    """Return the objective with further codebooks, whose codes are random, and the same weights else."""
    first, rng = objective.labels.values, np.random.default_rng(5)
    values = np.stack([first, *(rng.integers(0, size, len(first)).astype(np.uint16) for size in others)], 1)
    labels = Labels(values, objective.labels.starts, (CLUSTERS, *others))
    with network.seeded(1):
        return MaskedPrediction(objective.model, labels, objective.mask, objective.predict, steps=11)


def test_a_list_of_one_codebook_is_that_codebook_to_the_bit(objective: MaskedPrediction) -> None:
    listed = with_codebooks(objective)
    assert listed.state_dict().keys() == objective.state_dict().keys()
    gradients = []
    for each in (objective, listed):
        each.eval()
        terms = run(each, batch())
        head = each.heads["2"]
        total = terms["masked"].total
        gradients.append([total, *torch.autograd.grad(total, [head.classes, head.project.weight])])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_loss_of_a_frame_is_the_mean_over_codebooks(objective: MaskedPrediction) -> None:
    several = with_codebooks(objective, 4, 9).eval()
    together = run(several, batch())
    assert together.keys() - run(objective, batch()).keys() == {"masked_right_codebook2", "masked_right_codebook3"}
    head, alone = several.heads["2"], []
    for number, classes in enumerate([head.classes, *head.further]):
        labels = Labels(several.labels.values[:, number], several.labels.starts, len(classes))
        one = MaskedPrediction(objective.model, labels, objective.mask, objective.predict, steps=11).eval()
        one.heads["2"].project.load_state_dict(head.project.state_dict())
        one.heads["2"].classes.data.copy_(classes.data)
        alone.append(run(one, batch()))
    for name in ("masked", "unmasked"):
        mean = torch.stack([terms[name].total for terms in alone]).mean()
        torch.testing.assert_close(together[name].total, mean)
        assert together[name].weight == alone[0][name].weight and together[name].frames == alone[0][name].frames
    for name, terms in zip(("", "_codebook2", "_codebook3"), alone, strict=True):
        assert together[f"masked_right{name}"].total == terms["masked_right"].total
    torch.testing.assert_close(together["unmasked_right"].total, alone[0]["unmasked_right"].total)


@pytest.mark.parametrize("layers", ["[1]", "[2, 1]", "[0, 2]", "[2, 3]", "[1, 1, 2]"])
def test_layers_that_can_not_predict_are_refused(toy: Callable[..., PretrainRecipe], layers: str) -> None:
    with pytest.raises(UserError, match="ascending layers from 1 to 2, the last one included"):
        toy("network.layers=2", f"predict.layers={layers}")


def test_the_weight_of_unmasked_frames_is_linear_in_the_step(objective: MaskedPrediction) -> None:
    assert [objective.unmasked_weight(step) for step in (1, 6, 11)] == pytest.approx([1.0, 0.75, 0.5])
    assert run(objective, batch(step=11))["unmasked"].weight == pytest.approx(0.5)


def test_the_output_does_not_depend_on_the_content_of_masked_frames(objective: MaskedPrediction) -> None:
    objective.eval()
    with torch.no_grad():
        frontend = network.run_frontend(objective.model, objective.prepare(batch((1,))))
        masked = torch.zeros_like(frontend.valid)
        masked[:, 10:20] = True
        changed = frontend._replace(
            features=torch.where(masked[..., None], torch.randn_like(frontend.features), frontend.features)
        )
        one, other = (network.encode(objective.model, h, masked) for h in (frontend, changed))
        unmasked = network.encode(objective.model, changed)
    assert torch.equal(one, other)
    assert not torch.allclose(one, unmasked)


def test_the_first_norm_is_exact_for_frame_counts_beyond_bf16() -> None:
    x = 3.0 + torch.randn(2, 4, 70_001, generator=torch.Generator().manual_seed(0))
    norm = ValidGroupNorm(4, 4)
    norm.frame_counts = torch.tensor([50_001, 70_001])
    normalised = norm(x.bfloat16())[0, :, :50_001].float()
    expected = torch.nn.functional.group_norm(x[:1, :, :50_001], 4)[0]
    torch.testing.assert_close(normalised, expected, rtol=0, atol=0.03)


@given(frames=st.integers(2, 400), length=st.integers(1, 12), minimum=st.integers(1, 3), seed=st.integers(0, 99))
def test_masks_are_spans_and_leave_unmasked_context(frames: int, length: int, minimum: int, seed: int) -> None:
    mask = span_mask(frames, MaskSettings(length=length, minimum=minimum), np.random.default_rng(seed))
    assert mask.shape == (frames,) and mask.any() and not mask.all()
    if frames > 8 * length * minimum:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
        assert (edges[1::2] - edges[::2]).min() >= length  # spans that touch make longer ones


@pytest.mark.parametrize(("probability", "length"), [(0.08, 10), (0.08, 6), (0.065, 10)])
def test_masks_cover_the_expected_share_of_frames(probability: float, length: int) -> None:
    settings, frames = MaskSettings(probability=probability, length=length), 500
    drawn = np.mean([span_mask(frames, settings, np.random.default_rng(seed)) for seed in range(400)], axis=0)
    # A frame in the middle is unmasked if none of the `length` starts before it is drawn.
    expected = 1 - (1 - probability * frames / (frames - length + 1)) ** length
    assert drawn[50:-50].mean() == pytest.approx(expected, abs=0.01)
    assert drawn[0] < drawn[length] * 0.5  # only one span can mask the first frame
