"""Noise that is stronger in some places than in others: what the default makes of it, beside one level and the truth.

python benchmarks/uneven.py                        # the phantoms and scans in installed packages: ten minutes
python benchmarks/uneven.py --volume scan.nii.gz   # these and any clean volume
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from correlated import response, true_model
from quality_volumes import Volume, scans

import nlmeans
from nlmeans.core.metrics import psnr

PERCENT = (1, 3, 6)
LEVELS = {
    "even": "the same everywhere",
    "ramp": "from 0.44 to 2.3 along one axis",
    "bump": "3 times as strong in the middle of a plane as far from it, as parallel imaging makes it",
    "halves": "0.3 in one half and 1.7 in the other",
    "filtered": "a tenth in the air",
}
NOISES = {"white": tuple(LEVELS), "zero-filled": ("even", "ramp", "bump"), "apodised": ("even", "ramp", "bump")}
"""The noise before it is multiplied by its level, as in `correlated.py`, and the levels that it has."""


def level(kind: str, clean: Volume) -> Volume:
    """Return the level of the noise at each voxel, relative to what is given in percent."""
    places = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in clean.shape]
    _, y, x = np.meshgrid(*places, indexing="ij")
    found: Volume = {
        "even": np.ones(clean.shape),
        "ramp": 2.0 ** (1.2 * y),
        "bump": 1 + 2 * np.exp(-(x**2 + y**2) / 2 / 0.4**2),
        "halves": np.where(x < 0, 0.3, 1.7),
        "filtered": np.where(clean > 0.05, 1.0, 0.1),
    }[kind]
    return found


def row(clean: Volume, mask: Volume | None, noise: str, kind: str, percent: int) -> list[str]:
    sigma, gain = percent / 100 * level(kind, clean), response(noise, clean.shape)
    random = np.random.default_rng(percent).standard_normal(clean.shape)
    if noise != "white":
        random = np.fft.ifftn(np.fft.fftn(random) * gain).real
    noisy = (clean + sigma * random).astype(np.float32)
    found = nlmeans.estimate_noise(noisy)
    one = float(np.sqrt(np.square(sigma).mean()))
    told: dict[str, Any] = (
        {} if noise == "white" else {"noise": "gaussian", "correlation": true_model(gain, one).correlation}
    )
    results = [
        noisy,
        nlmeans.denoise(noisy, one, **told),
        nlmeans.denoise(noisy, variation=None),
        nlmeans.denoise(noisy),
        nlmeans.denoise(noisy, sigma.astype(np.float32), **told),
    ]
    scores = (f"{psnr(clean, result, peak=1, mask=mask):.2f}" for result in results)
    return [noise, kind, str(percent), *scores, str(found)]


@click.command()
@click.option("--volume", "extra", multiple=True, type=click.Path(path_type=Path), help="A clean volume; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "uneven.md")
def main(extra: tuple[Path, ...], out: Path) -> None:
    torch.set_grad_enabled(False)
    columns = ["noise", "level", "%", "noisy", "one level, told", "one level, found", "default", "true map", "found"]
    lines = [
        "# Noise that varies in space",
        "",
        f"`python benchmarks/uneven.py`, nlmeans {nlmeans.__version__}. PSNR in dB, in the object; the method is "
        "that of the default, which for volumes of this size is `best`. `one level` is told the root mean square, or "
        "finds it with `variation=None`. `default`: nothing told. The noise is Gaussian: white, or correlated as "
        "k-space that was filled with zeros or multiplied by a window makes it ([table](correlated.md)), and then "
        "multiplied by its level. What is told the level is told the correlation, too.",
        "",
        *(f"- {kind}: {about}" for kind, about in LEVELS.items()),
        "",
    ]
    for scan in scans(list(extra)).values():
        if scan.clean.ndim != 3:
            continue
        lines += [f"## {scan.name}, {' × '.join(map(str, scan.clean.shape))}", ""]
        lines += ["| " + " | ".join(columns) + " |", "|---|---|" + "--:|" * (len(columns) - 3) + "---|"]
        for noise, kinds in NOISES.items():
            for kind, percent in itertools.product(kinds, PERCENT):
                lines.append("| " + " | ".join(row(scan.clean, scan.mask, noise, kind, percent)) + " |")
                click.echo(lines[-1])
        lines.append("")
    out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
