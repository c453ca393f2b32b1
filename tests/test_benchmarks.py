"""The benchmarks, which are too long to run here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.nlmeans.forks import Forks

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


def test_every_benchmark_can_be_imported_without_peers(forks: Forks) -> None:
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    assert "speed" in names
    code, _, error = forks.python(f"import os; os.chdir({str(BENCHMARKS)!r})\n{IMPORT_ALL}", *names).ended()
    assert code == 0, error


@pytest.fixture(scope="module")
def script() -> Iterator[Callable[[str], Any]]:
    """Import scripts, as when they are run; their short names are not left behind for other tests."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module
    for name in set(sys.modules) - before:
        if BENCHMARKS in Path(getattr(sys.modules[name], "__file__", None) or "").parents:
            del sys.modules[name]


@pytest.mark.parametrize(
    "case",
    [
        ("head", (20, 68), (30, 78), (30, 46)),
        ("ct", (30, 94), (20, 76), (8, 22)),
        ("confocal", (0, 64), (0, 64), (2, 18)),
        ("pet", (16, 64), (8, 48), (8, 40)),
    ],
)
def test_no_other_strength_is_much_better_than_the_default_with_the_modality_alone(
    script: Callable[[str], Any], case: tuple[Any, ...]
) -> None:
    """On a part of each sample; benchmarks/journeys.py compares methods and kinds of noise on the whole."""
    journeys, (name, *box) = script("journeys"), case
    part = tuple(slice(*side) for side in box)
    noisy, clean = (journeys.loaded(file)[part] for file in (name, f"{name}_clean"))
    modality = journeys.MODALITIES[name]
    default = journeys.score(noisy, clean, {"modality": modality})
    others = [journeys.score(noisy, clean, {"modality": modality, "strength": s}) for s in journeys.STRENGTHS]
    assert max(others) - default < journeys.MOST_LOST
    assert default - journeys.score(noisy, clean, {"sigma": 0}) > 3


def test_the_cost_of_transforms_is_written_as_tables(
    script: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = script("monai_cost")
    monkeypatch.setattr(costs, "QUICK", (costs.Volume((14, 16, 18), 1), costs.Volume((16, 18, 10), 1)))
    monkeypatch.setattr(costs, "WORKERS", (0, 1))
    words = ("--quick", "--method", "classic", "--out", str(tmp_path))
    done = CliRunner().invoke(costs.main, words)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "monai-cost.md").read_text(encoding="utf-8")
    for row in ("EstimateNoised, then classic", "NonLocalMeansd, classic", "RandNonLocalMeansd, sigma known"):
        assert f"| {row} | " in page
