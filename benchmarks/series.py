"""Compare `nlmeans.denoise` on series with its peers, on simulated diffusion whose truth is known.

python benchmarks/series.py                           # the phantom: a quarter of an hour on two cores with all peers
python benchmarks/series.py --volume head.nii.gz      # and a clean head

Peers that are installed are run: dwidenoise (MRtrix3), DIPY's mppca, localpca and patch2self, patch-denoise. DIPY also
fits the tensors. Everything gets two threads.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click
import nibabel as nib
import numpy as np
import torch
from quality_volumes import GIVEN, Volume, scans
from scipy.ndimage import gaussian_filter

import nlmeans

SHELLS = {"b0": (0, 6), "b1000": (1000, 30), "b2000": (2000, 60)}
"""For each shell, b in s/mm² and the number of directions."""
FLUID = 0.25
"""Intensity at b0 below which a voxel is fluid."""

KINDS = ("gaussian", "rician", "complex")
PERCENT = (1, 2, 5)
THREADS = 2
COLUMNS = (*SHELLS, "all", "sigma found", "air", "FA error", "MD error", "seconds")
SEED = 0
PATCH = 5
"""Edge of the patches of all peers that have patches."""


# ---------------------------------------------------------------- the simulation


def directions(count: int) -> Volume:
    """Return unit vectors spread over half a sphere, (count, 3)."""
    steps = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - steps / count), np.pi * (1 + 5**0.5) * steps
    return np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], -1)


def weightings() -> tuple[Volume, Volume]:
    """Return b and the direction of each volume."""
    values = np.concatenate([np.full(count, b) for b, count in SHELLS.values()]).astype(float)
    return values, np.concatenate([directions(count) for _, count in SHELLS.values()])


def smooth_unit(shape: tuple[int, ...], width: float, rng: np.random.Generator) -> Volume:
    """Return a field of numbers from 0 to 1 that varies over `width` voxels."""
    field = gaussian_filter(rng.random(shape), width)
    unit: Volume = (field - field.min()) / np.ptp(field)
    return unit


def diffusion(image: Volume) -> Volume:
    """Simulate diffusion of two crossing fibres in every voxel of an image without weighting; volumes last."""
    rng = np.random.default_rng(SEED)
    fibres = []
    for _ in range(2):
        field = np.stack([gaussian_filter(rng.standard_normal(image.shape), 4) for _ in range(3)], -1)
        fibres.append(field / np.linalg.norm(field, axis=-1, keepdims=True))
    anisotropy, share = smooth_unit(image.shape, 3, rng), 0.4 * smooth_unit(image.shape, 3, rng)
    mean = np.where(image < FLUID, 2.7e-3, 0.7e-3)
    along, across = mean * (1 + 1.2 * anisotropy), mean * (1 - 0.6 * anisotropy)
    volumes = []
    for weighting, direction in zip(*weightings(), strict=True):
        decays = [np.exp(-weighting * (across + (along - across) * (f @ direction) ** 2)) for f in fibres]
        volumes.append(image * ((1 - share) * decays[0] + share * decays[1]))
    return np.stack(volumes, -1)


def phases(shape: tuple[int, ...]) -> Volume:
    """Return a phase that is smooth in every slice, and differs between slices and volumes as with movement."""
    rng = np.random.default_rng(SEED)
    x, y = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    waves = np.stack([x, y, x * y, x**2, y**2, np.full_like(x, np.pi)], -1)
    turns: Volume = np.einsum("xyk,zvk->xyzv", waves, rng.standard_normal((*shape[2:], 6)))
    return turns


def with_noise(clean: Volume, kind: str, sigma: float) -> Volume:
    real, imaginary = sigma * np.random.default_rng(SEED).standard_normal((2, *clean.shape))
    if kind == "gaussian":
        return (clean + real).astype(np.float32)
    if kind == "rician":
        return np.hypot(clean + real, imaginary).astype(np.float32)
    return (clean * np.exp(1j * phases(clean.shape)) + real + 1j * imaginary).astype(np.complex64)


# ---------------------------------------------------------------- contestants


class Run(NamedTuple):
    """What a contestant gives: the signal, and the sigma that it found, if it says so."""

    signal: Volume
    sigma: float | None


Contestant = Callable[[Volume, str, float], Run]
"""A function of the noisy series, the kind of noise, and sigma."""


def ours(told: bool) -> Contestant:
    def run(noisy: Volume, kind: str, sigma: float) -> Run:
        noise = {"noise": "rician"} if kind == "rician" else {}
        options = {"method": "series", "sigma": sigma, **noise} if told else {}
        found = nlmeans.denoise_with_maps(noisy, series=3, **options)
        signal = found.volume if found.phase is None else (found.volume * np.conj(found.phase)).real
        return Run(signal, float(np.median(found.noise_map)))

    return run


def dwidenoise(noisy: Volume, kind: str, sigma: float) -> Run:
    """Run dwidenoise with its own settings. The noise of complex numbers is that of both parts together."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.nii" for name in ("in", "out", "noise")]
        nib.save(nib.Nifti1Image(noisy, np.diag([2.0, 2.0, 2.0, 1.0])), paths[0])
        options = ["-noise", paths[2], "-quiet", "-nthreads", str(THREADS)]
        subprocess.run(["dwidenoise", *map(str, (paths[0], paths[1], *options))], check=True)
        found = float(np.median(np.asarray(nib.load(paths[2]).dataobj)))
        result = np.asarray(nib.load(paths[1]).dataobj)
    return Run(np.abs(result), found / 2**0.5) if kind == "complex" else Run(result, found)


def mppca(noisy: Volume, kind: str, sigma: float) -> Run:
    from dipy.denoise.localpca import mppca as dipy_mppca

    signal, found = dipy_mppca(
        np.abs(noisy) if kind == "complex" else noisy, patch_radius=PATCH // 2, return_sigma=True
    )
    return Run(signal, float(np.median(found)))


def localpca(noisy: Volume, kind: str, sigma: float) -> Run:
    """Run DIPY's localpca with the level that its users give it: that of `pca_noise_estimate`, as in its example."""
    from dipy.core.gradients import gradient_table
    from dipy.denoise.localpca import localpca as dipy_localpca
    from dipy.denoise.pca_noise_estimate import pca_noise_estimate

    given = np.abs(noisy) if kind == "complex" else noisy
    b, vectors = weightings()
    level = pca_noise_estimate(given, gradient_table(b, bvecs=vectors), correct_bias=kind != "gaussian", smooth=3)
    return Run(dipy_localpca(given, sigma=level, patch_radius=PATCH // 2), float(np.median(level)))


def patch2self(noisy: Volume, kind: str, sigma: float) -> Run:
    from dipy.denoise.patch2self import patch2self as dipy_patch2self

    given = np.abs(noisy) if kind == "complex" else noisy
    return Run(
        dipy_patch2self(given, weightings()[0], shift_intensity=False, clip_negative_vals=False, verbose=False), None
    )


def patch_denoise(noisy: Volume, kind: str, sigma: float) -> Run:
    """Run the method of patch-denoise that was best here; its optimal thresholding gave no image."""
    from patch_denoise.denoise import mp_pca

    edges, overlap = (PATCH,) * 3, (PATCH - 1,) * 3  # with less overlap, voxels at the end stay without a patch
    result = mp_pca(noisy, edges, overlap)[0]
    return Run(np.abs(result) if kind == "complex" else result, None)


def contestants() -> dict[str, Contestant]:
    """Return ours and the peers that are installed."""
    found: dict[str, Contestant] = {"default": ours(told=False), "told": ours(told=True)}
    if shutil.which("dwidenoise"):
        found["dwidenoise"] = dwidenoise
    if find_spec("dipy"):
        found |= {"DIPY mppca": mppca, "DIPY localpca": localpca, "DIPY patch2self": patch2self}
    if find_spec("patch_denoise"):
        found["patch-denoise"] = patch_denoise
    return found


# ---------------------------------------------------------------- scores


def tensor_maps(signal: Volume) -> tuple[Volume, Volume] | None:
    """Return fractional anisotropy and mean diffusivity of (voxels, volumes), from b0 and b1000; None without DIPY."""
    if not find_spec("dipy"):
        return None
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel

    b, vectors = weightings()
    low = b <= 1000
    fit = TensorModel(gradient_table(b[low], bvecs=vectors[low])).fit(np.maximum(signal[:, low], 1e-4))
    return fit.fa, fit.md


def tissue(clean: Volume) -> Volume:
    """Where the simulation has tissue. In fluid the signal at b1000 is below the noise, and so is its tensor."""
    return np.asarray(clean[..., 0] >= FLUID)


def scores(
    clean: Volume, signal: Volume, sigma: float, inside: Volume, truth: tuple[Volume, Volume] | None
) -> list[str]:
    """PSNR in the object for each shell and over all volumes (the greatest value is 1); bias in air; tensor errors."""
    error = np.square(signal.astype(np.float64) - clean)[inside]
    ends = np.cumsum([count for _, count in SHELLS.values()])
    parts = [*np.split(error, ends[:-1], axis=1), error]
    air = (clean.max(-1) == 0).nonzero()
    cells = [f"{10 * np.log10(1 / part.mean()):.1f}" for part in parts]
    cells.append(f"{signal[air].mean() / sigma:.2f}")
    found = tensor_maps(signal[tissue(clean)])
    if found is None or truth is None:
        return [*cells, "", ""]
    anisotropy, diffusivity = (np.abs(one - other).mean() for one, other in zip(found, truth, strict=True))
    return [*cells, f"{anisotropy:.4f}", f"{1e6 * diffusivity:.0f}"]


def table_of(clean: Volume, inside: Volume, kind: str, sigma: float) -> list[str]:
    """Return a table of all contestants for one kind and level of noise."""
    noisy = with_noise(clean, kind, sigma)
    truth = tensor_maps(clean[tissue(clean)])

    def row(name: str, signal: Volume, found: float | None, seconds: float | None) -> str:
        *quality, air, anisotropy, diffusivity = scores(clean, signal, sigma, inside, truth)
        level = "" if found is None else f"{found / sigma:.0%}"
        cells = [name, *quality, level, air, anisotropy, diffusivity, "" if seconds is None else f"{seconds:.1f}"]
        click.echo(f"{kind} {sigma:.0%}: {' | '.join(cells)}")
        return "| " + " | ".join(cells) + " |"

    rows = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "--:|" * len(COLUMNS)]
    rows.append(row("noisy", np.abs(noisy) if kind == "complex" else noisy, None, None))
    for name, run in contestants().items():
        started = time.perf_counter()
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            done = run(noisy.copy(), kind, sigma)  # some peers write to their input
        rows.append(row(name, done.signal, done.sigma, time.perf_counter() - started))
    return rows


@click.command()
@click.option("--volume", "extra", multiple=True, type=click.Path(path_type=Path), help="A clean head; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "series.md")
def main(extra: tuple[Path, ...], out: Path) -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(THREADS)
    lines = [
        "# Series",
        "",
        f"`python benchmarks/series.py`, nlmeans {nlmeans.__version__}. Simulated diffusion, two crossing fibres in "
        f"every voxel: {', '.join(f'{count} volumes at {shell}' for shell, (_, count) in SHELLS.items())}. PSNR in dB "
        "in the object, for each shell and over all volumes. `default` is told nothing, `told` kind and sigma. "
        "Air: mean in units of sigma, of the real part for ours on complex data, else of the magnitude. FA and MD: "
        "mean errors, in tissue, of the tensor that DIPY fits to b0 and b1000, MD in 10⁻⁶ mm²/s. DIPY's methods get "
        "magnitudes, as they do not take complex numbers. Two threads each.",
        "",
    ]
    nlmeans.denoise(np.random.default_rng(SEED).random((8, 8, 8, 8), np.float32), series=3)  # compiles
    for scan in scans(list(extra)).values():
        if scan.clean.ndim != 3 or (scan.name != "phantom" and not scan.about.startswith(GIVEN)):
            continue
        middle = [n // 2 for n in scan.clean.shape]
        image = scan.clean[tuple(slice(m - r, m + r) for m, r in zip(middle, (12, 14, 5), strict=True))]
        image = np.pad(image / image.max(), ((8, 0), (0, 0), (0, 0)))  # eight planes of air
        clean = diffusion(image)
        inside = image > np.quantile(image, 0.99) / 10
        lines += [f"## {scan.name}, {' × '.join(map(str, clean.shape))}", ""]
        for kind in KINDS:
            for percent in PERCENT:
                lines += [f"{kind} noise, {percent} %", "", *table_of(clean, inside, kind, percent / 100), ""]
                out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(THREADS))
    main()
