"""Make the sample data: one analytic head phantom, sampled in three ways, with Rician noise, and modalities.py.

The head is a function of continuous coordinates in millimetres (x right, y anterior, z
superior; the origin is in the middle of the head), so every file shows the same anatomy and only
the sampling differs. Each voxel is the mean of a block of finer samples, which gives partial volume
as in a scanner. All computations use float64 until the final rounding, so that differences in the
last bits between two machines do not reach the stored integers.

Usage: python make.py [--out DIR]
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modalities
import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline  # type: ignore[import-untyped,unused-ignore]
from scipy.ndimage import map_coordinates  # type: ignore[import-untyped,unused-ignore]
from scipy.spatial import cKDTree  # type: ignore[import-untyped,unused-ignore]

Floats = npt.NDArray[np.float64]
Voxels = npt.NDArray[np.int16]
Triple = tuple[float, float, float]
Curve = Sequence[Sequence[float]]  # knots (x, y, z, radius) of a tube, in mm

NIFTI: Any = nib.nifti1  # nibabel's calls carry no types

CLEAN_MAXIMUM = 1000  # brighter points saturate, so that all files have the same scale
EDGE_MM = 0.8  # width of the ramp between two tissues
CSF, GREY, WHITE, VESSEL = 165.0, 440.0, 690.0, 990.0
FAT, SKIN, MUSCLE, BONE, MARROW, DURA = 840.0, 430.0, 340.0, 45.0, 430.0, 330.0

# fmt: off
# Tubes as (curves in the midline, curves on the right, which are mirrored to the left).
VENTRICLES: tuple[list[Curve], list[Curve]] = ([], [
    [(8, 29, 4, 3), (7, 21, 9, 4.8), (6, 2, 16, 4.2), (9, -20, 17, 4.2), (21, -38, 10, 6),
     (25, -50, 6, 3.5), (27, -64, 4, 1.5)],
    [(23, -38, 8, 5), (32, -30, -8, 2.8), (33, -8, -15, 2)],
])
BRAIN_STEM: tuple[list[Curve], list[Curve]] = ([
    [(0, -20, -6, 10), (0, -22, -16, 11), (0, -24, -27, 14.5), (0, -29, -40, 10),
     (0, -36, -56, 7.5), (0, -42, -80, 6.5), (0, -44, -110, 6)],
], [
    [(9, -14, -4, 6), (8, -19, -18, 6)],
    [(9, -30, -28, 7), (15, -42, -31, 6), (19, -54, -36, 5)],
])
SINUSES: tuple[list[Curve], list[Curve]] = ([
    [(0, 62, 48, 1.2), (0, 35, 64, 1.8), (0, -10, 68, 2.4), (0, -55, 53, 2.8), (0, -86, 24, 3),
     (0, -94, 2, 3)],
], [
    [(0, -94, 2, 3), (25, -84, -12, 2.8), (48, -58, -20, 2.8), (54, -38, -34, 2.6)],
])
EYE_STRINGS: tuple[list[Curve], list[Curve]] = ([], [  # optic nerve and straight muscles
    [(31, 54, -36, 2), (24, 38, -34, 2), (10, 20, -28, 2)],
    [(42, 64, -36, 1.2), (38, 48, -36, 2.2), (22, 28, -33, 1.2)],
    [(19, 64, -36, 1.2), (19, 48, -36, 2.2), (16, 28, -33, 1.2)],
    [(31, 62, -25, 1.2), (28, 46, -26, 2), (18, 28, -31, 1.2)],
    [(31, 62, -47, 1.2), (28, 46, -45, 2), (18, 28, -36, 1.2)],
])
VESSELS: tuple[list[Curve], list[Curve]] = ([
    [(4, -26, -66, 1.3), (1, -14, -42, 1.5), (0, -8, -28, 1.5), (0, -8, -18, 1.4)],
], [
    [(14, 6, -60, 1.5), (13, 2, -44, 1.5), (11, 6, -30, 1.5), (13, 3, -20, 1.4)],
    [(13, 3, -20, 1.4), (24, 7, -16, 1.3), (36, 8, -8, 1.2), (37, -4, 2, 1), (40, -20, 8, 0.9),
     (54, -34, 12, 0.7)],
    [(36, 8, -8, 1), (38, 14, 2, 0.8), (37, 12, 14, 0.7), (48, 16, 8, 0.6)],
    [(13, 3, -20, 1.2), (4, 14, -19, 1.1), (2, 30, -6, 1.1), (2, 37, 10, 1), (2, 24, 26, 0.9),
     (2, 0, 31, 0.8), (2, -24, 30, 0.6)],
    [(2, -10, -18, 1.2), (14, -16, -15, 1.1), (20, -32, -11, 1), (14, -54, -6, 0.8),
     (9, -74, 0, 0.6)],
    [(2, 0, 9, 0.7), (2, -16, 14, 0.8), (0, -38, 8, 1.3), (0, -50, 12, 1.5)],
])
NUCLEI: tuple[tuple[Triple, Triple, float], ...] = (  # centre, half axes, lift over grey matter
    ((27, 3, 2), (5.5, 17, 10), 60),  # putamen
    ((19.5, -1, 0), (4, 10, 6.5), 140),  # pallidum
    ((15.5, 20, 8), (5.5, 10, 9), 45),  # head of the caudate
    ((16, 0, 18), (3, 18, 4), 50),  # body of the caudate
    ((10.5, -17, 6), (9, 14, 9), 105),  # thalamus
    ((27, -22, -17), (6, 17, 4.5), 40),  # hippocampus
    ((22, 2, -18), (7, 7, 6), 30),  # amygdala
    ((6, -20, -12), (3.5, 4, 3.5), 90),  # red nucleus
)
# fmt: on


@dataclass(frozen=True)
class Scan:
    """How one file samples the head."""

    name: str
    shape: tuple[int, ...]
    voxel_mm: Triple
    centre_mm: Triple
    supersampling: tuple[int, int, int]
    sigma: float
    seed: int
    label: str

    @property
    def affine(self) -> Floats:
        """Affine from voxel indices to mm (RAS), with the middle of the grid at `centre_mm`."""
        affine = np.diag([*self.voxel_mm, 1.0])
        last = np.array((*self.shape, 1)[:3]) - 1
        affine[:3, 3] = np.array(self.centre_mm) - np.array(self.voxel_mm) * last / 2
        return affine


SCANS = (
    Scan("head", (86, 108, 76), (2, 2, 2), (0, -2, 2), (3, 3, 3), 60, 101, "whole head"),
    Scan("thick", (156, 194, 14), (1, 1, 5), (0, -8, 12), (2, 2, 4), 40, 102, "thick slices"),
    Scan("slice", (256, 256), (0.8, 0.8, 2), (0, -7, 9), (2, 2, 3), 90, 103, "axial slice"),
)


class BandNoise:
    """Smooth periodic random field of one dominant wavelength, with unit variance."""

    STEP_MM, SIZE = 2.5, 96

    def __init__(self, wavelength_mm: float, seed: int) -> None:
        """Draw the field on a lattice fine enough for linear interpolation."""
        rng = np.random.Generator(np.random.PCG64(seed))
        frequency = 2 * np.pi * np.fft.fftfreq(self.SIZE, self.STEP_MM)
        waves = np.meshgrid(frequency, frequency, frequency, indexing="ij", sparse=True)
        wavenumber = 2 * np.pi / wavelength_mm
        relative = np.sqrt(sum(k**2 for k in waves)) / wavenumber
        spectrum = np.fft.fftn(rng.standard_normal((self.SIZE,) * 3))
        spectrum *= np.exp(-(((relative - 1) / 0.18) ** 2))
        field = np.fft.ifftn(spectrum).real
        steepness = np.sqrt(sum(np.fft.ifftn(1j * k * spectrum).real ** 2 for k in waves))
        self.field: Floats = field / field.std()
        # For a pure wave this is exactly the distance to the nearest zero crossing, so the
        # zero set can be used as a family of evenly spaced, folded sheets.
        self.sheets: Floats = np.arctan2(wavenumber * field, steepness) / wavenumber

    def value(self, p: Floats) -> Floats:
        """Value of the field at the points."""
        out: Floats = map_coordinates(self.field, p / self.STEP_MM, order=1, mode="grid-wrap")
        return out

    def sheet_distance(self, p: Floats) -> Floats:
        """Distance in mm from the points to the nearest sheet on which the field is 0."""
        out: Floats = map_coordinates(self.sheets, p / self.STEP_MM, order=1, mode="grid-wrap")
        return np.abs(out)

    def displaced(self, p: Floats, amount_mm: float) -> Floats:
        """Move the points about by the field, so that no shape stays a perfect ellipsoid."""
        return p + amount_mm * np.stack([self.value(p + shift) for shift in (0.0, 37.0, 71.0)])


class Tubes:
    """Round tubes along splines."""

    def __init__(self, curves: tuple[list[Curve], list[Curve]], reach_mm: float) -> None:
        """Take midline curves and curves to mirror; distances are cut off at `reach_mm`."""
        midline, right = curves
        left = [[(-x, *rest) for x, *rest in curve] for curve in right]
        samples = []
        for curve in (*midline, *right, *left):
            knots = np.asarray(curve, dtype=np.float64)
            length = np.linalg.norm(np.diff(knots[:, :3], axis=0), axis=1).sum()
            along = np.linspace(0, len(knots) - 1, int(length / 0.4) + 2)
            samples.append(CubicSpline(np.arange(len(knots)), knots)(along))
        table = np.concatenate(samples)
        self.tree, self.radius, self.reach = cKDTree(table[:, :3]), table[:, 3], reach_mm

    def distance(self, p: Floats) -> Floats:
        """Signed distance to the wall of the tube with the nearest axis."""
        far, nearest = self.tree.query(p.T, distance_upper_bound=self.reach)
        out: Floats = np.minimum(far, self.reach) - np.append(self.radius, 0.0)[nearest]
        return out


def small_veins() -> list[Curve]:
    """Draw random thin veins, down the cortex and outwards from the ventricles."""
    rng = np.random.Generator(np.random.PCG64(6))
    curves: list[Curve] = []
    for side in (-1, 1):
        for start in np.linspace(-62, 52, 9):
            angle = np.linspace(0.06, rng.uniform(0.8, 1.5), 7)
            y = start + np.cumsum(rng.normal(rng.normal(0, 3), 4, 7))
            ring = np.sqrt(np.maximum(1 - ((y + 8) / 85) ** 2, 0.04))
            x, z = 67.5 * side * ring * np.sin(angle), 6 + 58.5 * ring * np.cos(angle)
            curves.append(np.stack([x, y, z, np.linspace(1.3, 0.5, 7)], axis=1).tolist())
        for _ in range(16):
            y, tilt = rng.uniform(-50, 32), rng.uniform(0.1, 1.5)
            way = np.array([side * np.sin(tilt), rng.normal(0, 0.3), np.cos(tilt)])
            line = np.array([side * 13.0, y, 14]) + np.outer(np.linspace(4, rng.uniform(20, 32), 5), way)
            curves.append([(*knot, 0.5) for knot in (line + rng.normal(0, 0.8, (5, 3))).tolist()])
    return curves


def ellipsoid(p: Floats, centre: Triple, semi: Triple) -> Floats:
    """Approximate signed distance to an ellipsoid, negative inside."""
    axes = np.array(semi)[:, None]
    v = (p - np.array(centre)[:, None]) / axes
    level = np.sqrt((v**2).sum(axis=0))
    slope = np.sqrt(((v / axes) ** 2).sum(axis=0))
    out: Floats = level * (level - 1) / np.maximum(slope, 1e-9)
    return np.maximum(out, -min(semi))


def smooth_min(a: Floats, b: Floats, radius: float) -> Floats:
    """Minimum with a rounded crease, so that two shapes merge smoothly."""
    overlap = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.minimum(a, b) - overlap**2 * radius / 4


def excess(value: Floats) -> Floats:
    """Return the part of the value above 0."""
    return np.maximum(value, 0)


def both_sides(p: Floats) -> Floats:
    """Mirror the left half of the head onto the right."""
    return np.stack([np.abs(p[0]), p[1], p[2]])


def paint(image: Floats, distance: Floats, value: Floats | float, edge: float = EDGE_MM) -> None:
    """Paint `value` on the image where the signed distance is negative."""
    image += np.clip(0.5 - distance / edge, 0, 1) * (value - image)


def paint_part(
    mask: npt.NDArray[np.bool_],
    painter: Callable[..., None],
    image: Floats,
    *fields: Floats,
) -> None:
    """Run a painter on the masked points only, since most structures are small."""
    some = np.flatnonzero(mask)
    part = image[some]
    painter(part, *(field[..., some] for field in fields))
    image[some] = part


class Head:
    """The intensity of the head at any point.

    The painters run from the outside to the inside; each one covers the tissue that it replaces.
    """

    def __init__(self) -> None:
        """Draw the random fields and the tubes once for all scans."""
        self.folds, self.small_folds = BandNoise(25, 1), BandNoise(16, 2)
        self.slow, self.slower = BandNoise(52, 3), BandNoise(90, 4)
        self.grain = BandNoise(8, 5)
        self.ventricles, self.stem = Tubes(VENTRICLES, 14), Tubes(BRAIN_STEM, 30)
        self.sinuses, self.eye_strings = Tubes(SINUSES, 8), Tubes(EYE_STRINGS, 8)
        self.vessels = Tubes((VESSELS[0] + small_veins(), VESSELS[1]), 5)

    def intensity(self, p: Floats) -> Floats:
        """Intensity at the points p, a (3, n) array in mm; air is exactly 0."""
        image = np.zeros(p.shape[1])
        paint_part(ellipsoid(p, (0, 0, -25), (98, 116, 112)) < 0, self._whole, image, p)
        return image

    def _whole(self, image: Floats, p: Floats) -> None:
        p = self.slower.displaced(p, 1.3)
        cerebrum, cerebellum = self._outlines(p)
        case = smooth_min(cerebrum, cerebellum, 14)
        case = smooth_min(case, ellipsoid(p, (0, -38, -70), (11, 13, 60)), 8) - 1.9
        self._soft_parts(image, p, case)
        paint_part(case < EDGE_MM, self._brain, image, p, case, cerebrum, cerebellum)
        image *= 1 + 0.035 * self.slower.value(p[::-1]) + 0.0007 * p[1] + 0.0006 * p[2]
        np.minimum(image, CLEAN_MAXIMUM, out=image)

    @staticmethod
    def _outlines(p: Floats) -> tuple[Floats, Floats]:
        """Signed distances to the smooth outlines of cerebrum and cerebellum."""
        widen = 1 + 0.0008 * (p[1] + 25) - 0.15 * ((p[1] + 8) / 84) ** 2
        egg = np.stack([p[0] * widen, p[1], p[2]])
        upper, lower = (ellipsoid(egg, (0, -8, 6), (66, 84, height)) for height in (57, 29))
        temporal = ellipsoid(both_sides(p), (41, -10, -17), (22, 40, 20))
        cerebrum = smooth_min(np.where(p[2] > 6, upper, lower), temporal, 8)
        lobes = ellipsoid(both_sides(p), (21, -63, -37), (29, 25, 20))
        cerebellum = smooth_min(lobes, ellipsoid(p, (0, -62, -36), (13, 23, 22)), 6)
        return cerebrum, np.maximum(cerebellum, 1.8 - cerebrum)

    def _soft_parts(self, image: Floats, p: Floats, case: Floats) -> None:
        """Skull, scalp, face and neck."""
        mirror = both_sides(p)
        x, y, z = mirror
        grain, slow = self.grain.value(p), self.slow.value(p)
        temple = np.exp(-(((y - 16) / 26) ** 2) - ((z + 2) / 24) ** 2) * excess(x / 60 - 0.5)
        skin = case - 12.5 - 7 * temple - 0.6 * slow
        skin = smooth_min(skin, ellipsoid(p, (0, 36, -58), (58, 52, 62)), 16)  # face
        skin = smooth_min(skin, ellipsoid(p, (0, -36, -100), (60, 60, 80)), 16)  # neck
        skin = smooth_min(skin, ellipsoid(p, (0, 88, -48), (12, 14, 19)), 9)  # nose
        skin = smooth_min(skin, ellipsoid(mirror, (77, -14, -28), (6, 11, 17)), 4)  # ears
        paint(image, skin, SKIN)
        paint(image, skin + 1.8, FAT + 5 * grain + 25 * slow)
        septa = self.folds.sheet_distance(p * np.array([[1.1], [0.9], [0.45]]))
        deep = np.maximum(np.maximum(skin + 6 + 1.5 * slow, 8.5 - case), z + 18)
        muscle = np.minimum(deep, np.maximum(0.25 - temple, skin + 4.5))
        paint(image, np.maximum(muscle, 0.7 - septa), MUSCLE + 5 * grain)
        paint_part((y > -5) & (z < 20) & (case > 0), self._face, image, p)

        thickness = 6.0 + 0.9 * slow + 0.015 * excess(-y - 40)
        paint(image, np.maximum(case - thickness, skin + 3.5), BONE)
        marrow = np.abs(case - 0.5 * thickness) - (0.5 * thickness - 1.9)
        paint(image, np.maximum(marrow, skin + 5), MARROW + 15 * grain)
        petrous = np.maximum(ellipsoid(mirror, (44, -24, -40), (24, 11, 10)), skin + 6)
        paint(image, petrous, BONE + 25)
        paint(image, np.maximum(petrous + 1.5, 0.4 - grain), 10)  # air cells

    def _face(self, image: Floats, p: Floats) -> None:
        """Orbits with eyes, and the air-filled cavities behind the nose."""
        mirror = both_sides(p)
        orbit = ellipsoid(mirror, (29, 50, -36), (17, 27, 16))
        paint(image, np.maximum(orbit - 2, 12 - p[1]), BONE)
        paint(image, orbit, FAT + 5 * self.grain.value(p))
        paint(image, self.eye_strings.distance(p), GREY)
        globe = ellipsoid(mirror, (31, 65, -36), (12, 12, 12))
        paint(image, globe, SKIN)
        paint(image, globe + 1.4, CSF)
        paint(image, ellipsoid(mirror, (31, 73, -36), (4.6, 2.2, 4.6)), GREY)  # lens
        cavity = ellipsoid(mirror, (27, 54, -66), (13, 15, 13))  # maxillary
        for centre, semi in (((8, 71, -12), (8, 4, 7)), ((7, 26, -40), (6.5, 11, 8))):
            cavity = np.minimum(cavity, ellipsoid(mirror, centre, semi))
        nose = ellipsoid(mirror, (7, 60, -52), (6.5, 32, 24))
        paint(image, cavity - 1.6, BONE)
        paint(image, np.minimum(cavity - 0.5, nose), SKIN)
        turbinates = np.abs(np.mod(p[2] + 0.5 * mirror[0], 11) - 5.5) - 3.2
        airway = np.maximum(nose + 1, np.minimum(turbinates, 3 - mirror[0]))
        paint(image, np.minimum(cavity, airway), 0)

    def _brain(self, image: Floats, p: Floats, case: Floats, cerebrum: Floats, cerebellum: Floats) -> None:
        """Everything inside the brain case, with a soft edge."""
        x, y, z = both_sides(p)
        brain = np.full(p.shape[1], CSF)
        paint(brain, np.maximum(x - 0.4, 24 - np.hypot(y + 8, z)), DURA)  # falx
        paint(brain, np.maximum(np.abs(cerebrum - 0.9) - 0.5, y + 30), DURA)  # tentorium
        paint(brain, self.stem.distance(p), WHITE - 30 + 4 * self.grain.value(p))
        paint_part(cerebellum < 2, self._cerebellum, brain, p, cerebellum)
        paint_part(cerebrum < 2, self._cerebrum, brain, p, cerebrum)
        paint_part((x < 50) & (np.abs(y + 8) < 70) & (np.abs(z) < 36), self._core, brain, p)
        paint(brain, np.minimum(self.sinuses.distance(p), self.vessels.distance(p)), VESSEL)
        paint(image, case, brain)

    def _cerebrum(self, image: Floats, p: Floats, hull: Floats) -> None:
        """Folded cortex: sulci are the zero sheets of a random field, stretched radially."""
        x, y, z = both_sides(p)
        depth = -np.maximum(hull, 0.8 - x)
        axis = np.stack([22 * np.sign(p[0]), np.clip(y, -46, 30), np.full_like(y, 6)])
        spoke = p - axis
        stretch = (40 / np.maximum(np.sqrt((spoke**2).sum(axis=0)), 30)) ** 0.7
        onto = axis + spoke * stretch
        slow, grain = self.slow.value(onto), self.grain.value(p)
        main = self.folds.sheet_distance(onto) / stretch
        main = np.hypot(main, excess(depth - 16 - 4.5 * slow))
        minor = self.small_folds.sheet_distance(onto) / stretch
        minor = np.hypot(minor, excess(depth - 3.5 + 3.5 * slow)) + 0.2
        sylvian = np.hypot((z + 2 + 0.4 * (y - 10) + 5 * slow) / 1.1, excess(35 - x))
        sylvian = np.hypot(sylvian, excess(-44 - y) + excess(y - 34)) - 0.4
        sulcus = np.minimum(np.minimum(main, minor), sylvian)
        gap = 0.25 + 0.7 * np.exp(-excess(depth) / 4)
        inward = smooth_min(depth, sulcus - gap, 2.5)
        # A patch of fine stripes: texture that a denoiser easily removes.
        stripes = np.sin(2 * np.pi * (0.6 * p[0] + 0.55 * y + 0.58 * z) / 5)
        from_patch = np.linalg.norm(p - np.array([[36], [-66], [8]]), axis=0)
        stripes *= np.exp(-((from_patch / 23) ** 6))
        paint(image, -inward, GREY + 16 * slow + 4 * grain + 120 * stripes)
        white = WHITE + 14 * slow - 0.4 * excess(20 - z) + 50 * stripes
        paint(image, 2.1 + 0.3 * slow - inward, white, 1.2)

    def _cerebellum(self, image: Floats, p: Floats, hull: Floats) -> None:
        """Lobules around the fourth ventricle, each with fine folia on a white branch."""
        mirror = both_sides(p)
        x, y, z = mirror
        radius = np.hypot(y + 44, z + 34)
        turn = np.arctan2(z + 34, -(y + 44)) / (2 * np.pi)
        turn = turn + 0.03 * self.slow.value(p) + 0.003 * x + 0.004 * radius
        fissure = np.abs(np.mod(turn * 17, 1) - 0.5) * 2 * np.pi * radius / 17
        inward = smooth_min(-hull, np.hypot(fissure, excess(-hull - 15)) - 0.5, 2)
        folia = np.cos(2 * np.pi * 51 * turn) * np.clip(radius / 12 - 1, 0, 1)
        paint(image, -inward, GREY - 20 - 120 * excess(folia) ** 2)
        paint(image, 2.9 + 0.5 * folia - inward, WHITE - 30)
        dentate = np.abs(ellipsoid(mirror, (14, -54, -36), (7, 8, 5)) + folia) - 0.7
        paint(image, dentate, GREY + 60)

    def _core(self, image: Floats, p: Floats) -> None:
        """Corpus callosum, deep grey nuclei and ventricles."""
        p = self.small_folds.displaced(p, 0.9)
        mirror = both_sides(p)
        x, y, z = mirror
        grain, slow = self.grain.value(p), self.slow.value(p)
        body = ellipsoid(mirror, (0, -8, 0), (24, 36, 24))
        paint(image, np.maximum(body, -6 - z), WHITE)
        fan = np.stack([np.zeros_like(x), (y + 8) / (1 + 0.0025 * x**2) - 8, z])
        arch = np.abs(ellipsoid(fan, (0, -8, 0), (1, 36, 24)) + 3) - 3
        paint(image, np.maximum(np.maximum(arch, x - 14), 1 - z), WHITE + 35, 2)
        for centre, semi, lift in NUCLEI:
            value = GREY + lift + 4 * grain + 14 * slow
            paint(image, ellipsoid(mirror, centre, semi), value, 2)
        claustrum = np.abs(ellipsoid(mirror, (27, 3, 2), (8, 20, 13))) - 0.5
        paint(image, np.maximum(claustrum, 30 - x), GREY + 40)
        third, fourth = ((0, -12, 0), (2, 16, 9)), ((0, -43, -32), (6, 4, 9))
        hollow = self.ventricles.distance(p)
        for centre, semi in (third, fourth):
            hollow = np.minimum(hollow, ellipsoid(mirror, centre, semi))
        septum = 0.7 - x - excess(8 - z)
        paint(image, np.maximum(hollow, septum), CSF - 25)
        paint(image, ellipsoid(mirror, (22, -38, 9), (2, 5, 2.5)), GREY + 60 * grain)  # plexus


def sample_clean(head: Head, scan: Scan) -> Voxels:
    """Noise-free scan: block means of the head, as integers from 0 to CLEAN_MAXIMUM."""
    shape, fine = (*scan.shape, 1)[:3], scan.supersampling
    axes = [
        start + step * ((np.arange(count * n) + 0.5) / n - 0.5)
        for start, step, count, n in zip(scan.affine[:3, 3], scan.voxel_mm, shape, fine, strict=True)
    ]
    volume = np.empty(shape)
    for k, z in enumerate(axes[2].reshape(shape[2], fine[2])):
        points = np.stack([c.ravel() for c in np.meshgrid(axes[0], axes[1], z, indexing="ij")])
        blocks = head.intensity(points).reshape(shape[0], fine[0], shape[1], fine[1], fine[2])
        volume[:, :, k] = blocks.mean(axis=(1, 3, 4))
    voxels: Voxels = np.rint(volume.reshape(scan.shape)).astype(np.int16)
    return voxels


def add_rician(clean: Voxels, scan: Scan) -> Voxels:
    """Magnitude of the clean signal with Gaussian noise in both channels of the receiver."""
    rng = np.random.Generator(np.random.PCG64(scan.seed))
    real, imaginary = scan.sigma * rng.standard_normal((2, *clean.shape))
    voxels: Voxels = np.rint(np.hypot(clean + real, imaginary)).astype(np.int16)
    return voxels


def save(path: Path, voxels: npt.NDArray[Any], affine: Floats, description: str) -> None:
    """Write a gzipped NIfTI-1 file whose bytes depend only on its contents."""
    image = NIFTI.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(image.to_bytes())


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description="Make the sample data of nlmeans.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to fill")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    head, truth = Head(), {}
    for scan in SCANS:
        clean = sample_clean(head, scan)
        noise = f"Rician sigma {scan.sigma:g} seed {scan.seed}"
        files = {
            f"{scan.name}_clean.nii.gz": (clean, "no noise, sigma 0"),
            f"{scan.name}.nii.gz": (add_rician(clean, scan), noise),
        }
        for name, (voxels, text) in files.items():
            save(out / name, voxels, scan.affine, f"nlmeans phantom, {scan.label}: {text}")
        truth[f"{scan.name}.nii.gz"] = {
            "clean": f"{scan.name}_clean.nii.gz",
            "noise": "rician",
            "sigma": scan.sigma,
            "seed": scan.seed,
            "voxel_mm": scan.voxel_mm[: len(scan.shape)],
        }
    for phantom in modalities.PHANTOMS:
        clean = phantom.sample_clean()
        about = f"nlmeans phantom, {phantom.label}"
        save(out / f"{phantom.name}_clean.nii.gz", clean, phantom.affine, f"{about}: no noise, sigma 0")
        noisy = phantom.add_noise(clean)
        save(out / f"{phantom.name}.nii.gz", noisy, phantom.affine, f"{about}: {phantom.noise_in_words}")
        truth[f"{phantom.name}.nii.gz"] = {
            "clean": f"{phantom.name}_clean.nii.gz",
            **phantom.truth,
            "seed": phantom.seed,
            "voxel_mm": phantom.voxel_mm,
        }
    (out / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
