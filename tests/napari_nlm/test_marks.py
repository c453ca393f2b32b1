"""What napari's window waits for imports no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["marks", "sample_data", "activation", "loading"])
def test_what_the_window_waits_for_imports_no_torch(module: str) -> None:
    code = f"import sys, napari_nlm.{module}; print('torch' in sys.modules, 'nlmeans.core' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
