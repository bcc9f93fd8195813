"""Loads upstreams from elsewhere: from a Python file of the user's own, or from another installed package."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from superb_eval.errors import UserError, near_miss
from superb_eval.runtime import outside_files
from upstreams.base import Upstream, freeze
from upstreams.loading import own_files
from upstreams.loading.network_building import bounded_size
from upstreams.loading.own_code import GuardedForward, running, working_folder_restored
from upstreams.loading.probe_module import wrap_module


def from_file(path: Path, class_name: str, checkpoint: str | None = None, seed: int | None = None) -> Upstream:
    """Load a class of a Python file of the user's own, which is run.

    Args:
        path: the file.
        class_name: a module class in it, or a function that builds one.
        checkpoint: passed to the constructor as `ckpt=`, s3prl's convention.
        seed: of the constructor's random weights; None: 0.

    Raises:
        UserError: there is no such file or class, it fails, or it returns no hidden states.
    """
    outside_files.check_regular(path, outside_files.MOST_BYTES)
    with own_files.track_files(path.resolve().parent) as own, working_folder_restored():
        module = _import_file(path)
        defined = [
            name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
        ]
        if not hasattr(module, class_name):
            names = ", ".join(defined) or "none"
            raise UserError(f"{path}: defines no '{class_name}'.{near_miss(class_name, defined)} Classes: {names}.")
        upstream = freeze(from_object(getattr(module, class_name), f"{path}:{class_name}", checkpoint, seed))
        upstream.forward = GuardedForward(upstream.forward, f"{path}:{class_name}")  # type: ignore[method-assign]
        upstream.own_files = {}
        upstream.identity()  # a forward pass, so that files that are read only then count too
    upstream.own_files = own.digests()
    own_files.UserModules(own.modules).attach(upstream)
    return upstream


def from_entry_point(point: EntryPoint, checkpoint: str | None = None, seed: int | None = None) -> Upstream:
    """Load what another installed package registers under the group `superb_eval.upstreams`; see `from_object`.

    Raises:
        UserError: the package can't be imported, or `from_object` refuses its object.
    """
    with running(point.name, f"{point.value} can't be imported"):
        obj = point.load()
    return from_object(obj, point.name, checkpoint, seed)


def from_object(obj: object, name: str, checkpoint: str | None = None, seed: int | None = None) -> Upstream:
    """Load an `Upstream`, a module, a class of either, or a function that builds one; see `from_file`.

    Raises:
        UserError: it is none of these, it can't be built, or it returns no hidden states.
    """
    if isinstance(obj, nn.Module):
        if checkpoint is not None:
            raise UserError(
                f"{name}: is built already, so '@{checkpoint}' can't be passed to it. Name its class instead."
            )
        model = obj
    elif isinstance(obj, type) and not issubclass(obj, nn.Module):
        raise UserError(
            f"{name}: the class isn't a torch.nn.Module. Expected one whose forward takes a list of waveforms."
        )
    elif callable(obj):
        model = _construct(obj, name, checkpoint, seed or 0)
    else:
        raise UserError(
            f"{name}: is a {type(obj).__name__}. Expected a torch.nn.Module class, or a function building one."
        )
    return (
        model if isinstance(model, Upstream) else wrap_module(model, name, summary="a module adapted to the contract")
    )


def _construct(build: Callable[..., Any], name: str, checkpoint: str | None, seed: int) -> nn.Module:
    how = "without arguments" if checkpoint is None else f"with ckpt='{checkpoint}'"
    with bounded_size(name), running(name, f"building it {how} failed"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build() if checkpoint is None else build(ckpt=checkpoint)
    if not isinstance(model, nn.Module):
        raise UserError(f"{name}: built a {type(model).__name__}. Expected a torch.nn.Module.")
    return model


def _import_file(path: Path) -> ModuleType:
    # Registered, so that dataclasses, pickle and `inspect.getsourcefile` find the module of its classes.
    name = f"_user_{path.stem}_{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=own_files.SourceLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: isn't a Python file. Expected FILE.py:Class.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with running(str(path), "can't be imported"):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
