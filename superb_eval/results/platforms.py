"""The platform of a run: processor, vector instructions, threads and library versions, which decide its rounding.

Figures are reproduced to the bit only on the same platform. Elsewhere rounding differs, grows over many updates, and
counts like another seed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from superb_eval.results.record import RunRecord
from superb_eval.runtime import devices, environment, threads
from upstreams.loading import identity

UNRELATED = {"cores", "memory_gb", "OMP_WAIT_POLICY", "python", "superb-eval", "espeakng-loader"}
"""What a record has of hardware and versions that changes no figure: the record's `code` versions this package."""

TORCH_THREADS, DEVICE, GPU = "torch_threads", "device", "gpu"
"""Keys of a record's hardware."""

Platform = Mapping[str, str]

RANDOM = re.compile(r"@random(:\d+)?$")
"""The end of an upstream's address whose weights are drawn when it is loaded."""


def of_record(record: RunRecord) -> Platform:
    """Return the platform that a run was made on."""
    return _platform(record.hardware, record.versions)


def current(device: str) -> Platform:
    """Return the platform of this process; `device` is where upstreams and heads run."""
    hardware = {**environment.hardware(), **environment.vector_instructions(), **threads.thread_settings()}
    return _platform({**hardware, DEVICE: device}, environment.versions())


def _platform(hardware: Mapping[str, str | int], versions: Mapping[str, str]) -> Platform:
    values = {**hardware, **versions}
    if DEVICE in values:
        values[DEVICE] = devices.kind(str(values[DEVICE]))  # which of several GPUs it was changes nothing
    on_gpu = values.get(DEVICE) != devices.CPU
    return {key: str(value) for key, value in values.items() if key not in UNRELATED and (key != GPU or on_gpu)}


def differences(before: Platform, now: Platform) -> list[str]:
    """Return what differs between two platforms, such as `cpu_capability was AVX512, is AVX2`."""
    return [
        f"{key} was {before.get(key, 'not recorded')}, is {now.get(key, 'not set')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def only_rounding_differs(address: str, recorded: Mapping[str, str], present: Mapping[str, str]) -> bool:
    """Return whether two identities of an upstream differ in what another platform may round differently.

    That are its outputs on the probe waveforms, and random weights: processors draw them with other last bits.
    """
    rounded = {identity.OUTPUTS, identity.WEIGHTS} if RANDOM.search(address) else {identity.OUTPUTS}
    names = {name for name in recorded.keys() | present.keys() if recorded.get(name) != present.get(name)}
    return recorded.keys() == present.keys() and bool(names) and names <= rounded
