"""Which errors are told in words, and which need a traceback."""

from __future__ import annotations

import pytest
import torch

from napari_nlm.errors import message


@pytest.mark.parametrize("kind", [ValueError, TypeError, OSError])
def test_the_engines_own_words_are_kept(kind: type[Exception]) -> None:
    assert message(kind("sigma is negative;\n   give a number of at least 0")) == (
        "sigma is negative; give a number of at least 0"
    )


def test_too_little_memory_comes_with_a_remedy() -> None:
    for error in (torch.OutOfMemoryError("CUDA"), MemoryError(), MemoryError("no room")):
        text = message(error)
        assert text is not None
        assert "memory limit" in text
        assert "device cpu" in text
    assert "no room" in str(message(MemoryError("no room")))
    assert "GPU" in str(message(torch.OutOfMemoryError("CUDA")))


def test_an_unexpected_error_needs_a_traceback() -> None:
    assert message(KeyError("key")) is None
    assert message(RuntimeError("broken")) is None
    assert message(ValueError()) is None
