"""The constants that kernels share with torch: kernels are compiled anew when one changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlmeans.kernels import cache
from nlmeans.patches import kernel_constants


def test_a_change_of_a_constant_makes_kernels_compile_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(kernel_constants.__file__)
    copy = tmp_path / source.relative_to(cache.PACKAGE)
    copy.parent.mkdir()
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    copy.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    before = cache.kernel_fingerprint()
    copy.write_text(copy.read_text(encoding="utf-8").replace("EDGE = 4", "EDGE = 8"), encoding="utf-8")
    assert cache.kernel_fingerprint() != before
