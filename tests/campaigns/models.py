"""Records and weights to fuzz: valid seed files, and the functions that read them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any


def records(folder: Path) -> list[bytes]:
    return [json.dumps(RECORD, indent=indent).encode() for indent in (None, 2)]


RECORD: dict[str, Any] = {
    "schema_version": 2,
    "task": "ks",
    "profile": "mini",
    "seed": 0,
    "chance": 10.0,
    "recipe": {},
    "recipe_digest": "x",
    "metrics": [
        {
            "key": "acc",
            "heading": "ACC",
            "unit": "%",
            "higher_is_better": True,
            "protocol": "strict",
            "value": 50.0,
            "low": 40.0,
            "high": 60.0,
            "level": 0.95,
            "method": "Wilson",
            "units": 10,
        }
    ],
    "upstream": {
        "address": "fbank",
        "name": "fbank",
        "fingerprint": "x",
        "parameters": 0,
        "layers": 1,
        "width": 240,
        "stride": 160,
        "licence": "none",
        "training_data": "none",
        "notes": [],
    },
    "corpus": {"name": "c", "synthetic": True, "digest": "x", "utterances": {"test": 10}, "hours": 0.1},
    "features": {"kind": "pooled", "extracted": 1, "stored": 0, "made_on": "cpu float32"},
    "training": [
        {
            "fold": 1,
            "lr": 0.1,
            "layer_weights": [1.0],
            "tuned": {},
            "parameters": 3,
            "rates": [
                {"lr": 0.1, "steps": 1, "best_step": 1, "best_dev": 5.0, "curve": [{"step": 1}], "resumed_at": []}
            ],
        }
    ],
    "departures": [],
    "predictions": {},
    "command": "x",
    "versions": {},
    "hardware": {},
    "started": "2026-01-01",
    "seconds": {},
    "skipped": [],
}


def read_record(path: Path) -> object:
    from superb_eval.results import record

    return record.read(path)


def checkpoints(folder: Path) -> list[bytes]:
    import torch

    from tests.upstreams.fairseq import fairseq_package
    from upstreams import registry

    weights = registry.load("hubert_nano@random").model.state_dict()  # type: ignore[union-attr]
    some = dict(list(weights.items())[:3])
    files = []
    for content in (
        dict(weights),
        some,
        {"Config": {"a": 1}, "Distiller": some},
        {"model_cfg": {"x": [1]}, "model_weight": some},
        {},
    ):
        file = io.BytesIO()
        torch.save(content, file)
        files.append(file.getvalue())
    with fairseq_package() as package:  # an object of another library: torch's own reader refuses it, ours reads on
        for options in ({}, {"_use_new_zipfile_serialization": False}):
            file = io.BytesIO()
            torch.save({"model": dict(weights), "dictionary": package.Dictionary()}, file, **options)
            files.append(file.getvalue())
    return files


def safetensors(folder: Path) -> list[bytes]:
    import torch
    from safetensors.torch import save

    whole = torch.load(io.BytesIO(checkpoints(folder)[0]), weights_only=True)
    return [save(whole), save({"a.weight": torch.ones(3, 4), "b": torch.zeros(5)}), save({})]


def read_checkpoint(path: Path) -> object:
    from upstreams import registry

    return registry.load(f"hubert_nano@{path}")
