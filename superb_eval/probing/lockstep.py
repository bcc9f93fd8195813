"""The loop of training: one, or those of several seeds that hear the same micro-batches, so that a pass serves all.

Dev is evaluated every `eval_every` steps and after the last one; a strictly better value keeps the weights (s3prl
`downstream/runner.py`). The state of training is saved at each evaluation, so that a killed run goes on from there and
ends with the bits of an unbroken one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from superb_eval.probing.probe import decoded
from superb_eval.probing.training import Training
from superb_eval.runtime import out_of_memory

OnStep = Callable[[int, str], None]
"""Called with (steps done, what to show beside the bar)."""


def run(trainings: Sequence[Training], readers: int, progress: OnStep) -> None:
    """Train to the last step, taking up what was interrupted; leave the weights that dev chose in members' folders.

    Several trainings have to share the order of their utterances. Those that are behind catch up first. `readers`
    threads fetch or compute the features of batches ahead.

    Raises:
        UserError: a loss is no longer finite, or the disk is full; what was saved is kept.
    """
    for training in trainings:
        training.resume()
    last = trainings[0].settings.steps
    while (at := min(training.step for training in trainings)) < last:
        together = [training for training in trainings if training.step == at]
        until = min((training.step for training in trainings if training.step > at), default=last)
        _advance(together, until, readers, progress)


def _advance(trainings: Sequence[Training], until: int, readers: int, progress: OnStep) -> None:
    """Take trainings that stand at one step to another."""
    first = trainings[0]
    with closing(first.drawn(readers)) as batches:
        while first.step < until:
            drawn = [next(batches) for _ in range(first.settings.accumulate)]
            for training in trainings:
                training.take(drawn)
            if first.due:
                _evaluate(trainings)
            progress(first.step, first.postfix())


def _evaluate(trainings: Sequence[Training]) -> None:
    """Let all probes answer dev, and test where the task asks for it, in one pass each."""
    out_of_memory.trim_memory()  # here and not after each batch: where features are live, a small one takes no longer
    task, splits = trainings[0].task, trainings[0].splits
    probes = [member.probe for training in trainings for member in training.members]
    answers = {
        split: iter(decoded(probes, task, splits[split].features))
        for split in ("dev", *(("test",) if task.best_on_test else ()))
    }
    for training in trainings:
        training.note({split: [next(each) for _ in training.members] for split, each in answers.items()})
