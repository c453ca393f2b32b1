"""Phantoms of other modalities than MR: cells under a confocal microscope, a belly in CT, and a body in PET.

Each is a function of voxel positions, with seeded places and sizes. All computations use float64 until the final
rounding, as in make.py, which writes the files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped,unused-ignore]

Floats = npt.NDArray[np.float64]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Phantom:
    """One file: what it shows, and how its noise is made.

    `clean` gives the image without noise, and `noisy` adds noise to it with a generator of random numbers.
    """

    name: str
    label: str
    shape: tuple[int, int, int]
    voxel_mm: Triple
    seed: int
    dtype: type[np.integer[Any]]
    clean: Callable[[Phantom], Floats]
    noisy: Callable[[Phantom, Floats, np.random.Generator], Floats]
    truth: dict[str, Any] = field(default_factory=dict)
    """What truth.json says of the noise."""

    @property
    def noise_in_words(self) -> str:
        """Describe the noise for the header of the file."""
        truth = self.truth
        numbers = " ".join(f"{name} {truth[name]:g}" for name in ("gain", "offset", "sigma") if name in truth)
        return f"{truth['noise'].capitalize()} {numbers} seed {self.seed}"

    @property
    def affine(self) -> Floats:
        """Affine from voxel indices to mm (RAS), with the middle of the grid at the origin."""
        affine = np.diag([*self.voxel_mm, 1.0])
        affine[:3, 3] = -np.array(self.voxel_mm) * (np.array(self.shape) - 1) / 2
        return affine

    def sample_clean(self) -> npt.NDArray[np.integer[Any]]:
        """Noise-free image, rounded to integers."""
        return np.rint(self.clean(self)).astype(self.dtype)

    def add_noise(self, clean: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
        """Noisy image, rounded to integers and clipped to the range of the type."""
        noisy = self.noisy(self, clean.astype(np.float64), np.random.Generator(np.random.PCG64(self.seed)))
        limits = np.iinfo(self.dtype)
        return np.rint(noisy).clip(limits.min, limits.max).astype(self.dtype)


class Canvas:
    """An image on a finer grid than its file, so that edges have partial volume."""

    def __init__(self, phantom: Phantom, finer: tuple[int, int, int], background: float) -> None:
        """Start with the background everywhere."""
        self.finer = finer
        voxels = [n * times for n, times in zip(phantom.shape, finer, strict=True)]
        sides = [
            size * ((np.arange(n) + 0.5) / times - whole / 2)
            for n, times, whole, size in zip(voxels, finer, phantom.shape, phantom.voxel_mm, strict=True)
        ]
        self.x, self.y, self.z = np.meshgrid(*sides, indexing="ij", sparse=True)
        self.image: Floats = np.full(voxels, background)

    def ellipsoid(self, centre: Triple, axes: Triple, turn: float = 0.0) -> Floats:
        """Squared radius relative to the surface: below 1 inside. `turn` rotates about z, in radians."""
        x, y, z = self.x - centre[0], self.y - centre[1], self.z - centre[2]
        along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
        level: Floats = (along / axes[0]) ** 2 + (across / axes[1]) ** 2 + (z / axes[2]) ** 2
        return level

    def paint(self, inside: npt.NDArray[np.bool_], value: Floats | float) -> None:
        """Replace what is inside."""
        self.image = np.where(inside, value, self.image)

    def blocks(self) -> Floats:
        """Means of blocks: the image on the grid of its file."""
        a, b, c = self.finer
        nx, ny, nz = self.image.shape
        means: Floats = self.image.reshape(nx // a, a, ny // b, b, nz // c, c).mean((1, 3, 5))
        return means


def smooth_field(shape: tuple[int, ...], width: Triple, seed: int) -> Floats:
    """Random field of unit variance, smooth over `width` voxels along each axis."""
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    smooth: Floats = gaussian_filter(noise, width, mode="wrap")
    return smooth / smooth.std()


def cells(phantom: Phantom) -> Floats:
    """Cells with nuclei, membranes and filaments, and beads between them, blurred by the microscope; in grey values."""
    um, truth = 1e-3, phantom.truth
    rng = np.random.Generator(np.random.PCG64(41))
    canvas = Canvas(phantom, (1, 1, 2), 2.0)
    texture = smooth_field(canvas.image.shape, (2, 2, 3), 42)
    clumps = smooth_field(canvas.image.shape, (3, 3, 3), 43)
    filaments = np.abs(smooth_field(canvas.image.shape, (4, 4, 4), 44)) < 0.1
    for place in ((-7.5, -6.5, -1), (6.5, -7.5, 0.5), (-5.5, 6.5, 1.5), (7.5, 5.5, -1.5), (0.5, -0.5, 3)):
        x, y, z = (at + rng.uniform(-0.8, 0.8) for at in place)
        turn, size = rng.uniform(0, np.pi), rng.uniform(0.85, 1.1)
        body = canvas.ellipsoid((x * um, y * um, z * um), (5.8 * size * um, 4.2 * size * um, 4 * size * um), turn)
        canvas.paint(body < 1, 14 + 2.5 * texture)
        canvas.paint((body < 1) & filaments, 38.0)
        canvas.paint(np.abs(body - 0.97) < 0.05, 30.0)
        core = canvas.ellipsoid((x * um, y * um, z * um), (2.5 * size * um, 2 * size * um, 2 * size * um), turn)
        canvas.paint(core < 1, 48 + 9 * clumps)
    for _ in range(45):
        x, y, z = (rng.uniform(-half, half) * um for half in (12.4, 12.4, 6.8))
        canvas.paint(canvas.ellipsoid((x, y, z), (0.3 * um, 0.3 * um, 0.45 * um)) < 1, rng.uniform(80, 220))
    photons = gaussian_filter(np.maximum(canvas.image, 0.5), (0.8, 0.8, 1.6), mode="nearest")
    canvas.image = photons
    return truth["offset"] + truth["gain"] * canvas.blocks()


def counted(phantom: Phantom, clean: Floats, rng: np.random.Generator) -> Floats:
    """Image of a detector: Poisson counts times the gain, plus offset and read noise."""
    truth = phantom.truth
    counts = rng.poisson(np.maximum(clean - truth["offset"], 0) / truth["gain"])
    return truth["offset"] + truth["gain"] * counts + truth["sigma"] * rng.standard_normal(clean.shape)


def belly(phantom: Phantom) -> Floats:
    """Upper belly with liver, spleen, kidneys, vessels, gut and spine, in Hounsfield units."""
    canvas = Canvas(phantom, (2, 2, 1), -1000.0)
    shape = canvas.image.shape
    soft, fine = smooth_field(shape, (8, 8, 2), 51), smooth_field(shape, (2, 2, 1), 52)
    inside = canvas.ellipsoid
    tall = 1e4  # mm: a cylinder along z
    canvas.paint(inside((0, 0, 0), (68, 50, tall)) < 1, -100 + 4 * soft)  # fat
    wall = inside((0, 0, 0), (60, 42, tall)) < 1
    canvas.paint(wall, 55 + 3 * soft)
    cavity = inside((0, 3, 0), (55, 36, tall)) < 1
    canvas.paint(cavity, -95 + 8 * soft)
    liver = cavity & (inside((24, 6, 0), (29, 29, 60)) < 1)
    canvas.paint(liver, 105 + 3 * soft)
    for x, y, z, radius in ((16, 14, 3, 5), (34, 2, -6, 7), (28, 20, 8, 3), (40, 10, 4, 2.5), (14, 0, -10, 2)):
        canvas.paint(liver & (inside((x, y, z), (radius, radius, radius)) < 1), 75.0)  # lesions, 30 HU below
    for x, y, tilt in ((22, 8, 0.25), (30, 14, -0.2), (36, 0, 0.15)):  # portal branches, oblique to the slices
        distance = np.hypot(canvas.x - x - tilt * canvas.z, canvas.y - y + 0.2 * canvas.z)
        canvas.paint(liver & (distance < 1.6), 170.0)
    canvas.paint(cavity & (inside((-40, -6, 0), (13, 20, 50)) < 1), 115 + 3 * soft)  # spleen
    for side in (-1, 1):
        kidney = inside((24 * side, -20, -4), (10, 8, 28), 0.4 * side)
        canvas.paint(kidney < 1, 180 + 6 * soft)
        canvas.paint(kidney < 0.42, 110 + 10 * fine)
    stomach = cavity & (inside((-22, 18, 4), (18, 13, 30)) < 1)
    canvas.paint(stomach, 20.0)
    canvas.paint(stomach & (canvas.y > 22), -950.0)  # air above fluid
    spine = inside((0, -22, 0), (14, 11, tall))
    canvas.paint(spine < 1, 650 + 30 * fine)
    canvas.paint(spine < 0.75, 210 + 60 * fine)  # spongy bone
    canvas.paint(inside((0, -36, 0), (5, 8, tall)) < 1, 550.0)
    canvas.paint(inside((0, -34, 0), (4.5, 3, tall)) < 1, 35.0)  # spinal canal
    canvas.paint(np.hypot(canvas.x + 5, canvas.y + 7) + 0 * canvas.z < 6.5, 240.0)  # aorta
    canvas.paint(np.hypot(canvas.x - 9, canvas.y + 7) + 0 * canvas.z < 6, 130.0)  # vena cava
    angle = np.arctan2(canvas.y / 39, canvas.x / 57)
    ring = np.abs(inside((0, 0, 0), (57, 39, tall)) - 1) < 0.09
    ribs = ring & (np.abs(np.mod(angle * 14 / (2 * np.pi) + canvas.z / 32, 1) - 0.5) < 0.16)
    canvas.paint(ribs, 750.0)
    canvas.paint(ribs & (np.abs(inside((0, 0, 0), (57, 39, tall)) - 1) < 0.045), 350 + 50 * fine)
    canvas.image = gaussian_filter(canvas.image, (0.9, 0.9, 0.4), mode="nearest")  # focal spot and detector
    return canvas.blocks()


def reconstructed(phantom: Phantom, clean: Floats, rng: np.random.Generator) -> Floats:
    """CT image: Gaussian noise that the reconstruction kernel has smoothed within each slice."""
    width = phantom.truth["kernel_voxels"]
    noise = gaussian_filter(rng.standard_normal(clean.shape), (width, width, 0), mode="wrap")
    return clean + phantom.truth["sigma"] * noise / noise.std()


def uptake(phantom: Phantom) -> Floats:
    """Torso with a hot bladder, other organs, lungs and small lesions, blurred by the scanner, in units of activity."""
    canvas = Canvas(phantom, (2, 2, 2), 0.0)
    slow = smooth_field(canvas.image.shape, (10, 10, 10), 61)
    inside = canvas.ellipsoid
    canvas.paint(inside((0, 0, 0), (150, 100, 1e5)) < 1, 4 + 0.4 * slow)
    for side in (-1, 1):
        canvas.paint(inside((75 * side, 5, 75), (45, 62, 80)) < 1, 1.5)  # lungs
    canvas.paint(inside((55, 5, -40), (75, 70, 50)) < 1, 11 + 0.8 * slow)  # liver
    heart = inside((-30, 30, 60), (38, 32, 34), 0.6)
    canvas.paint(heart < 1, 35.0)
    canvas.paint(heart < 0.45, 6.0)
    canvas.paint(inside((0, -60, 0), (17, 17, 1e5)) < 1, 7.0)  # marrow
    for side in (-1, 1):
        canvas.paint(inside((70 * side, -45, -85), (22, 22, 40)) < 1, 30.0)
    canvas.paint(inside((0, 20, -110), (30, 24, 24)) < 1, 150.0)  # bladder
    lesions = ((80, 20, 60, 7), (-75, -20, 90, 5), (40, 30, -30, 8), (80, -10, -50, 6), (-60, 20, -40, 9))
    for x, y, z, radius in lesions:
        canvas.paint(inside((x, y, z), (radius, radius, radius)) < 1, 35.0)
    canvas.image = gaussian_filter(canvas.image, (1.5, 1.5, 1.5), mode="nearest")
    return phantom.truth["gain"] * canvas.blocks()


PHANTOMS = (
    Phantom("confocal", "cells and beads", (128, 128, 24), (0.0002, 0.0002, 0.0006), 111, np.uint16, cells, counted,
            {"noise": "poisson", "gain": 4, "offset": 100, "sigma": 6}),
    Phantom("ct", "belly", (128, 96, 32), (1.2, 1.2, 2.5), 112, np.int16, belly, reconstructed,
            {"noise": "gaussian", "sigma": 25, "kernel_voxels": 0.7}),
    Phantom("pet", "torso", (80, 56, 64), (4, 4, 4), 113, np.int16, uptake, counted,
            {"noise": "poisson", "gain": 20, "offset": 0, "sigma": 0}),
)  # fmt: skip
