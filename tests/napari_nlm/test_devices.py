"""Devices and their free memory."""

from __future__ import annotations

import psutil
import pytest
import torch

from napari_nlm.devices import device_title, devices, free_on


def test_the_cpu_is_always_there() -> None:
    assert devices()[0] == "cpu"
    assert len(devices()) == 1 + torch.cuda.device_count()
    assert device_title("cpu") == "cpu"


def test_gpus_are_listed_with_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"name of {device}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 8))
    assert devices() == ("cpu", "cuda:0", "cuda:1")
    assert device_title("cuda:1") == "cuda:1 (name of cuda:1)"
    assert free_on("cuda:1") == 5


def test_the_memory_of_the_cpu_is_that_of_the_computer() -> None:
    memory = psutil.virtual_memory()
    assert 0 < free_on("cpu") <= memory.total
