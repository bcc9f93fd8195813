"""superb-eval: a SUPERB-style evaluation toolkit for speech encoders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from superb_eval.runtime import threads as _threads
from superb_eval.version import __version__ as __version__

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import nn

    from superb_eval.analysis.upstream_check import ContractReport
    from superb_eval.results.record import RunRecord

_threads.set_defaults()


def evaluate(upstream: str, task: str, data: str | Path | None = None, **options: Any) -> RunRecord:
    """Run a task on an upstream, as `superb-eval run` does, and return the record.

    `options` are the other fields of `superb_eval.runs.config.RunConfig`: profile, overrides, seed, out, device, fresh,
    store.

        >>> superb_eval.evaluate("fbank_nonorm", task="ks", overrides=["train.lr=1e-2"]).metrics[0].value

    Raises:
        UserError: something that the user can fix; finished parts are resumed by the same call.
    """
    from superb_eval.runs.config import RunConfig
    from superb_eval.runs.evaluate import evaluate as run  # torch takes seconds, and `--help` should not

    for key in ("out", "store"):
        if options.get(key) is not None:
            options[key] = Path(options[key])
    options["overrides"] = tuple(options.get("overrides", ()))
    return run(RunConfig(upstream, task, Path(data) if data else None, **options))[0]


def load_results(folder: str | Path) -> DataFrame:
    """Return every figure of every finished run under `folder` as a tidy table (`superb_eval.results.dataframe`).

    Raises:
        UserError: there is no such folder.
    """
    from superb_eval.results import dataframe

    return dataframe.load_results(folder)


def register_s3prl() -> list[str]:
    """Register our upstreams in s3prl's hub, for `S3PRLUpstream`; see `superb_eval.export.s3prl.register_s3prl`."""
    from superb_eval.export.s3prl import register_s3prl as register

    return register()


def check_upstream(upstream: str | nn.Module, cost: bool = False) -> ContractReport:
    """Check an upstream, by address or as an object, against every rule of the contract.

        >>> report = superb_eval.check_upstream("my_encoder.py:MyEncoder")
        >>> assert not report.broken, report

    Raises:
        UserError: it can't be opened, or gives nothing that can be taken for hidden states.
    """
    from superb_eval.analysis.upstream_check import check_upstream as check

    return check(upstream, cost)
