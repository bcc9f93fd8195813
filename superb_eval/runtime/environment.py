"""The environment: what works on this machine (`doctor`), and the versions and hardware for run records."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from superb_eval.errors import UserError
from superb_eval.runtime import threads, user_cache

PACKAGES = (
    "superb-eval",
    "torch",
    "torchaudio",
    "numpy",
    "numba",
    "scipy",
    "scikit-learn",
    "lightning-fabric",
    "transformers",
    "s3prl",
    "soundfile",
    "soxr",
    "safetensors",
    "espeakng-loader",
)
"""Packages whose version can change a result."""

ARITHMETIC_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
)
"""Environment variables that limit the vector instructions of torch, of its libraries (MKL, oneDNN) and of numpy."""

EXTRAS = {
    "synth": ("espeakng_loader", "the embedded synthetic corpus"),
    "lm": ("kenlm", "beam search with a language model in ASR"),
    "codecs": ("av", "audio in M4A, MP4, AAC and WebM"),
    "ray": ("ray", "suites on a Ray cluster"),
    "onnx": ("onnxruntime", "upstream and head as one ONNX model"),
    "abx": ("fastabx", "phone ABX errors of layers, on Python 3.12 or later"),
    "submission": ("h5py", "files of the SUPERB leaderboard"),
    "tensorboard": ("tensorboard", "curves in TensorBoard"),
    "wandb": ("wandb", "curves in Weights & Biases"),
    "mlflow": ("mlflow", "curves in MLflow"),
}
"""Extras of this package: the module that shows one is installed, and what it is for."""

STABLE = (2, 11)
"""The first torchaudio built on torch's stable ABI; its last release line serves every later torch."""

MIN_FREE_GB = 5.0
"""Free disk space below which `doctor` warns: an hour of HuBERT Base frames at 16 bits takes 3.6 GB."""


@dataclass(frozen=True)
class EnvironmentFinding:
    """One line of `superb-eval doctor`; `remedy` is what to do where it does not work."""

    name: str
    works: bool
    detail: str
    remedy: str = ""


def check() -> list[EnvironmentFinding]:
    """Check what runs need.

    Imports torch and torchaudio, so it takes seconds. Leaves nothing on disk.
    """
    checks: tuple[Callable[[], Iterator[EnvironmentFinding]], ...] = (
        _python,
        _torch,
        _cpu,
        _cuda,
        _bfloat16,
        _codecs,
        _extras,
        _s3prl,
        _libraries,
    )
    return [finding for findings in checks for finding in findings()] + [
        _folder(cache) for cache in (user_cache.FEATURES, user_cache.CORPORA)
    ]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the `PACKAGES` that are installed, for the run record."""
    installed = {name: version for name in PACKAGES if (version := _version(name))}
    return {"python": platform.python_version(), **installed}


def hardware() -> dict[str, str | int]:
    """Return the hardware for the run record: `cores` that this process may use, `memory_gb` (10^9 bytes).

    Reads the operating system's files only: it starts no program and no CUDA context.
    """
    return {"cpu": _cpu_model(), "cores": threads.available_cores(), "memory_gb": _memory_gb(), "gpu": _gpu()}


def vector_instructions() -> dict[str, str]:
    """Return what decides how this process rounds, for the run record.

    `cpu_capability` names the vector instructions that torch's own kernels use, such as AVX2 or AVX512; the
    `ARITHMETIC_VARIABLES` follow where they are set. Imports torch, unlike `hardware`.
    """
    import torch

    limits = {name: os.environ[name] for name in ARITHMETIC_VARIABLES if name in os.environ}
    return {"cpu_capability": torch.backends.cpu.get_cpu_capability(), **limits}


def _version(package: str) -> str:
    """Return the installed version, or an empty string."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _cpu_model() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine() or "unknown"  # platform.processor() would start a program


def _memory_gb() -> int:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    except (AttributeError, OSError, ValueError):  # not POSIX
        return 0


def _gpu() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    else:
        cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        names = [line.partition(":")[2].strip() for card in cards for line in _lines(card) if line.startswith("Model")]
    return ", ".join(names) or "none"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf8", errors="replace").splitlines()
    except OSError:
        return []


def _python() -> Iterator[EnvironmentFinding]:
    fits = sys.version_info >= (3, 10)
    yield EnvironmentFinding("Python", fits, platform.python_version(), "" if fits else "install Python 3.10 or newer")


def _torch() -> Iterator[EnvironmentFinding]:
    """Check that torchaudio loads beside torch: 2.11 does on every torch from 2.11 on, earlier ones on their own."""
    from torch import __version__ as torch
    from torch.version import cuda

    name, number = "torch and torchaudio", torch.partition("+")[0]
    remedy = "pip install --upgrade torchaudio" if _minor(torch) >= STABLE else f"pip install torchaudio=={number}"
    try:
        from torchaudio import __version__ as torchaudio
    except Exception as error:  # its library does not load, or was built for another CUDA (RuntimeError)
        if cuda is None:
            remedy = "install torchaudio's CPU-only build, from the index that torch is from"
        yield EnvironmentFinding(name, False, f"torch {torch}; torchaudio: {error.__cause__ or error}", remedy)
        return
    fits = _minor(torch) == _minor(torchaudio) or _minor(torch) > _minor(torchaudio) >= STABLE
    yield EnvironmentFinding(name, fits, f"{torch} and {torchaudio}", "" if fits else remedy)


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _cpu() -> Iterator[EnvironmentFinding]:
    settings = threads.thread_settings()
    instructions = ", ".join(
        value if name == "cpu_capability" else f"{name}={value}" for name, value in vector_instructions().items()
    )
    cores = f"{threads.available_cores()} cores, {settings['torch_threads']} threads"
    detail = f"{_cpu_model()} ({instructions}), {cores}"
    passive = str(settings["OMP_WAIT_POLICY"]).upper() == "PASSIVE"
    remedy = "" if passive else "unset OMP_WAIT_POLICY: spinning idle threads made training 7 x slower on two cores"
    yield EnvironmentFinding("CPU", passive, f"{detail}, OMP_WAIT_POLICY={settings['OMP_WAIT_POLICY']}", remedy)


def _cuda() -> Iterator[EnvironmentFinding]:
    import torch

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            gigabytes = torch.cuda.get_device_properties(i).total_memory / 1e9
            yield EnvironmentFinding(f"CUDA device {i}", True, f"{torch.cuda.get_device_name(i)}, {gigabytes:.0f} GB")
    else:
        yield EnvironmentFinding("CUDA", True, "no device: runs use the CPU")


def _bfloat16() -> Iterator[EnvironmentFinding]:
    """Check whether this CPU multiplies in bfloat16; elsewhere bfloat16 works but is slower than float32."""
    flags = next((line for line in _lines(Path("/proc/cpuinfo")) if line.startswith(("flags", "Features"))), "")
    native = sorted(set(flags.split()) & {"amx_bf16", "avx512_bf16", "bf16"})
    detail = f"in hardware ({', '.join(native)})" if native else "emulated on this CPU: use float32 there"
    yield EnvironmentFinding("bfloat16", True, detail)


def _codecs() -> Iterator[EnvironmentFinding]:
    """Write a tone in each format and read it back."""
    import numpy as np
    import soundfile

    tone = np.sin(np.arange(16_000) * 0.1, dtype=np.float32) / 2
    with tempfile.TemporaryDirectory() as folder:
        for name in ("wav", "flac", "ogg", "mp3"):
            path = Path(folder, f"tone.{name}")
            try:
                soundfile.write(path, tone, 16_000)
                samples, rate = soundfile.read(path)
                works, detail = rate == 16_000 and bool(abs(len(samples) - len(tone)) < 4_000), "written and read"
            except (soundfile.SoundFileError, ValueError) as error:
                works, detail = False, str(error)
            yield EnvironmentFinding(
                f"audio: {name.upper()}", works, detail, "" if works else "pip install --upgrade soundfile"
            )


def _extras() -> Iterator[EnvironmentFinding]:
    for extra, (module, purpose) in EXTRAS.items():
        installed = importlib.util.find_spec(module) is not None
        remedy = "" if installed else f"pip install 'superb-eval[{extra}]'"
        yield EnvironmentFinding(
            f"extra {extra}", installed, f"{purpose}: {'installed' if installed else 'not installed'}", remedy
        )


def _s3prl() -> Iterator[EnvironmentFinding]:
    """Check s3prl: single upstreams load; its hub needs names that torchaudio 2.9 removed (s3prl issue 575)."""
    finding = _package("s3prl")
    if not (finding.works and _package("torchaudio").works):
        yield finding
        return
    import torchaudio

    missing = [] if hasattr(torchaudio, "set_audio_backend") else ["set_audio_backend"]
    missing += [] if importlib.util.find_spec("torchaudio.sox_effects") else ["sox_effects"]
    note = f"; torchaudio has no {' and no '.join(missing)}, so s3prl.hub needs stand-ins for them" if missing else ""
    yield EnvironmentFinding("s3prl", True, finding.detail + note)


def _libraries() -> Iterator[EnvironmentFinding]:
    """Check the libraries that `system_errors` names where they can't be imported, and that no other check imports."""
    for name in ("transformers", "altair"):
        yield _package(name)


def _package(name: str) -> EnvironmentFinding:
    """Check whether a package's module of the same name can be imported."""
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a third-party package raises at import
        return EnvironmentFinding(name, False, f"{type(error).__name__}: {error}", f"pip install --upgrade {name}")
    return EnvironmentFinding(name, True, _version(name))


def _folder(cache: user_cache.CacheFolder) -> EnvironmentFinding:
    """Check whether a folder of the user's cache can be written, and its free space."""
    try:
        path = cache.path()
        existing = user_cache.nearest_existing(path)
        with tempfile.TemporaryFile(dir=existing):
            pass
    except UserError as error:
        return EnvironmentFinding(cache.content, False, str(error).removesuffix(f" {cache.sentence()}"), cache.remedy)
    except OSError as error:
        detail = f"{path}: {existing} can't be written ({error.strerror})"
        return EnvironmentFinding(cache.content, False, detail, cache.remedy)
    free = shutil.disk_usage(existing).free / 1e9
    remedy = "" if free >= MIN_FREE_GB else f"free some space, or {cache.remedy}"
    return EnvironmentFinding(cache.content, free >= MIN_FREE_GB, f"{path}: {free:.1f} GB free", remedy)
