"""The benchmarks, which are too long to run here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


JOURNEY = """
import numpy as np, torch
import journeys
torch.set_grad_enabled(False)
name, *box = {case!r}
part = tuple(slice(*side) for side in box)
noisy, clean = (journeys.loaded(file)[part] for file in (name, f"{{name}}_clean"))
modality = journeys.MODALITIES[name]
default = journeys.score(noisy, clean, {{"modality": modality}})
others = [journeys.score(noisy, clean, {{"modality": modality, "strength": s}}) for s in journeys.STRENGTHS]
assert max(others) - default < journeys.MOST_LOST, (default, others)
assert default - journeys.score(noisy, clean, {{"sigma": 0}}) > 3
"""


@pytest.mark.parametrize(
    "case",
    [
        ("head", (20, 68), (30, 78), (30, 46)),
        ("ct", (30, 94), (20, 76), (8, 22)),
        ("confocal", (0, 64), (0, 64), (2, 18)),
        ("pet", (16, 64), (8, 48), (8, 40)),
    ],
)
def test_no_other_strength_is_much_better_than_the_default_with_the_modality_alone(case: tuple[object, ...]) -> None:
    """On a part of each sample; benchmarks/journeys.py compares methods and kinds of noise on the whole."""
    done = subprocess.run(
        [sys.executable, "-c", JOURNEY.format(case=case)], cwd=BENCHMARKS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_cost_of_transforms_is_written_as_tables(tmp_path: Path) -> None:
    words = ("monai_cost.py", "--quick", "--method", "classic", "--out", str(tmp_path))
    done = subprocess.run([sys.executable, *words], cwd=BENCHMARKS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "monai-cost.md").read_text(encoding="utf-8")
    for row in ("EstimateNoised, then classic", "NonLocalMeansd, classic", "RandNonLocalMeansd, sigma known"):
        assert f"| {row} | " in page
