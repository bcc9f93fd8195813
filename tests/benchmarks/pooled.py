"""KS, SID, IC and ER: s3prl's loop, which runs the upstream at each update, against stored means over time.

Both sides' updates are timed on the same 32 utterances of 1 s and the same weights, and have the same losses. The total
for the official number of updates and evaluations is computed from these, and from one pass to fill the store: longer
utterances cost the upstream in proportion.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from downstreams import registry
from downstreams import registry as tasks
from downstreams.base import Setup
from downstreams.batching.targets import Targets
from downstreams.nets.heads import UtteranceLevel
from superb_eval import recipe
from superb_eval.features.dataset import Features
from superb_eval.features.featurizer import Featurizer
from superb_eval.probing.batched_probes import MicroBatch, batch_probes
from superb_eval.probing.probe import Probe
from tests.benchmarks import peers
from tests.benchmarks.timing import pair, seconds

BATCH, CLASSES, UPDATES = 32, 12, 3


class Theirs:
    """s3prl's featurizer, head and loop on its own upstream."""

    def __init__(self, peer: peers.Peer, wavs: list[Tensor]) -> None:
        from s3prl.downstream import model
        from s3prl.upstream.interfaces import Featurizer as S3prlFeaturizer

        expert = peer.library
        self.wavs, self.expert = wavs, expert
        self.featurizer = S3prlFeaturizer(expert, feature_selection="hidden_states", upstream_device="cpu")
        self.projector = nn.Linear(768, 256)
        self.head = model.UtteranceLevel(input_dim=256, output_dim=CLASSES, pooling="MeanPooling")
        self.parameters = [p for m in (self.featurizer, self.projector, self.head) for p in m.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-3)

    def update(self) -> Tensor:
        with torch.no_grad():
            hidden = self.expert(self.wavs)
        features = self.featurizer(self.wavs, hidden)
        lengths = torch.tensor([len(f) for f in features])
        logits = self.head(self.projector(nn.utils.rnn.pad_sequence(features, batch_first=True)), lengths)[0]
        loss = nn.functional.cross_entropy(logits, torch.arange(BATCH) % CLASSES)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def ours(theirs: Theirs | None, means: Tensor, count: int = 1, device: str = "cpu") -> Callable[[], Tensor]:
    """Return an update of `count` of our heads, initialised as theirs."""
    kind = tasks.get("ks")
    task = kind(Setup([str(k) for k in range(CLASSES)], kind.Head()))
    probes = [Probe(Featurizer(means.shape[1]), UtteranceLevel(means.shape[2], 256, CLASSES)) for _ in range(count)]
    for probe in probes:
        if theirs is not None:
            probe.head.projector.load_state_dict(theirs.projector.state_dict())
            probe.head.classifier.load_state_dict(theirs.head.post_net.linear.state_dict())
    batched = batch_probes([probe.to(device) for probe in probes], task, pooled=True)
    features = Features.from_tensors(list(means.to(device)))
    groups = [{"params": batched.parameters(k), "lr": 1e-3} for k in range(count)]
    optimizer = torch.optim.Adam(groups, fused=True)
    targets = Targets.of([k % CLASSES for k in range(BATCH)]).to(torch.device(device))

    def update() -> Tensor:
        losses = batched.backward(MicroBatch(features.batch(range(BATCH)), targets, 0), 1.0)
        batched.clip(1.0)
        optimizer.step()
        batched.zero_grad()
        return losses

    return update


def run() -> str:
    model = "distilhubert"
    peer = peers.peers_of(model)[0]
    wavs = list(0.1 * torch.randn(BATCH, 16_000, generator=torch.Generator().manual_seed(0)))
    theirs = Theirs(peer, wavs)
    with torch.inference_mode():
        # Its default feature has the heads' predictions too; the same states on both sides.
        means = torch.stack(peer.library(wavs)["hidden_states"], dim=2).mean(dim=1).clone()
        extract = seconds(lambda: peer.ours(wavs)) / BATCH
    mine = ours(theirs, means)
    for a, b in [(theirs.update(), mine()[0]) for _ in range(UPDATES)]:
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    times = pair(theirs.update, mine, rounds=3)
    lines = [f"pooled {model}, one update: {times}"]
    lines += [_total(model, task, times.slow, times.fast, extract) for task in ("ks", "sid", "ic", "er")]
    lines += [_many(layers, width) for layers, width in ((13, 192), (13, 768))]
    return "\n".join(lines)


def _total(model: str, task: str, slow: tuple[float, ...], fast: tuple[float, ...], extract: float) -> str:
    """Return the total of a task at one learning rate; the upstream's time is in proportion to utterance length."""
    official, train = registry.get(task).official_corpus, recipe.load(recipe.find(task, "superb")).train
    assert official is not None and train is not None
    a, b = sorted(slow)[len(slow) // 2], sorted(fast)[len(fast) // 2]
    forward, length = max(0.0, a - b), min(8.0, official.seconds)
    evaluated = (official.utterances[1] + official.utterances[2]) * train.steps / train.eval_every / BATCH
    passes = train.steps * BATCH / official.utterances[0]
    loop = train.steps * (b + forward * length) + evaluated * forward * official.seconds
    stored = train.steps * b + sum(official.utterances) * extract * official.seconds / official.folds
    times = f"{loop / 3600:.1f} h against {stored / 3600:.2f} h"
    return f"pooled {model} {task}, {passes:.0f} passes: {loop / stored:.0f} x ({times})"


def _many(layers: int, width: int) -> str:
    """Ten batched heads against one."""
    means = torch.randn(BATCH, layers, width)
    one, ten = (ours(None, means, count) for count in (1, 10))
    times = pair(ten, one, rounds=7, often=20)
    return f"ten heads against one, {layers} x {width}: {times}"
