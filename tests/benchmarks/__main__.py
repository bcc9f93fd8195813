"""Runs every benchmark: `make bench`, or `python -m tests.benchmarks pooled`; with a GPU, `... gpu`."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import typer

from superb_eval.runtime import environment
from tests import benchmarks

HELPERS = ("__main__", "timing", "peers", "gpu", "gpu_training", "seeds")
"""Helper modules, and the benchmark that needs a GPU and has options of its own."""


def main(names: list[str]) -> None:
    print("; ".join(f"{k} {v}" for k, v in {**environment.hardware(), **environment.versions()}.items()))
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name in names or (not names and module.name not in HELPERS):
            print(importlib.import_module(f"tests.benchmarks.{module.name}").run())


if __name__ == "__main__":
    if sys.argv[1:2] == ["gpu"]:
        from tests.benchmarks import gpu

        sys.argv[:2] = ["gpu"]
        typer.run(gpu.main)
    main(sys.argv[1:])
