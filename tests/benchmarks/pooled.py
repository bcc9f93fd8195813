"""A training step of KS: the frozen upstream run again, as s3prl's loop does, against stored means over time."""

from __future__ import annotations

import torch
from torch import nn

from downstreams.heads import UtteranceLevel
from superb_eval import threads
from superb_eval.features.featurizer import Featurizer
from superb_eval.features.gather import Features
from superb_eval.probe import Probe
from tests.benchmarks.timing import ratio
from upstreams import registry

UPSTREAM, BATCH, CLASSES = "hubert_mini@random", 32, 12


def run() -> str:
    from s3prl.downstream import model
    from s3prl.upstream.interfaces import Featurizer as S3prlFeaturizer

    torch.manual_seed(0)
    upstream = registry.load(UPSTREAM)
    wavs = list(0.1 * torch.randn(BATCH, 16_000))
    labels = torch.arange(BATCH) % CLASSES
    theirs_featurizer = S3prlFeaturizer(upstream, upstream_device="cpu")
    projector = nn.Linear(upstream.card.width, 256)
    theirs = model.UtteranceLevel(input_dim=256, output_dim=CLASSES, pooling="MeanPooling")

    def logits_of_theirs() -> torch.Tensor:
        with torch.no_grad():
            hidden = upstream(wavs)
        features = theirs_featurizer(wavs, hidden)
        lengths = torch.tensor([len(f) for f in features])
        return theirs(projector(nn.utils.rnn.pad_sequence(features, batch_first=True)), lengths)[0]

    ours = Probe(Featurizer(upstream.card.layers), UtteranceLevel(upstream.card.width, 256, CLASSES))
    ours.head.projector.load_state_dict(projector.state_dict())
    ours.head.classifier.load_state_dict(theirs.post_net.linear.state_dict())
    with torch.inference_mode():
        stored = Features(torch.stack(upstream(wavs)["hidden_states"], dim=2).mean(dim=1).clone())

    def logits_of_ours() -> torch.Tensor:
        return ours(stored.batch(range(BATCH)).hidden.clone(), None)

    torch.testing.assert_close(logits_of_ours(), logits_of_theirs(), rtol=1e-4, atol=1e-5)
    their_step = _step(
        logits_of_theirs, labels, [*theirs_featurizer.parameters(), *projector.parameters(), *theirs.parameters()]
    )
    our_step = _step(logits_of_ours, labels, list(ours.parameters()))

    def our_step_on_one_thread() -> None:
        with threads.at_most(1):
            our_step()

    return ratio(f"KS training step, {UPSTREAM}, s3prl's loop / stored means", their_step, our_step_on_one_thread)


def _step(logits, labels: torch.Tensor, parameters: list[nn.Parameter]):  # type: ignore[no-untyped-def]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)

    def step() -> None:
        nn.functional.cross_entropy(logits(), labels).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step
