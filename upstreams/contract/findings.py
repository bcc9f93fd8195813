"""What the rules of the contract find, and what a broken one does to the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CONSEQUENCES = {
    "forward": "no task can run",
    "card": "tables, `upstream show` and plans print sizes that aren't its own",
    "axes": "every task would weigh time steps as if they were features: nothing can be learnt",
    "shapes": "no task can weigh its layers: that takes one shape",
    "float32": "figures differ from those of the same weights in float32, and heads are trained on rounded features",
    "layers": "no task can weigh its layers, or PR, ASR, SF and SD read the wrong frame",
    "frames": "PR, ASR, SF, SD, ASV, QbE take padding for speech or lose the end of it; KS, SID, IC, ER average it",
    "long": "SD, QbE, ASV and ASR stop at their long recordings",
    "stride": "SD's labels lie beside the speech, so its DER means nothing; CTC (PR, ASR, SF) may have too few frames",
    "rate": "every task hears speech at another speed and pitch than the weights were made for",
    "batch invariance": "every figure depends on the batch size and on which utterances meet, PR, ASR and SD most",
    "evaluation": "stored features are one draw of many: a second run gives other figures, intervals are too narrow",
    "state": "features depend on what was heard before: a run that was interrupted and taken up gives other figures",
    "gradients": "memory grows with every batch, and a head's training could change the upstream",
    "silence": "KS stops at _silence_, SD at pauses, ASV and QbE at trimmed or padded recordings",
    "loud": "every task stops at clipped recordings",
    "half precision": "features.dtype=float16 stores infinities, or features.precision=bf16 gives other figures",
    "short": "KS, IC and QbE stop at short words, with an error that doesn't say why",
    "device": "--device cuda, or cpu, fails in every task",
}
"""By rule: which task goes wrong, and how, where it is broken."""


@dataclass(frozen=True)
class Finding:
    """What one rule found."""

    rule: str
    passed: bool
    measured: str
    limit: str
    note: str = ""

    @property
    def consequence(self) -> str:
        """What goes wrong in which task; nothing where the rule holds."""
        return "" if self.passed else CONSEQUENCES.get(self.rule, "")

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "FAIL"
        note = f"; {self.note}" if self.note else ""
        line = f"{verdict}  {self.rule:<17} {self.measured} (limit: {self.limit}){note}"
        return f"{line}\n{'':<24}so: {self.consequence}" if self.consequence else line


def render(findings: Sequence[Finding]) -> str:
    """Return one line per finding, and a last one that counts them."""
    broken = [finding.rule for finding in findings if not finding.passed]
    verdict = f"breaks the contract: {', '.join(broken)}" if broken else "keeps the contract"
    return "\n".join([*map(str, findings), f"{len(findings) - len(broken)} of {len(findings)} rules hold: {verdict}"])
