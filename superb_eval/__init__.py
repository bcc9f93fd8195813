"""superb-eval: a SUPERB-style evaluation toolkit for speech encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from superb_eval.runtime import threads as _threads
from superb_eval.runtime import user_name as _user_name
from superb_eval.version import __version__ as __version__

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import nn

    from superb_eval.analysis.upstream_check import ContractReport
    from superb_eval.results.notebook import RecordList
    from superb_eval.results.record import RunRecord

    Encoder: TypeAlias = str | nn.Module | Callable[..., Any]
    Profile: TypeAlias = Literal["superb", "mini", "nano"]

_threads.set_defaults()
_user_name.ensure()


@overload
def evaluate(  # type: ignore[overload-overlap]  # a str is a sequence of str
    upstream: Encoder,
    task: str,
    data: str | Path | None = None,
    *,
    profile: Profile | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    out: str | Path = "results",
    device: str = "cpu",
    fresh: bool = False,
    store: str | Path | None = None,
    store_gb: float | None = None,
    limit: int | None = None,
    progress: bool | None = None,
    loggers: str | Sequence[str] = (),
) -> RunRecord: ...


@overload
def evaluate(
    upstream: Encoder,
    task: str | Sequence[str],
    data: str | Path | None = None,
    *,
    profile: Profile | None = None,
    overrides: Sequence[str] = (),
    seed: int | Sequence[int] = 0,
    out: str | Path = "results",
    device: str = "cpu",
    fresh: bool = False,
    store: str | Path | None = None,
    store_gb: float | None = None,
    limit: int | None = None,
    progress: bool | None = None,
    loggers: str | Sequence[str] = (),
) -> RecordList: ...


def evaluate(
    upstream: Encoder,
    task: str | Sequence[str],
    data: str | Path | None = None,
    *,
    profile: Profile | None = None,
    overrides: Sequence[str] = (),
    seed: int | Sequence[int] = 0,
    out: str | Path = "results",
    device: str = "cpu",
    fresh: bool = False,
    store: str | Path | None = None,
    store_gb: float | None = None,
    limit: int | None = None,
    progress: bool | None = None,
    loggers: str | Sequence[str] = (),
) -> RunRecord | RecordList:
    """Run tasks on an upstream, as `superb-eval run` does, and return the record; of several runs, a list of them.

    Args:
        upstream: an address, or an encoder itself: a `torch.nn.Module`, whose copy is evaluated, a function that builds
            one, or a function of waveforms [samples].
        task: a task or a recipe file, or several.
        data: the corpus folder; None: the embedded corpus.
        profile: which recipe; None: superb where `data` is official, else mini.
        overrides: changes of the recipe, such as `train.lr=1e-2`.
        seed: of initialisation, sampling and dropout; or several.
        out: results folder; finished runs are returned as they are.
        device: cpu, cuda, cuda:N or mps.
        fresh: run again what is finished.
        store: feature store; None: `$SUPERB_EVAL_STORE`, or the user's cache.
        store_gb: its size budget in GB; None: 50.
        limit: a try with at most that many utterances of each split, which tables leave out; None: all.
        progress: show bars; None: in a notebook.
        loggers: where curves and figures are logged: `tensorboard`, `wandb`, `mlflow`.

        >>> superb_eval.evaluate("fbank_nonorm", task="ks", overrides=["train.lr=1e-2"]).metrics[0].value
        >>> superb_eval.evaluate(MyEncoder(), task=["ks", "sid"], seed=[0, 1, 2])

    Raises:
        UserError: something that the user can fix; finished parts are resumed by the same call.
    """
    from superb_eval.results.notebook import RecordList, ShownRecord
    from superb_eval.runs.config import RunConfig
    from superb_eval.runs.evaluate import evaluate_seeds  # torch takes seconds, and `--help` should not
    from superb_eval.runtime import progress as bars

    seeds = [seed] if isinstance(seed, int) else list(seed)
    tasks = [task] if isinstance(task, str) else list(task)
    if not seeds or not tasks:
        raise ValueError("evaluate() needs a task and a seed at least")
    if not isinstance(upstream, str):
        from upstreams import python

        upstream = python.add(upstream)
    shown = bars.for_python(progress)
    records = RecordList()
    for name in tasks:
        config = RunConfig(
            upstream=upstream,
            task=name,
            data=None if data is None else Path(data),
            profile=profile,
            overrides=tuple(overrides),
            seed=seeds[0],
            out=Path(out),
            device=device,
            fresh=fresh,
            store=None if store is None else Path(store),
            store_gb=store_gb,
            loggers=(loggers,) if isinstance(loggers, str) else tuple(loggers),
            limit=limit,
        )
        records += [ShownRecord(**dict(record)) for record, _ in evaluate_seeds(config, seeds, shown)]
    return records[0] if isinstance(task, str) and isinstance(seed, int) else records


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
