"""Our upstreams in s3prl: s3prl's hub and its `S3PRLUpstream`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from superb_eval.errors import UserError
from upstreams import registry
from upstreams.base import Upstream

PREFIX = "superb_eval"
"""Prefix of our names in s3prl's hub, which has a `hubert`, a `distilhubert` and an `fbank` of its own."""


def register_s3prl() -> list[str]:
    """Register our upstreams in `s3prl.hub`, and so in `s3prl.nn.S3PRLUpstream`; return their names there.

    Each is called `superb_eval_NAME`, and also NAME where s3prl has no entry of that name. `superb_eval` takes any
    address as its checkpoint. On torchaudio >= 2.9 the two names that s3prl can't be imported without are supplied.

        >>> superb_eval.register_s3prl()
        >>> s3prl.nn.S3PRLUpstream("superb_eval_distilhubert", "out/student/model")
        >>> s3prl.nn.S3PRLUpstream("superb_eval", "hubert_mini@random:7")
    """
    from upstreams.s3prl import import_whole_hub

    hub = import_whole_hub()
    entries = {PREFIX: _open_address}
    for card in registry.cards():
        entries[f"{PREFIX}_{card.name}"] = _entry(card.name)
        if not hasattr(hub, card.name) or hasattr(getattr(hub, card.name), PREFIX):
            entries[card.name] = _entry(card.name)
    for name, entry in entries.items():
        setattr(hub, name, entry)
    return sorted(entries)


def _entry(name: str) -> Callable[..., Upstream]:
    """Return an entry as s3prl defines them: `ckpt` is the part of an address after `@`."""

    def build(ckpt: str | None = None, **ignored: Any) -> Upstream:
        del ignored  # s3prl always passes `refresh` and the like
        return registry.load(name if ckpt is None else f"{name}@{ckpt}")

    build.__name__ = name
    build.__doc__ = f"Open superb-eval's {name}, at a checkpoint: a file, a folder, or `random:SEED`."
    setattr(build, PREFIX, True)
    return build


def _open_address(ckpt: str | None = None, **ignored: Any) -> Upstream:
    """Open any of superb-eval's addresses: `ckpt` is the whole address."""
    del ignored
    if ckpt is None:
        raise UserError('superb_eval: which upstream? Give its address, as S3PRLUpstream("superb_eval", "hubert@DIR").')
    return registry.load(ckpt)
