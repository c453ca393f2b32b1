"""Networks learn to denoise from noisy scans alone, and the table compares them with what learns nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("monai", reason="the example adds noise by a transform of MONAI")
PATH = Path(__file__).parents[2] / "examples" / "learned_denoiser.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example, with volumes that are small enough for a test."""
    spec = importlib.util.spec_from_file_location("learned_denoiser", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {"SIZE": 24, "CROP": 16, "BATCH": 2, "TRAINED": 4, "TESTED": 1}.items():
        monkeypatch.setattr(module, name, value)
    return module


@pytest.mark.parametrize("how", ["noise2noise", "noise2self"])
def test_a_network_learns_from_noisy_scans(example: Any, how: str) -> None:
    before = example.score(example.learned(example.train(how, example.WHITE, 1)), example.WHITE)
    after = example.score(example.learned(example.train(how, example.WHITE, 60)), example.WHITE)
    assert after.psnr > before.psnr + 3


def test_noise2self_hides_what_it_asks_for(example: Any) -> None:
    scans = example.WHITE.scans(example.phantoms(2, 0), 0)
    shown: list[torch.Tensor] = []

    def keeps_what_it_sees(seen: torch.Tensor) -> torch.Tensor:
        shown.append(seen)
        return seen

    losses = [
        example.noise2self(keeps_what_it_sees, scans, scans, torch.Generator().manual_seed(seed)) for seed in (0, 1)
    ]
    (scan,) = example.crops(scans, generator=torch.Generator().manual_seed(0))
    assert (shown[0] != scan).float().mean() == pytest.approx(1 / example.GRID**3)
    assert min(losses) > 1.5 * example.WHITE.sigma**2  # of two voxels with independent noise


def test_repeated_scans_have_independent_noise_of_the_level_asked_for(example: Any) -> None:
    objects = example.phantoms(2, 0)
    first, second = (example.ZERO_FILLED.scans(objects, seed) - objects for seed in (0, 1))
    assert float(first.std()) == pytest.approx(example.ZERO_FILLED.sigma, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.05
    beside = torch.corrcoef(torch.stack([first[..., 1:].flatten(), first[..., :-1].flatten()]))[0, 1]
    assert beside > 0.2


def test_the_table_has_all_methods_and_all_networks(example: Any, tmp_path: Path) -> None:
    done = CliRunner().invoke(example.main, ["--steps", "1", "--out", str(tmp_path / "learned.md")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "learned.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ") and "PSNR" not in line]
    assert rows[1:] == [
        *("noisy", "classic", "bayes"),
        *(
            f"{how}, trained on 10 % {kind}"
            for kind in ("white", "zero-filled")
            for how in ("noise2noise", "noise2self")
        ),
    ]
