"""Amounts of memory: read, written, and allowed."""

from __future__ import annotations

import sys

import psutil
import pytest
import torch

from nlmeans.core.memory import allowed, available, give_back, parse_bytes, shortage, size_text


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("4096", 4096),
        ("4096B", 4096),
        ("2GB", 2 * 10**9),
        ("2g", 2 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        (" 512 mib ", 2**29),
        ("10k", 10**4),
        ("1TiB", 2**40),
        ("9" * 400, int("9" * 400)),
    ],
)
def test_amounts_are_read_with_any_unit(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 apples", "1e9", "2GBs", "1,5GB"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"memory='.*' is not an amount of memory; write for instance '2GB'"):
        parse_bytes(text)


def test_at_most_half_of_what_is_free_is_taken() -> None:
    free = psutil.virtual_memory().available
    assert 0.25 * free < available(torch.device("cpu")) < 0.75 * free


@pytest.mark.parametrize(("amount", "text"), [(5 * 2**30, "5.00 GiB"), (1.5 * 2**20, "1.50 MiB"), (512, "0.50 KiB")])
def test_amounts_are_told_in_a_unit_that_suits(amount: float, text: str) -> None:
    assert size_text(amount) == text


def test_a_limit_replaces_the_free_memory() -> None:
    assert allowed(torch.device("cpu"), 1234) == 1234
    free = psutil.virtual_memory().available
    assert 0.25 * free < allowed(torch.device("cpu"), None) < 0.75 * free


@pytest.mark.parametrize(
    "message", ["DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 bytes", "can't start new thread"]
)
def test_a_shortage_of_memory_is_named_with_a_remedy(message: str) -> None:
    with (
        pytest.raises(MemoryError, match=r"too little free memory, .*; free some, or pass a smaller memory="),
        shortage(),
    ):
        raise RuntimeError(message)


def test_a_gpu_without_free_memory_is_a_shortage_that_keeps_its_figures() -> None:
    with pytest.raises(MemoryError, match=r"^CUDA out of memory\. Tried to allocate 20 GiB$"), shortage():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^expected a matrix$"), shortage():
        raise RuntimeError("expected a matrix")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take back what was freed by themselves")
def test_freed_memory_goes_back_though_what_follows_it_is_in_use() -> None:
    resident = psutil.Process().memory_info
    held = [bytearray(b"x" * 60_000) for _ in range(1000)]
    kept = held[::50]
    del held
    full = resident().rss
    give_back()
    assert len(kept) == 20
    assert resident().rss < full - 30e6
