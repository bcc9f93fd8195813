"""Runs every benchmark: `make bench`, or `python -m tests.benchmarks pooled`; with a GPU, `... gpu`."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import tests.benchmarks as here
from superb_eval.runtime import environment

HELPERS = ("__main__", "timing", "peers", "gpu")
"""No benchmarks, and the one that needs a GPU."""


def main(wanted: list[str]) -> None:
    print("; ".join(f"{k} {v}" for k, v in {**environment.hardware(), **environment.versions()}.items()))
    for module in pkgutil.iter_modules(here.__path__):
        if module.name in wanted or (not wanted and module.name not in HELPERS):
            print(importlib.import_module(f"tests.benchmarks.{module.name}").run())


if __name__ == "__main__":
    main(sys.argv[1:])
