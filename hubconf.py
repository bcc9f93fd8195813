"""Entries for `torch.hub`: `torch.hub.load(REPOSITORY, "upstream", "distilhubert@FOLDER")`, or by name.

An upstream takes a list of 16 kHz waveforms [samples] and gives `{"hidden_states": [Tensor[batch, frames, dim], ...]}`;
it is frozen and in evaluation mode.
"""

dependencies = ["numpy", "safetensors", "torch", "transformers"]


def upstream(address="distilhubert_mini"):
    """Open the upstream at an address, such as `hubert@random` or `distilhubert@FOLDER`."""
    from upstreams import registry

    return registry.load(address)


def hubert_mini(checkpoint=None):
    """Open the small HuBERT of this repository; `checkpoint` is what stands behind `@` in an address."""
    return upstream(_at("hubert_mini", checkpoint))


def distilhubert_mini(checkpoint=None):
    """Open the student distilled from `hubert_mini`."""
    return upstream(_at("distilhubert_mini", checkpoint))


def distilhubert(checkpoint=None):
    """Open DistilHuBERT: from the hub, or from a folder or file."""
    return upstream(_at("distilhubert", checkpoint))


def _at(name, checkpoint):
    return name if checkpoint is None else f"{name}@{checkpoint}"
