"""Match the resolution of a scan with thin slices to that of a scan with thick slices by fitting a local blur.

Two scans of one head can be compared or averaged voxel by voxel only at the same resolution. The blur that turns the
thin slices into the thick ones can vary over the volume: here a coarse grid of control points gives its standard
deviations along the three axes. Gradient descent learns them from the two scans alone.
The scans are denoised first, because a blur also removes noise, and the fit would mistake this for lower resolution.

    python examples/match_slice_thickness.py                                       # simulated thick slices, known truth
    python examples/match_slice_thickness.py --thin a.nii.gz --thick b.nii.gz --matched a_like_b.nii.gz

The headers must place the two scans in the same space. Needs scipy.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nibabel.processing import resample_from_to
from torch import Tensor

import nlmeans
from nlmeans.blur import local_gaussian_blur, log_cholesky_to_covariance
from nlmeans.files import samples

FWHM = math.sqrt(8 * math.log(2))
"""Full width at half maximum of a Gaussian, in standard deviations."""

CONTROL_POINTS = (2, 3, 2)
BACKGROUND = 0.05
"""Share of the largest value; darker voxels are not compared."""

TRUE_THICKNESS = (4.0, 8.0)
"""Full width at half maximum of the simulated slice profile in mm, from the back of the head to the front."""
SLICE_DISTANCE = 3
"""Planes of the thin scan from one simulated slice to the next."""


@dataclass(frozen=True)
class Match:
    thin: Tensor
    """Thin scan on the grid of the thick one with more planes between its slices; in units of the thick maximum."""
    thick: Tensor
    """Thick scan in units of its maximum."""
    matched: Tensor
    """The thin scan at the resolution of the thick one."""
    deviations: Tensor
    """Learned standard deviations in mm, (*shape, 3)."""
    every: tuple[int, ...]
    """Steps of the grid between neighbouring voxels of the thick scan, per axis."""
    grid: Any
    """Affine of the grid."""
    unit: float
    """The thick maximum, in image units."""
    losses: list[float]

    def error(self, values: Tensor) -> float:
        """Root mean square difference from the thick scan over voxels with signal."""
        difference = at_slices(values, self.every) - self.thick
        return float(difference[self.thick > BACKGROUND].square().mean().sqrt())


def at_slices(volume: Tensor, every: tuple[int, ...]) -> Tensor:
    return volume[tuple(slice(None, None, step) for step in every)]


def simulated(seed: int) -> tuple[Any, Any]:
    """Load the head phantom and simulate thick slices of it, whose profile widens from back to front."""
    thin, clean = (nibabel.load(samples.path(name)) for name in ("head", "head_clean"))
    volume = torch.from_numpy(clean.get_fdata(dtype=np.float32))
    thickness = torch.linspace(*TRUE_THICKNESS, volume.shape[1])[None, :, None].expand(volume.shape)
    in_plane = torch.full_like(volume, 1.0)
    covariance = torch.stack([in_plane, in_plane, thickness / FWHM], -1).square()
    slices = local_gaussian_blur(volume, covariance, spacing=clean.header.get_zooms())[..., ::SLICE_DISTANCE]
    noise = 20 * torch.randn(2, *slices.shape, generator=torch.Generator().manual_seed(seed))
    affine = clean.affine @ np.diag([1, 1, SLICE_DISTANCE, 1])
    return thin, nibabel.Nifti1Image(torch.hypot(slices + noise[0], noise[1]).numpy(), affine)


def denoised(scan: Any) -> Any:
    spacing = tuple(float(size) for size in scan.header.get_zooms()[:3])
    values = nlmeans.denoise(scan.get_fdata(dtype=np.float32), noise="rician", spacing=spacing)
    return nibabel.Nifti1Image(values, scan.affine)


def match(thin: Any, thick: Any, steps: int = 60, lr: float = 0.1) -> Match:
    """Fit the blur that turns the thin scan into the thick one."""
    thick_size, thin_size = (np.array(scan.header.get_zooms()[:3], float) for scan in (thick, thin))
    every = tuple(max(1, math.ceil(a / b - 0.01)) for a, b in zip(thick_size, thin_size, strict=True))
    shape = tuple((n - 1) * step + 1 for n, step in zip(thick.shape, every, strict=True))
    affine = thick.affine @ np.diag([*(1 / step for step in every), 1])
    fine = resample_from_to(denoised(thin), (shape, affine)).get_fdata(dtype=np.float32)
    coarse = denoised(thick).get_fdata(dtype=np.float32)
    unit = float(coarse.max())
    source, target = torch.from_numpy(fine) / unit, torch.from_numpy(coarse) / unit

    spacing = tuple(float(size) / step for size, step in zip(thick_size, every, strict=True))
    widest = 2 * thick_size / FWHM  # a profile twice as wide as the slice distance
    kernel_size = [2 * math.ceil(2 * w / size) + 1 for w, size in zip(widest, spacing, strict=True)]
    start = (0.75 * torch.tensor(spacing)).log()
    control = start[:, None, None, None].repeat(1, *CONTROL_POINTS).requires_grad_()

    def blurred() -> tuple[Tensor, Tensor]:
        logarithms = F.interpolate(control[None], shape, mode="trilinear", align_corners=True)[0].movedim(0, -1)
        covariance = log_cholesky_to_covariance(logarithms, "diagonal")
        return local_gaussian_blur(source, covariance, spacing=spacing, kernel_size=kernel_size), logarithms.exp()

    optimiser = torch.optim.Adamax([control], lr=lr)
    signal = target > BACKGROUND
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (at_slices(blurred()[0], every) - target)[signal].square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    with torch.no_grad():
        matched, deviations = blurred()
    return Match(source, target, matched, deviations, every, affine, unit, losses)


def figure(of: Match, truth: bool) -> Figure:
    """Draw a sagittal plane of the volumes, the differences before and after matching, and the learned thickness."""
    middle = of.thick.shape[0] // 2
    thin, matched = (at_slices(volume, of.every)[middle] for volume in (of.thin, of.matched))
    thick = of.thick[middle]
    size = np.sqrt((of.grid[:3, :3] ** 2).sum(0)) * np.array(of.every)
    drawing = Figure(figsize=(13, 6.6), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(2, 3)
    reach = float((thin - thick).abs().max())
    pictures = (
        ("thin slices", thin, "gray", 0, 1),
        ("thin slices, matched", matched, "gray", 0, 1),
        ("thick slices", thick, "gray", 0, 1),
        ("thin − thick", thin - thick, "RdBu", -reach, reach),
        ("matched − thick", matched - thick, "RdBu", -reach, reach),
    )
    for axis, (title, plane, colours, low, high) in zip(axes.flat, pictures, strict=False):
        picture = axis.imshow(plane.T, cmap=colours, vmin=low, vmax=high, origin="lower", aspect=size[2] / size[1])
        axis.set_title(title)
        axis.set_axis_off()
        drawing.colorbar(picture, ax=axis, location="bottom", shrink=0.7, pad=0.02)
    profile = axes[1, 2]
    along = np.arange(of.deviations.shape[1]) * size[1] / of.every[1]
    profile.plot(along, FWHM * of.deviations[..., 2].mean((0, 2)), label="learned")
    if truth:
        profile.plot(along, np.linspace(*TRUE_THICKNESS, len(along)), "--", label="true")
    profile.set_xlabel("second axis, mm")
    profile.set_ylabel("width of the blur along the third axis, mm")
    profile.set_ylim(0)
    profile.legend()
    return drawing


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thin", type=Path, help="NIfTI file with thin slices; by default a simulation")
    parser.add_argument("--thick", type=Path, help="NIfTI file with thick slices")
    parser.add_argument("--matched", type=Path, help="NIfTI file to write the matched thin scan to")
    parser.add_argument("--steps", type=int, default=60, help="steps of Adamax")
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate of Adamax")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the simulated noise")
    parser.add_argument("--out", type=Path, default=Path("match_slice_thickness.png"), help="picture to write")
    options = parser.parse_args(arguments)
    if (options.thin is None) != (options.thick is None):
        parser.error("give both --thin and --thick, or neither")

    truth = options.thin is None
    thin, thick = simulated(options.seed) if truth else (nibabel.load(options.thin), nibabel.load(options.thick))
    found = match(thin, thick, options.steps, options.lr)
    for step in range(0, options.steps, max(1, options.steps // 10)):
        print(f"step {step:3d}  root mean square error {math.sqrt(found.losses[step]):.4f}")
    print(f"thin − thick: {found.error(found.thin):.4f}, matched − thick: {found.error(found.matched):.4f}")
    widths = FWHM * found.deviations.flatten(0, 2)
    for axis, (low, middle, high) in enumerate(zip(*widths.quantile(torch.tensor([0.1, 0.5, 0.9]), 0), strict=True)):
        print(f"width of the blur along axis {axis}: {middle:.1f} mm ({low:.1f} to {high:.1f})")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure(found, truth).savefig(options.out, dpi=100)
    print(f"picture: {options.out}")
    if options.matched is not None:
        nibabel.save(nibabel.Nifti1Image((found.matched * found.unit).numpy(), found.grid), options.matched)
        print(f"matched scan: {options.matched}")


if __name__ == "__main__":
    main()
