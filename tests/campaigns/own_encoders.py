"""Hostile encoders of a user's own: each one ends `upstream check` and `run` in one sentence, or in a right result.

`python -m tests.campaigns encoders` runs both commands on each, in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HEAD = "import ctypes, os, sys, threading, time\nimport torch\nfrom torch import nn\n\n\n"
CLASS = "class Enc(nn.Module):\n    calls = 0\n\n    def forward(self, wavs):\n        Enc.calls += 1\n"
FRAMES = "torch.stack(wavs).unfold(1, 400, 160)"

PASSES = {
    "os._exit": "os._exit(0)",
    "os.abort": "os.abort()",
    "segmentation fault": "ctypes.string_at(0)",
    "sys.exit": "sys.exit(0)",
    "SIGKILL": "os.kill(os.getpid(), 9)",
    "late exit": f"if Enc.calls > 3: os._exit(3)\n        return {FRAMES}",
    "late error": f"if Enc.calls > 3: raise RuntimeError('a\\nb')\n        return {FRAMES}",
    "endless": "while True: time.sleep(0.1)",
    "varying frames": f"x = {FRAMES}\n        return x[:, Enc.calls % 7 :] if Enc.calls > 6 else x",
    "varying layers": f"x = {FRAMES}\n        return {{'hidden_states': [x] * (1 + Enc.calls % 2)}}",
    "varying width": f"x = {FRAMES}\n        return x[..., : 3 if Enc.calls > 4 else 400]",
    "nothing": "return None",
    "no frames": f"return {FRAMES}[:, :0]",
    "no tensors": "return {'hidden_states': ['x', 7]}",
    "other batch": f"return {FRAMES}[:1]",
    "complex": f"return {FRAMES}.to(torch.complex64)",
    "whole numbers": f"return ({FRAMES} * 100).to(torch.int64)",
    "meta": f"return {FRAMES}.to('meta')",
    "sparse": f"return {FRAMES}.to_sparse()",
    "NaN": f"return {FRAMES} * float('nan')",
    "NaN later": f"return {FRAMES} * (float('nan') if Enc.calls > 6 else 1)",
    "other folder": f"os.chdir('/')\n        return {FRAMES}",
    "threads": f"threading.Thread(target=time.sleep, args=(1e6,)).start()\n        return {FRAMES}",
    "megabytes": f"print('x' * 10**6)\n        return {FRAMES}",
    "a long error": "raise RuntimeError('x' * 10**6 + '\\n' * 1000)",
    "recursion": "return self(wavs)",
    "interrupt": "raise KeyboardInterrupt",
}
"""Forward passes."""

MODULES = {
    "exits when imported": HEAD + "os._exit(0)\n",
    "aborts when imported": HEAD + "os.abort()\n",
    "leaves when imported": HEAD + "sys.exit('bye')\n",
    "isn't Python": "x = (\n",
    "isn't text": "\0",
    "raises without words": HEAD + "class Bad(Exception):\n    def __str__(self): raise ValueError\nraise Bad\n",
    "fails to print itself": HEAD
    + CLASS.replace("    calls", "    def __repr__(self): raise ValueError('no')\n    __str__ = __repr__\n    calls")
    + f"        return {FRAMES}\n",
    "is too large": HEAD
    + CLASS.replace(
        "    calls = 0\n", "    calls = 0\n\n    def __init__(self):\n        super().__init__()\n{}"
    ).format("        self.layers = nn.ModuleList([nn.Linear(9_000, 9_000) for _ in range(10**4)])\n")
    + f"        return {FRAMES}\n",
}
"""Whole files."""

ENCODERS = {**MODULES, **{name: f"{HEAD}{CLASS}        {body}\n" for name, body in PASSES.items()}}

CHECK = ("upstream", "check", "--no-cost", "--timeout", "20")
SECONDS = 120


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None
    """None: it was ended, after `SECONDS`."""
    error: str

    def problem(self, path: Path) -> str:
        """Return what is wrong with it; empty where it is a right result, or a sentence that names the file."""
        if self.code is None:
            return f"takes more than {SECONDS} s"
        if "Traceback" in self.error or self.code not in (0, 2, 130):
            return f"exit code {self.code}: {self.error[-300:]}"
        last = self.error.strip().splitlines()[-1:] or [""]
        named = path.name in last[0] or "interrupted" in last[0] or ".flac" in last[0]
        return "" if self.code == 0 or (named and len(last[0]) < 1500) else f"names no file: {last[0][:300]}"


def call(folder: Path, *words: object) -> Ended:
    """Call `superb-eval` in a process of its own."""
    command = [sys.executable, "-m", "superb_eval", *map(str, words)]
    settings = {**os.environ, "SUPERB_EVAL_STORE": str(folder / "store")}
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, cwd=folder, env=settings, check=False
        )
    except subprocess.TimeoutExpired:
        return Ended(None, "")
    return Ended(ended.returncode, ended.stderr)


def run(folder: Path, corpus: Path, names: Sequence[str]) -> list[str]:
    """Check and run encoders by their names; return the problems."""
    problems = []
    for number, name in enumerate(names):
        path = folder / f"encoder_{number}.py"
        path.write_text(ENCODERS[name], encoding="utf8")
        data = ("--data", corpus, "--profile", "nano", "-o", "train.steps=20", "-o", "train.eval_every=10")
        for words in ((*CHECK, f"{path}:Enc"), ("run", "ks", "-u", f"{path}:Enc", *data)):
            if words[0] == "run" and name == "endless":
                continue
            began = time.monotonic()
            ended = call(folder, *words)
            problem = ended.problem(path)
            problems += [f"{name}: {words[0]}: {problem}"] if problem else []
            print(f"{name}: {words[0]}: {ended.code}, {time.monotonic() - began:.0f} s {problem}", flush=True)
    return problems


def main(names: Sequence[str]) -> int:
    """Run the long form; return whether anything is wrong."""
    from superb_eval.corpora.synthetic.generate import synthesise

    with tempfile.TemporaryDirectory() as folder:
        corpus = synthesise("nano", Path(folder) / "corpus", tasks=["ks"])
        problems = run(Path(folder), corpus, names or list(ENCODERS))
    print(f"{len(names or ENCODERS)} encoders, {len(problems)} problems")
    return int(bool(problems))
