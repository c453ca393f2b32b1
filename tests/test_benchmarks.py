"""The benchmarks, which are too long to run here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

IMPORT_ALL = """
import importlib, sys, traceback
failed = False
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception:
        traceback.print_exc()
        failed = True
sys.exit(failed)
"""


def test_every_benchmark_can_be_imported_without_peers() -> None:
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    assert "speed" in names
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *names], cwd=BENCHMARKS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
