"""The example of a cluster runs as its usage says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_denoises_on_two_processes() -> None:
    command = [sys.executable, "examples/dask_cluster.py", "--backend", "loop"]  # which is not compiled in each process
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("denoised.zarr: (64, 64, 64) in 8 chunks, removed noise of deviation 7.")
