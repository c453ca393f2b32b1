"""Compare the default with BM4D on correlated noise, with the noise found in the volume and with the true model.

python benchmarks/correlated.py                        # the phantoms: a quarter of an hour on two cores
python benchmarks/correlated.py --volume scan.nii.gz   # these and any clean volume
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from quality_volumes import Scan, Volume, scans

import nlmeans
from nlmeans.core.metrics import psnr

PERCENT = (3, 5, 9)
LAG = 3
COLUMNS = [
    "noisy",
    "white",
    "white, true sigma",
    "default",
    "true model",
    "BM4D, true PSD",
    "sigma found",
    "CPU seconds",
]
KINDS = {
    "white": "independent from voxel to voxel",
    "zero-filled": "k-space filled with zeros to 1.5 times the size along two axes",
    "apodised": "k-space multiplied by a Hann window along all axes",
    "CT": "filtered back-projection with a soft kernel in a plane, and smoothed across it",
    "resampled": "linear interpolation by half a voxel along all axes",
    "stripes": "a triangle of 31 voxels along one axis",
    "rings": "a wave around each point, of 2π voxels and under a Gaussian of 6 voxels, in a plane",
    "diagonals": "a wave along the diagonal of a plane, of 2π voxels and under a Gaussian of 6 voxels",
    "pink": "a power that falls with the frequency",
}
LONG = ("stripes", "rings", "diagonals", "pink")
"""Correlated over more voxels than a patch has, as the cases g1 to g4 of Mäkinen, Azzari and Foi (2020,
doi:10.1109/TIP.2020.3014721) are; at 5 % only."""


def response(kind: str, shape: tuple[int, ...]) -> Volume:
    """Return what a filter multiplies the spectrum of white noise by; its mean square is 1."""
    frequencies = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    radius = np.hypot(frequencies[0], frequencies[1])
    x, y, z = (f * n for f, n in zip(frequencies, shape, strict=True))
    under = np.exp(-(x**2 + y**2) / 2 / 6**2)
    found: Volume = {
        "white": np.ones(shape),
        "zero-filled": ((np.abs(frequencies[0]) < 1 / 3) & (np.abs(frequencies[1]) < 1 / 3)).astype(float),
        "apodised": np.prod([0.5 + 0.5 * np.cos(2 * np.pi * f) for f in frequencies], axis=0),
        "CT": np.sqrt(radius) * np.exp(-((radius / 0.25) ** 2) - (frequencies[2] / 0.35) ** 2),
        "resampled": np.prod([np.cos(np.pi * f) for f in frequencies], axis=0),
        "stripes": spectrum(np.where((y == 0) & (z == 0), np.maximum(16 - np.abs(x), 0), 0)),
        "rings": spectrum(np.where(z == 0, np.cos(np.hypot(x, y)) * under, 0)),
        "diagonals": spectrum(np.where(z == 0, np.cos(x + y) * under, 0)),
        "pink": 1 / np.sqrt(np.maximum(np.sqrt(np.square(frequencies).sum(0)), 0.5 / max(shape))),
    }[kind]
    return found / np.sqrt(np.square(found).mean())


def spectrum(kernel: Volume) -> Volume:
    found: Volume = np.abs(np.fft.fftn(kernel))
    return found


def true_model(gain: Volume, sigma: float) -> nlmeans.NoiseModel:
    lags = np.fft.ifftn(np.square(gain)).real
    near = range(-LAG, LAG + 1)
    return nlmeans.NoiseModel(sigma=sigma, correlation=(lags / lags[0, 0, 0])[np.ix_(near, near, near)])


def give_trapz() -> None:
    """Give NumPy 2.4 the function that BM3D 4.0.3 and BM4D 4.2.5 need, and that it no longer has."""
    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # type: ignore[attr-defined]  # noqa: NPY201


def bm4d_told(noisy: Volume, gain: Volume, sigma: float) -> Volume:
    """Run BM4D with the true power spectral density of the noise."""
    give_trapz()
    from bm4d import bm4d

    result: Volume = bm4d(noisy.astype(np.float64), np.square(gain * sigma) * noisy.size)
    return result


def scores(scan: Scan, kind: str, percent: int, peer: bool) -> Iterator[str]:
    """Yield PSNR in the mask for each column, then sigma as found and the CPU seconds that finding it took."""
    gain, sigma = response(kind, scan.clean.shape), percent / 100
    white = np.random.default_rng(percent).standard_normal(scan.clean.shape)
    noise = np.fft.ifftn(np.fft.fftn(white) * gain).real
    noisy = (scan.clean + sigma * noise).astype(np.float32)
    started = time.process_time()
    found = nlmeans.estimate_noise(noisy)
    seconds = time.process_time() - started
    results = [
        noisy,
        nlmeans.denoise(noisy, noise="gaussian", correlation=None),
        nlmeans.denoise(noisy, sigma),
        nlmeans.denoise(noisy),
        nlmeans.denoise(noisy, noise=true_model(gain, sigma)),
    ]
    if peer:
        results.append(bm4d_told(noisy, gain, sigma))
    yield from (f"{psnr(scan.clean, result, peak=1, mask=scan.mask):.2f}" for result in results)
    yield from () if peer else ("–",)
    taken = "white" if found.correlation is None else "correlated"
    yield f"{(found.sigma or 0) / sigma:.0%}, {taken}" if found.kind == "gaussian" else f"**{found.kind}**"
    yield f"{seconds:.1f}"


def header() -> list[str]:
    lines = [
        "# Correlated noise",
        "",
        f"`python benchmarks/correlated.py`, nlmeans {nlmeans.__version__}. PSNR in dB, in the object; the method is "
        "that of the default, which for volumes of this size is `best`. `white`: the noise is taken for white, sigma "
        "estimated or told. `default`: nothing told. BM4D is told the true power spectral density. `sigma found` is in "
        "% of the truth.",
        "",
    ]
    return [*lines, *(f"- {kind}: {about}" for kind, about in KINDS.items()), ""]


@click.command()
@click.option(
    "--volume", "extra", multiple=True, type=click.Path(path_type=Path), help="Add a clean volume; repeatable."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "correlated.md")
def main(extra: tuple[Path, ...], out: Path) -> None:
    torch.set_grad_enabled(False)
    peer = importlib.util.find_spec("bm4d") is not None
    lines = header()
    for scan in scans(list(extra)).values():
        if min(scan.clean.shape) < 24 or scan.clean.ndim != 3:
            continue
        lines += [f"## {scan.name}, {' × '.join(map(str, scan.clean.shape))}", ""]
        lines += ["| noise | % | " + " | ".join(COLUMNS) + " |", "|---|" + "--:|" * (1 + len(COLUMNS))]
        for kind in KINDS:
            for percent in (5,) if kind in LONG else PERCENT:
                row = [kind, str(percent), *scores(scan, kind, percent, peer)]
                lines.append("| " + " | ".join(row) + " |")
                click.echo(lines[-1])
        lines.append("")
    out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
