"""The choice of a backend for a request, and the memory that tiles are planned with."""

from __future__ import annotations

import pytest
import torch

from nlmeans.operator import BACKEND_NAMES
from nlmeans.operator.backends import BACKENDS, choose, working_memory
from tests.nlmeans.operator.requests import empty_request


def test_names_that_are_listed_without_torch_are_those_of_the_backends() -> None:
    assert tuple(backend.name for backend in BACKENDS.values()) == tuple(BACKENDS) == BACKEND_NAMES


def test_auto_takes_the_fused_kernel_wherever_it_can() -> None:
    assert choose(empty_request((8, 8, 8), 1, dtype=torch.float32)).name == "cpu"
    assert choose(empty_request((64, 64, 64), 3, dtype=torch.float32)).name == "cpu"


def test_auto_takes_full_for_few_pairs_and_loop_for_many() -> None:
    assert choose(empty_request((8, 8, 8), 1)).name == "full"
    assert choose(empty_request((64, 64, 64), 3)).name == "loop"


def test_auto_takes_loop_where_full_has_too_little_memory() -> None:
    assert choose(empty_request((8, 8, 8), 1, memory=1000)).name == "loop"


def test_auto_never_approximates() -> None:
    chosen = {choose(empty_request((n, n, n), 2)).name for n in (1, 2, 4, 8, 16, 32, 64)}
    assert chosen == {"full", "loop"}


@pytest.mark.parametrize("name", ["cpu", "full", "loop", "windowed"])
def test_a_backend_that_can_is_chosen_by_name(name: str) -> None:
    assert choose(empty_request((8, 8, 8), 1, dtype=torch.float32), name).name == name


def test_the_fused_kernel_does_not_claim_float64() -> None:
    with pytest.raises(ValueError, match=r"backend='cpu' cannot do this: it computes in float32.*; backend='loop' can"):
        choose(empty_request((8, 8, 8), 1, dtype=torch.float64), "cpu")


def test_only_the_memory_of_full_grows_with_the_window() -> None:
    small, large = ((1, 1, 1), (4, 4, 4))
    grown = {
        name: working_memory(name, 1, 1, small, large) / working_memory(name, 1, 1, small, small)
        for name in ("auto", *BACKENDS)
    }
    assert grown == {name: 27 if name == "full" else 1 for name in grown}
