"""Preventing downloaded files from running code changes nothing else."""

from __future__ import annotations

import argparse
import builtins
import os
from pathlib import Path

import pytest
import torch

from superb_eval.errors import UserError
from upstreams.loading.safe_pickle import no_calls_in_eval, temporarily_replaced, tensors_only


def test_plain_values_are_evaluated() -> None:
    before = builtins.eval
    layers = [3, 4]
    assert layers
    with no_calls_in_eval(__name__):
        assert eval("[(1, 2)] * 2 + [(-3, 4)]") == [(1, 2), (1, 2), (-3, 4)]
        assert eval("layers[1:]") == [4]
    assert builtins.eval is before


@pytest.mark.parametrize("text", ["print()", "[x for x in (1,)]", "(lambda: 1)", "9 ** 9", "f'{1}'", "(x := 3)"])
def test_anything_else_is_refused(text: str) -> None:
    with no_calls_in_eval(__name__), pytest.raises(UserError, match="refused"):
        eval(text)


def test_other_packages_are_left_alone() -> None:
    with no_calls_in_eval("elsewhere"):
        assert eval("len([1, 2])") == 2


def test_explicit_loading_of_code_is_refused_inside_only(malicious: tuple[Path, Path]) -> None:
    checkpoint, proof = malicious
    with tensors_only(), pytest.raises(Exception, match="Weights only load failed"):
        torch.load(checkpoint, weights_only=False)
    assert not proof.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    torch.load(checkpoint, weights_only=False)
    assert proof.exists()


def test_a_namespace_is_no_code(tmp_path: Path) -> None:
    torch.save(argparse.Namespace(a=1), tmp_path / "args.pt")
    with tensors_only():
        assert torch.load(tmp_path / "args.pt").a == 1


def test_names_come_back_after_an_error() -> None:
    namespace = {"existing": 1}

    def fail() -> None:
        with temporarily_replaced(namespace, "existing", 2), temporarily_replaced(namespace, "added", 3):
            assert namespace == {"existing": 2, "added": 3}
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert namespace == {"existing": 1}
