"""A frame task (PR's head): s3prl's loop, which runs the upstream at each update, against stored and live frames.

The same utterances, network and weights; both sides' updates have the same losses. The total for the official number of
passes is computed from the updates, and from one pass to fill the store.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import soundfile
import torch
from torch import Tensor, nn

from downstreams import registry as tasks
from downstreams.base import Setup
from downstreams.batching.targets import Targets
from superb_eval.data import audio
from superb_eval.data.audio import Clip
from superb_eval.features.dataset import FeatureDataset
from superb_eval.features.extract import Extraction
from superb_eval.features.featurizer import Featurizer
from superb_eval.features.load_or_extract import FeatureSource, load_or_extract
from superb_eval.features.store import Store
from superb_eval.probing.batched_probes import BatchedProbes, MicroBatch, batch_probes
from superb_eval.probing.probe import Probe
from tests.benchmarks import peers
from tests.benchmarks.timing import pair, seconds

CLIPS, SECONDS, PASSES = 4, 6, 112
"""PR processes each training utterance 100 000 x 32 / 28 539 times."""

TARGETS = Targets.of([[5, 6, 7] * 20] * CLIPS)


def run() -> str:
    kind = tasks.get("pr")
    task = kind(Setup([str(k) for k in range(74)], kind.Head()))
    # transformers' network, which s3prl's loop would run as any other upstream
    peer = peers.peers_of("distilhubert")[1]
    with tempfile.TemporaryDirectory() as folder:
        clips = [_clip(Path(folder) / f"{k}.wav", k) for k in range(CLIPS)]
        digests = [audio.digest(clip) for clip in clips]
        source = FeatureSource(peer.ours, peer.ours.fingerprint(), Extraction("frames"), "cpu")
        clip_of = dict(zip(digests, clips, strict=True))
        extraction = seconds(
            lambda: load_or_extract(source, clip_of, Store(Path(folder) / "store"), lambda done: None, PASSES)
        )
        stored = load_or_extract(source, clip_of, Store(Path(folder) / "store"), lambda done: None, PASSES)
        live = load_or_extract(source, clip_of, Store(Path(folder) / "none", 1e-9), lambda done: None, PASSES)
        assert stored.places and live.unstored
        sides = [_loop(peer, task, clips), _ours(task, stored, digests), _ours(task, live, digests)]
        losses = torch.tensor([[float(side()) for _ in range(3)] for side in sides])
        torch.testing.assert_close(losses[0].expand(3, 3), losses, rtol=1e-3, atol=1e-3)
        fast, same = pair(sides[0], sides[1], rounds=4), pair(sides[0], sides[2], rounds=4)
        shared = pair(_ours(task, live, digests, seeds=3), sides[2], rounds=4)
    update, theirs = sorted(fast.fast)[1], sorted(fast.slow)[1]
    total = PASSES * theirs / (PASSES * update + extraction)
    return (
        f"frames, one update, s3prl's loop / stored: {fast}; over {PASSES} passes, extraction and writing included: "
        f"{total:.3g} x\nframes, one update, s3prl's loop / live, nothing fits: {same}\n"
        f"frames, one live update of three seeds / of one: {shared}"
    )


def _clip(path: Path, seed: int) -> Clip:
    noise = 0.1 * torch.randn(16_000 * SECONDS, generator=torch.Generator().manual_seed(seed))
    soundfile.write(path, noise.numpy(), 16_000)
    return Clip(path)


def _loop(peer: peers.Peer, task, clips: list[Clip]):  # type: ignore[no-untyped-def]
    """Return an update of s3prl's runner: upstream, weighted sum, projector, head (`downstream/ctc/expert.py`)."""
    from s3prl.downstream.model import FrameLevel
    from s3prl.upstream.interfaces import Featurizer as S3prlFeaturizer

    torch.manual_seed(0)
    head = task.head(768)
    projector, theirs = nn.Linear(768, 256), FrameLevel(256, 74)
    projector.load_state_dict(head.projector.state_dict())
    theirs.linear.load_state_dict(head.classifier.state_dict())
    featurizer = S3prlFeaturizer(peer.library, upstream_device="cpu")
    parameters = [*featurizer.parameters(), *projector.parameters(), *theirs.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)

    def update() -> Tensor:
        wavs = [torch.from_numpy(audio.read(clip)) for clip in clips]
        with torch.no_grad():
            hidden = peer.library(wavs)
        features = featurizer(wavs, hidden)
        lengths = torch.tensor([len(f) for f in features])
        logits, _ = theirs(projector(nn.utils.rnn.pad_sequence(features, batch_first=True)), lengths)
        loss = task.loss(logits, lengths, TARGETS)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return update


def _ours(task, dataset: FeatureDataset, digests: list[str], seeds: int = 1):  # type: ignore[no-untyped-def]
    features = dataset.select(digests)
    sides = [_side(task, dataset, seed) for seed in range(seeds)]

    def update() -> Tensor:
        batch = features.batch(range(CLIPS))
        losses = []
        for batched, optimizer in sides:
            losses.append(batched.backward(MicroBatch(batch, TARGETS, 0), 1.0)[0])
            batched.clip(1.0)
            optimizer.step()
            batched.zero_grad()
        return losses[0]

    return update


def _side(task, dataset: FeatureDataset, seed: int) -> tuple[BatchedProbes, torch.optim.Optimizer]:  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    probe = Probe(Featurizer(dataset.layers), task.head(dataset.dim))
    return batch_probes([probe], task, pooled=False), torch.optim.Adam(probe.parameters(), lr=1e-3, fused=True)
