"""Series beyond simulated diffusion: time and memory, activations of known amplitude, and a real diffusion series.

python benchmarks/series_more.py        # two minutes on two cores; dwidenoise (MRtrix3) and DIPY's data if installed
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import click
import nibabel as nib
import numpy as np
import torch
from fresh_process import measured_alone
from quality_volumes import Volume, scans
from scipy.ndimage import binary_dilation, gaussian_filter
from series import SEED, SHELLS, THREADS, diffusion, dwidenoise, ours

import nlmeans

SIZE = (96, 96, 20, 67)
ROUNDS = 3


def large_series() -> Volume:
    """Return a series of diffusion of the size `SIZE`, with 2 % Gaussian noise."""
    image = scans([])["phantom"].clean[..., 10:30]
    margins = [(0, n - have) for n, have in zip(SIZE, image.shape, strict=False)]
    image = np.pad(image / image.max(), margins, mode="symmetric")
    clean = diffusion(image)[..., : SIZE[3]]
    return (clean + 0.02 * np.random.default_rng(SEED).standard_normal(clean.shape)).astype(np.float32)


def ours_ready(told: bool) -> Callable[[], None]:
    """Prepare a run whose memory is measured: of the result alone, without maps."""
    torch.set_num_threads(THREADS)
    noisy, how = large_series(), {"method": "series", "sigma": 0.02} if told else {}
    nlmeans.denoise(noisy[:24, :24], series=3, **how)

    def once() -> None:
        nlmeans.denoise(noisy, series=3, **how)

    return once


def speed() -> list[str]:
    noisy = large_series()
    contestants = {"default": ours(told=False), "told": ours(told=True)}
    if shutil.which("dwidenoise"):
        contestants["dwidenoise"] = dwidenoise
    rows = ["| | seconds | peak memory beyond the series, in series |", "|---|--:|--:|"]
    for name, run in contestants.items():
        seconds = []
        for _ in range(1 if name == "dwidenoise" else ROUNDS):
            started = time.perf_counter()
            run(noisy, "gaussian", 0.02)
            seconds.append(time.perf_counter() - started)
        memory = ""
        if name != "dwidenoise":
            memory = f"{measured_alone(ours_ready, name == 'told')[1] / noisy.nbytes:.1f}"
        rows.append(f"| {name} | {median(seconds):.1f} | {memory} |")
        click.echo(rows[-1])
    return [f"## Time and memory, {' × '.join(map(str, SIZE))}", "", *rows, ""]


# ---------------------------------------------------------------- activations


AMPLITUDES = (0.01, 0.02, 0.04)
NOISE = (0.01, 0.02)


def functional() -> list[str]:
    """Activations in two blocks of 4³ voxels and in two single voxels, with slow drifts all over."""
    image = scans([])["phantom"].clean[12:52, 16:64, 12:26]
    image = 100 * image / image.max()
    rng, count = np.random.default_rng(SEED), 96
    task = (np.arange(count) // 12 % 2).astype(float)
    drifts = np.stack([np.sin(np.arange(count) * k / 20 + k) for k in (1, 2, 3)])
    maps = [gaussian_filter(rng.standard_normal(image.shape), 4) for _ in drifts]
    resting = image[..., None] * (1 + 0.01 * sum(m[..., None] / m.std() * d for m, d in zip(maps, drifts, strict=True)))
    inner = np.zeros(image.shape, bool)
    inner[4:-8, 4:-8, 3:-7] = True
    bright = np.argwhere(inner & (gaussian_filter(image, 2) > 40))
    blocks, single = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
    for z, y, x in bright[[len(bright) // 4, 3 * len(bright) // 4]]:
        blocks[z : z + 4, y : y + 4, x : x + 4] = True
    for place in bright[[len(bright) // 8, len(bright) // 2]]:
        single[tuple(place)] = True
    rest = (image > 20) & ~blocks & ~single
    regressors = np.stack([task - task.mean(), *(drifts - drifts.mean(1, keepdims=True)), np.ones(count)], 1)

    around = binary_dilation(blocks, np.ones((3, 3, 3))) & ~blocks

    def kept(series: Volume, where: Volume, amplitude: float) -> float:
        found = np.linalg.lstsq(regressors, series[where].T.astype(float), rcond=None)[0][0]
        return float((found / (amplitude * image[where])).mean())

    def steadiness(series: Volume) -> float:
        signals = series[rest].T.astype(float)
        left = signals - regressors @ np.linalg.lstsq(regressors, signals, rcond=None)[0]
        return float(np.median(signals.mean(0) / left.std(0)))

    rows = [
        "| noise | amplitude | | kept in blocks | shown around them | kept in single voxels | tSNR | error in blocks |",
        "|--:|--:|---|--:|--:|--:|--:|--:|",
    ]
    contestants = {"default": ours(told=False)}
    if shutil.which("dwidenoise"):
        contestants["dwidenoise"] = dwidenoise
    for sigma in NOISE:
        for amplitude in AMPLITUDES:
            clean = resting + amplitude * image[..., None] * task * (blocks | single)[..., None]
            noisy = (clean + 100 * sigma * rng.standard_normal(clean.shape)).astype(np.float32)
            results = {"noisy": noisy} | {
                n: run(noisy, "gaussian", 100 * sigma).signal for n, run in contestants.items()
            }
            for name, result in results.items():
                error = np.sqrt(np.square(result - clean)[blocks].mean()) / (100 * sigma)
                shares = [f"{kept(result, where, amplitude):.2f}" for where in (blocks, around, single)]
                cells = [f"{sigma:.0%}", f"{amplitude:.0%}", name, *shares, f"{steadiness(result):.0f}", f"{error:.2f}"]
                rows.append("| " + " | ".join(cells) + " |")
                click.echo(rows[-1])
    return [
        "## Activations of known amplitude",
        "",
        "40 × 48 × 14 voxels, 96 volumes, eight blocks of a task; noise and amplitude relative to the brightest signal "
        "and to the voxel's own. Activations in two blocks of 4³ voxels and in two single voxels; slow drifts of 1 % "
        "all over. Kept: the fitted amplitude over the true one; shown around: the same in the voxels next to a block, "
        "where there is none. tSNR without task and drifts. Error: root mean square in the blocks, in units of the "
        "noise.",
        "",
        *rows,
        "",
    ]


# ---------------------------------------------------------------- a real series


def real() -> list[str]:
    """A real series of 10 × 10 × 10 voxels and 65 volumes, with noise added to its own."""
    if not find_spec("dipy"):
        return []
    import dipy

    path = Path(dipy.__file__).parent / "data" / "files" / "small_64D.nii"
    clean = np.asarray(nib.load(path).dataobj, np.float32)
    rows = ["| noise added | told | default | sigma found |", "|--:|--:|--:|--:|"]
    peak = float(np.quantile(clean, 0.999))
    own = float(np.median(nlmeans.denoise_with_maps(clean, series=3, method="series").noise_map))
    for percent in (2, 5, 10):
        sigma = percent / 100 * peak
        noisy = (clean + sigma * np.random.default_rng(SEED).standard_normal(clean.shape)).astype(np.float32)
        total = float(np.hypot(sigma, own))
        told = nlmeans.denoise(noisy, total, method="series", series=3)
        found = nlmeans.denoise_with_maps(noisy, series=3)
        psnrs = [10 * np.log10(peak**2 / np.square(r - clean).mean()) for r in (told, found.volume)]
        level = float(np.median(found.noise_map)) / total
        rows.append(f"| {percent} % | {psnrs[0]:.2f} | {psnrs[1]:.2f} | {level:.0%} |")
        click.echo(rows[-1])
    return [
        "## A real series, 10 × 10 × 10 × 65",
        "",
        "DIPY's small diffusion series, with Gaussian noise added to its own. PSNR in dB against the series as it is.",
        "",
        *rows,
        "",
    ]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "series-more.md")
def main(out: Path) -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(THREADS)
    shells = ", ".join(f"{count} at {name}" for name, (_, count) in SHELLS.items())
    lines = [
        "# Series: time, memory, activations, and a real one",
        "",
        f"`python benchmarks/series_more.py`, nlmeans {nlmeans.__version__}, {THREADS} threads. Diffusion as in the "
        f"other table ({shells}; here the first {SIZE[3]}).",
        "",
        *speed(),
        *functional(),
        *real(),
    ]
    out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
