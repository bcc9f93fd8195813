"""Trains PR, KS, IC, ER, ASV and SD beside s3prl's own modules: the largest relative difference of their losses.

Both sides have the same features, initial weights, batches (smaller last ones among them) and micro-batches per update.
Ours are the heads, losses and updates of a run; theirs are s3prl's featurizer and heads, and the update of its
`downstream/runner.py`. Rounding differences grow from update to update, so the first updates are printed apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from downstreams import registry
from downstreams.base import Setup, TrainedTask
from downstreams.batching.sampling import Sampler
from downstreams.batching.targets import Targets
from superb_eval.features.dataset import FeatureBatch
from superb_eval.features.featurizer import Featurizer
from superb_eval.probing.active_probes import ActiveProbes
from superb_eval.probing.batched_probes import MicroBatch
from superb_eval.probing.probe import Probe
from superb_eval.probing.probe_state import ProbeState
from superb_eval.recipe import TrainSettings
from tests.downstreams import test_asv, test_sd

UPDATES, FIRST, BATCH, ACCUMULATE = 100, 10, 8, 2
UTTERANCES, LAYERS, DIM, FRAMES, STRIDE = 44, 4, 64, 60, 320
HIDDEN, WIDE = 64, 150
"""Widths of the recurrent head of SD and of ASV's; an eighth or a tenth of the protocol's."""

TheirLoss = Callable[[list[Tensor], Sequence[Any]], Tensor]
"""s3prl's loss of weighted features [frames, dim], one for each utterance, and their targets."""


@dataclass(frozen=True)
class Case:
    """A task on both sides: `theirs` has what s3prl trains, `copy` gives our head its weights."""

    name: str
    task: TrainedTask
    theirs: nn.ModuleDict
    their_loss: TheirLoss
    copy: Callable[[nn.Module], None]
    targets: Sequence[Any]
    hidden: Sequence[Tensor]
    lr: float = 1e-3


def run() -> str:
    """Return a table of the largest relative differences."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [f"| {case.name} | {_row(*_train(case))} |" for case in _cases()]
    finally:
        torch.set_num_threads(threads)
    heading = f"| task | first {FIRST} updates | {UPDATES} updates | loss, first and last |\n| --- | --- | --- | --- |"
    return "\n".join([heading, *rows])


def _row(ours: list[float], theirs: list[float]) -> str:
    differences = [abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True)]
    return f"{max(differences[:FIRST]):.1e} | {max(differences):.1e} | {theirs[0]:.3f} to {theirs[-1]:.3f}"


def _train(case: Case) -> tuple[list[float], list[float]]:
    """Return the loss of each update, of ours and of s3prl's."""
    settings = TrainSettings(steps=UPDATES, eval_every=UPDATES, batch_size=BATCH, accumulate=ACCUMULATE, lr=case.lr)
    sampler = Sampler(len(case.hidden), BATCH, 0, drop_last=case.task.drop_last)
    batches = [sampler.batch(k) for k in range(UPDATES * ACCUMULATE)]
    updates = [batches[k : k + ACCUMULATE] for k in range(0, len(batches), ACCUMULATE)]
    theirs, ours = _their_updates(case, settings), _our_updates(case, settings)
    return [ours(micro_batches) for micro_batches in updates], [theirs(micro_batches) for micro_batches in updates]


def _our_updates(case: Case, settings: TrainSettings) -> Callable[[list[list[int]]], float]:
    head = case.task.head(DIM)
    case.copy(head)
    state, targets = ProbeState(case.lr, Probe(Featurizer(LAYERS), head), Path()), Targets.of(case.targets)
    active = ActiveProbes([state], case.task, settings, case.task.pooled)

    def update(micro_batches: list[list[int]]) -> float:
        losses = [
            active.probes.backward(
                MicroBatch(_batch(case, chosen), targets.select(chosen), 0),
                1 / settings.accumulate,
            )
            for chosen in micro_batches
        ]
        active.update(1, torch.stack(losses).mean(dim=0))
        return float(active.losses[-1])

    return update


def _batch(case: Case, chosen: list[int]) -> FeatureBatch:
    if case.task.pooled:
        means = torch.stack([case.hidden[i].mean(dim=0) for i in chosen])
        return FeatureBatch(means, torch.ones(len(chosen), dtype=torch.long))
    rows = [case.hidden[i] for i in chosen]
    return FeatureBatch(nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows]))


class _HiddenStates(nn.Module):
    """An upstream that returns stored hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: Sequence[Tensor] = [torch.zeros(16_000 // STRIDE, LAYERS, DIM)]

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        del wavs
        return {"hidden_states": list(nn.utils.rnn.pad_sequence(list(self.stored), batch_first=True).unbind(dim=2))}

    def get_downsample_rates(self, key: str) -> int:
        del key
        return STRIDE


def _their_updates(case: Case, settings: TrainSettings) -> Callable[[list[list[int]]], float]:
    """As s3prl's `downstream/runner.py`."""
    from s3prl.upstream.interfaces import Featurizer as S3prlFeaturizer

    upstream = _HiddenStates()
    featurizer = S3prlFeaturizer(upstream, feature_selection="hidden_states", upstream_device="cpu")
    parameters = [*featurizer.parameters(), *case.theirs.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=case.lr)

    def update(micro_batches: list[list[int]]) -> float:
        losses = []
        for chosen in micro_batches:
            upstream.stored = [case.hidden[i] for i in chosen]
            wavs = [torch.zeros(len(row) * STRIDE) for row in upstream.stored]
            features = featurizer(wavs, upstream(wavs))
            loss = case.their_loss(features, [case.targets[i] for i in chosen])
            (loss / settings.accumulate).backward()
            losses.append(loss.item())
        norm = nn.utils.clip_grad_norm_(parameters, settings.clip)
        assert not math.isnan(norm)
        optimizer.step()
        optimizer.zero_grad()
        return sum(losses) / len(losses)

    return update


def _cases() -> list[Case]:
    torch.manual_seed(0)
    lengths = torch.randint(FRAMES // 2, FRAMES + 1, (UTTERANCES,)).tolist()
    slots = {"action": list("abcdef"), "object": list("abcdefghijklmn"), "location": list("abcd")}
    er = registry.get("er")
    return [
        _pr(lengths),
        _classes("KS, 12 classes", "ks", list("abcdefghijkl"), lengths),
        _classes("IC, 3 slots", "ic", slots, lengths),
        _classes("ER, 4 emotions", er.name, list("abcd"), lengths),
        _asv(lengths),
        _sd("SD, equal lengths", [FRAMES] * UTTERANCES, missing=0),
        _sd("SD, other lengths, a frame less than labels", lengths, missing=1),
    ]


def _hidden(signals: Sequence[Tensor]) -> list[Tensor]:
    """Noise, and in each layer a projection of what is to be recognised [frames, classes]: [frames, layers, dim]."""
    projections = torch.randn(LAYERS, signals[0].shape[1], DIM)
    return [
        torch.einsum("fc,lcd->fld", signal, projections) + torch.randn(len(signal), LAYERS, DIM) for signal in signals
    ]


def _one_hot(classes: Sequence[int], lengths: Sequence[int], count: int) -> list[Tensor]:
    """Signals that are the same in each frame of an utterance."""
    return [nn.functional.one_hot(torch.tensor([c] * n), count).float() for c, n in zip(classes, lengths, strict=True)]


def _classes(name: str, short: str, labels: Any, lengths: Sequence[int]) -> Case:
    """KS, IC and ER: `downstream/model.py:UtteranceLevel` behind a projector."""
    from s3prl.downstream import model

    task = registry.get(short)(Setup(labels, registry.get(short).Head(), STRIDE))
    assert isinstance(task, TrainedTask)
    sizes = [len(values) for values in labels.values()] if isinstance(labels, dict) else [len(labels)]
    numbers = torch.stack([torch.randint(size, (UTTERANCES,)) for size in sizes], dim=1)
    signals = [torch.cat([*parts], dim=1) for parts in zip(*[
        _one_hot(numbers[:, k].tolist(), lengths, size) for k, size in enumerate(sizes)
    ], strict=True)]  # fmt: skip
    theirs = nn.ModuleDict(
        {
            "projector": nn.Linear(DIM, 256),
            "model": model.UtteranceLevel(input_dim=256, output_dim=sum(sizes), pooling="MeanPooling"),
        }
    )

    def loss(features: list[Tensor], targets: Sequence[Any]) -> Tensor:
        frames = torch.IntTensor([len(feature) for feature in features])
        logits, _ = theirs["model"](theirs["projector"](nn.utils.rnn.pad_sequence(features, batch_first=True)), frames)
        wanted, first, total = torch.tensor(targets).view(len(targets), -1), 0, torch.zeros(())
        for k, size in enumerate(sizes):  # as fluent_commands/expert.py sums its slots
            total = total + nn.CrossEntropyLoss()(logits[:, first : first + size], wanted[:, k])
            first += size
        return total

    def copy(head: nn.Module) -> None:
        head.projector.load_state_dict(theirs["projector"].state_dict())  # type: ignore[operator,union-attr]
        head.classifier.load_state_dict(theirs["model"].post_net.linear.state_dict())  # type: ignore[operator,union-attr]

    targets = numbers.tolist() if isinstance(labels, dict) else numbers[:, 0].tolist()
    return Case(name, task, theirs, loss, copy, targets, _hidden(signals))


def _pr(lengths: Sequence[int]) -> Case:
    """`downstream/ctc/expert.py`: `model.py:FrameLevel` behind a projector, and CTC."""
    from s3prl.downstream.model import FrameLevel

    kind, outputs = registry.get("pr"), 74
    task = kind(Setup(["<pad>", "<eos>", "<unk>", *map(str, range(outputs - 3))], kind.Head(), STRIDE))
    assert isinstance(task, TrainedTask)
    targets = [[*torch.randint(3, outputs, (n // 6,)).tolist(), 1] for n in lengths]
    spoken = [torch.tensor(t).repeat_interleave(6)[:n] for t, n in zip(targets, lengths, strict=True)]
    theirs = nn.ModuleDict({"projector": nn.Linear(DIM, 256), "model": FrameLevel(256, outputs)})
    objective = nn.CTCLoss(blank=0, zero_infinity=True)

    def loss(features: list[Tensor], wanted: Sequence[Any]) -> Tensor:
        frames = torch.IntTensor([len(feature) for feature in features])
        sizes = torch.IntTensor([len(target) for target in wanted])
        labels = nn.utils.rnn.pad_sequence([torch.LongTensor(target) for target in wanted], batch_first=True)
        padded = nn.utils.rnn.pad_sequence(features, batch_first=True)
        logits, _ = theirs["model"](theirs["projector"](padded), frames)
        result: Tensor = objective(logits.log_softmax(dim=-1).transpose(0, 1), labels, frames, sizes)
        return result

    def copy(head: nn.Module) -> None:
        head.projector.load_state_dict(theirs["projector"].state_dict())  # type: ignore[operator,union-attr]
        head.classifier.load_state_dict(theirs["model"].linear.state_dict())  # type: ignore[operator,union-attr]

    hidden = _hidden([nn.functional.one_hot(s, outputs).float() for s in spoken])
    return Case("PR, 74 outputs", task, theirs, loss, copy, targets, hidden)


def _asv(lengths: Sequence[int]) -> Case:
    """`downstream/sv_voxceleb1/expert.py` with the XVector and AM-softmax of its configuration."""
    from s3prl.downstream.sv_voxceleb1 import model

    kind, speakers = registry.get("asv"), 20
    task = kind(Setup([str(k) for k in range(speakers)], kind.Head(hidden=HIDDEN, wide=WIDE), STRIDE))
    assert isinstance(task, TrainedTask)
    settings = {"agg_dim": WIDE, "dropout_p": 0.0, "batch_norm": False}
    theirs = nn.ModuleDict(
        {
            "connector": nn.Linear(DIM, HIDDEN),
            "model": model.Model(HIDDEN, WIDE, "SP", "XVector", "UtteranceExtractor", settings),
            "objective": model.AMSoftmaxLoss(HIDDEN, speakers, s=30.0, m=0.4),
        }
    )

    def loss(features: list[Tensor], wanted: Sequence[Any]) -> Tensor:
        mask = test_asv.mask(torch.tensor([len(feature) for feature in features]))
        padded = nn.utils.rnn.pad_sequence(features, batch_first=True)
        result: Tensor = theirs["objective"](theirs["model"](theirs["connector"](padded), mask), torch.tensor(wanted))
        return result

    targets = torch.randint(speakers, (UTTERANCES,)).tolist()
    hidden = _hidden(_one_hot(targets, lengths, speakers))
    return Case(
        "ASV, 20 speakers", task, theirs, loss, lambda head: test_asv.copy_weights(theirs, head), targets, hidden, 1e-4
    )


def _sd(name: str, lengths: Sequence[int], missing: int) -> Case:
    """`downstream/diarization`; `missing` frames less than labels."""
    from s3prl.downstream.diarization import model, utils

    kind = registry.get("sd")
    task = kind(Setup(2, kind.Head(hidden=HIDDEN), STRIDE))
    assert isinstance(task, TrainedTask)
    labels = [(torch.rand(n + missing, 2) > 0.5).float() for n in lengths]
    theirs = nn.ModuleDict({"model": model.Model(DIM, 2, rnn_layers=1, hidden_size=HIDDEN)})
    match = test_sd.s3prl_source("expert", "DownstreamExpert")._match_length

    def loss(features: list[Tensor], wanted: Sequence[Any]) -> Tensor:
        padded = nn.utils.rnn.pad_sequence(list(wanted), batch_first=True)
        matched, _ = match(None, nn.utils.rnn.pad_sequence(features, batch_first=True), padded)
        result: Tensor = utils.pit_loss(theirs["model"](matched), padded, torch.tensor([len(w) for w in wanted]))[0]
        return result

    def copy(head: nn.Module) -> None:
        head.load_state_dict(theirs["model"].state_dict())

    return Case(name, task, theirs, loss, copy, labels, _hidden([row[: len(row) - missing] for row in labels]), 1e-3)
