"""Findings of the contract's rules, and the effect of a broken rule on the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from superb_eval.errors import UserError

CONSEQUENCES = {
    "forward": "no task can run",
    "card": "tables, `upstream show` and plans print wrong sizes",
    "axes": "every task would weight time steps as if they were features: no head can learn",
    "shapes": "no task can weight its layers: that takes one shape",
    "float32": "figures differ from those of the same weights in float32, and heads are trained on rounded features",
    "layers": "no task can weight its layers, or PR, ASR, SF and SD read the wrong frame",
    "frames": "PR, ASR, SF, SD, ASV, QbE process padding as speech or lose the end of it; KS, SID, IC, ER average it",
    "long": "SD, QbE, ASV and ASR stop at their long recordings",
    "stride": "SD's labels are shifted, so its DER is meaningless; CTC (PR, ASR, SF) may have too few frames",
    "rate": "every task processes speech at another speed and pitch than the weights were trained on",
    "batch invariance": "figures depend on the batch size and on which utterances share a batch, PR, ASR and SD most",
    "evaluation": "stored features are one random draw: a second run gives other figures, intervals are too narrow",
    "state": "features depend on what was processed before: a run that was interrupted and resumed gives other figures",
    "gradients": "memory grows with every batch, and a head's training could change the upstream",
    "silence": "KS stops at _silence_, SD at pauses, ASV and QbE at trimmed or padded recordings",
    "loud": "every task stops at clipped recordings",
    "half precision": "features.dtype=float16 stores infinities, or features.precision=bf16 gives other figures",
    "short": "KS, IC and QbE stop at short words, with an error that doesn't state why",
    "device": "--device cuda, or cpu, fails in every task",
}
"""By rule: the effect on the tasks where it is broken."""


def original_error(error: Exception) -> BaseException:
    """Return the error that a module raised, where it was made a sentence on its way."""
    return error.__cause__ if isinstance(error, UserError) and error.__cause__ is not None else error


@dataclass(frozen=True)
class Finding:
    """The result of one rule."""

    rule: str
    passed: bool
    measured: str
    limit: str
    note: str = ""

    @property
    def consequence(self) -> str:
        """The effect on the tasks; empty where the rule holds."""
        return "" if self.passed else CONSEQUENCES.get(self.rule, "")

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "FAIL"
        note = f"; {self.note}" if self.note else ""
        line = f"{verdict}  {self.rule:<17} {self.measured} (limit: {self.limit}){note}"
        return f"{line}\n{'':<24}so: {self.consequence}" if self.consequence else line


def render(findings: Sequence[Finding]) -> str:
    """Return one line per finding, and a last line that counts them."""
    broken = [finding.rule for finding in findings if not finding.passed]
    verdict = f"breaks the contract: {', '.join(broken)}" if broken else "keeps the contract"
    return "\n".join([*map(str, findings), f"{len(findings) - len(broken)} of {len(findings)} rules hold: {verdict}"])
