"""Entries for `torch.hub`: `torch.hub.load(REPOSITORY, "upstream", "distilhubert@FOLDER")`, or by name.

An upstream takes a list of 16 kHz waveforms [samples] and returns
`{"hidden_states": [Tensor[batch, frames, dim], ...]}`; it is frozen and in evaluation mode.
"""

dependencies = ["numpy", "safetensors", "torch", "transformers"]


def upstream(address="distilhubert_mini"):
    """Load the upstream at an address, such as `hubert@random` or `distilhubert@FOLDER`."""
    from upstreams import registry

    return registry.load(address)


def hubert_mini(checkpoint=None):
    """Load the small HuBERT of this repository; `checkpoint` follows `@` in an address."""
    return upstream(_address("hubert_mini", checkpoint))


def distilhubert_mini(checkpoint=None):
    """Load the student distilled from `hubert_mini`."""
    return upstream(_address("distilhubert_mini", checkpoint))


def distilhubert(checkpoint=None):
    """Load DistilHuBERT: from the hub, or from a folder or file."""
    return upstream(_address("distilhubert", checkpoint))


def _address(name, checkpoint):
    return name if checkpoint is None else f"{name}@{checkpoint}"
