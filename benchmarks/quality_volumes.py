"""Clean volumes of the quality benchmark, and the noise added to them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from nlmeans.files import samples

Volume = np.ndarray[tuple[int, ...], np.dtype[Any]]

LARGEST = 112
"""Voxels per axis, cut from the middle of a volume on the command line: BM4D takes a minute per million voxels."""

GIVEN = "given on the command line"

DARK = 10 / 255
"""Voxels brighter than this are in the mask."""


@dataclass(frozen=True)
class Carried:
    """Scan that an installed package contains, and the part of it that is used."""

    package: str
    file: str
    crop: tuple[slice | int, ...] = ()
    about: str = ""


EVERYTHING = slice(None)
CARRIED = {
    "MNI152": Carried(
        "nilearn",
        "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
        (slice(20, 84), slice(84, 156), slice(62, 102)),
        "T1 template of 152 heads, 1 mm: hardly any noise of its own",
    ),
    "diffusion b0": Carried(
        "dipy", "data/files/S0_10slices.nii.gz", (EVERYTHING, EVERYTHING, EVERYTHING, 0), "ten slices, with their noise"
    ),
    "example4d": Carried(
        "nibabel",
        "tests/data/example4d.nii.gz",
        (slice(16, 112), slice(10, 90), EVERYTHING, 0),
        "brain MR with its noise, the first of two volumes",
    ),
    "anatomical": Carried("nibabel", "tests/data/anatomical.nii", (), "brain MR of large voxels"),
    "CT slice": Carried("pydicom", "data/test_files/CT_small.dcm", (), "chest, one slice: 2D"),
    "diffusion series": Carried(
        "dipy", "data/files/small_64D.nii", (), "65 volumes of 10×10×10 voxels, with their noise: 4D"
    ),
}


@dataclass(frozen=True, eq=False)
class Scan:
    """Clean image, volume or (with four axes) series of volumes along the last axis; its maximum is 1."""

    name: str
    clean: Volume
    about: str
    spacing: tuple[float, ...] | None = None
    """Voxel size in mm along the spatial axes, if the file says it."""

    @property
    def mask(self) -> Volume:
        return self.clean > DARK


def scans(given: list[Path]) -> dict[str, Scan]:
    """Collect the phantoms, the scans in installed packages and the given files, by name."""
    found = [
        scan(
            "phantom", Path(samples.path("head_clean")), np.s_[12:76, 14:94, 18:58], "the head phantom of sample_data"
        ),
        scan("thick phantom", Path(samples.path("thick_clean")), np.s_[30:126, 40:152], "its 5 mm slices"),
    ]
    for name, carried in CARRIED.items():
        if (path := carried_path(carried)) is not None:
            found.append(scan(name, path, carried.crop, f"{carried.package}: {carried.about}"))
    for path in given:
        found.append(scan(path.name.removesuffix(".gz").removesuffix(".nii"), path, None, GIVEN))
    return {one.name: one for one in found}


def carried_path(carried: Carried) -> Path | None:
    """Find a scan in an installed package; None if it is not there."""
    spec = importlib.util.find_spec(carried.package)
    path = Path(spec.origin or "").parent / carried.file if spec else None
    return path if path and path.is_file() else None


def scan(name: str, path: Path, crop: tuple[slice | int, ...] | None, about: str) -> Scan:
    """Read a part of a file; None for its middle."""
    whole, spacing = read(path)
    if crop is None:
        firsts = [max(0, n - LARGEST) // 2 for n in whole.shape[:3]]
        crop = tuple(slice(first, first + LARGEST) for first in firsts)
    values = whole[crop]
    return Scan(name, np.ascontiguousarray(values / values.max()), about, spacing)


def read(path: Path) -> tuple[Volume, tuple[float, ...] | None]:
    """Read values and voxel size."""
    if path.suffix != ".dcm":
        image = nib.load(path)
        return np.asarray(image.dataobj, np.float32), tuple(map(float, image.header.get_zooms()[:3]))
    import pydicom

    pixels: Volume = pydicom.dcmread(path).pixel_array
    return pixels.astype(np.float32), None


@dataclass(frozen=True)
class Noise:
    """Kind and level of noise: sigma in per cent of the maximum, or the photons at the maximum ("poisson")."""

    kind: str
    level: float

    def __str__(self) -> str:
        return f"peak {self.level:g}" if self.kind == "poisson" else f"{self.level:g} %"


KINDS = {
    "gaussian": "Gaussian noise",
    "rician": "Rician noise: the magnitude of a complex signal with Gaussian noise in both parts",
    "poisson": "Poisson noise: a mean count of 10 or 100 at the brightest voxel",
    "ramp": "Gaussian noise that rises from 2 % to 8 % along the longest axis",
    "impulses": "Impulses: 3 % of the voxels take any value from 0 to the maximum, in addition to 3 % Gaussian noise",
}
NOISES = [
    *(Noise(kind, level) for kind in ("gaussian", "rician") for level in (1, 3, 5, 7, 9)),
    Noise("poisson", 10),
    Noise("poisson", 100),
    Noise("ramp", 5),
    Noise("impulses", 3),
]


@dataclass(frozen=True, eq=False)
class Case:
    """Scan with noise, and what is known about the noise."""

    scan: Scan
    noise: Noise
    noisy: Volume
    sigma: float
    """Standard deviation of the noise; root mean square for the ramp, 0 for Poisson noise."""
    sigma_map: Volume | None = None

    @property
    def gain(self) -> float:
        """Image units per photon."""
        return 1 / self.noise.level


def case(scan: Scan, noise: Noise, seed: int = 0) -> Case:
    random = np.random.default_rng(seed)
    clean, sigma = scan.clean, noise.level / 100
    sigma_map = None
    if noise.kind == "poisson":
        sigma = 0.0
        noisy = random.poisson(np.maximum(clean, 0) * noise.level) / noise.level
    elif noise.kind == "ramp":
        sigma_map = ramp(clean.shape)
        sigma = float(np.sqrt(np.mean(sigma_map**2)))
        noisy = clean + sigma_map * random.standard_normal(clean.shape)
    else:
        noisy = clean + sigma * random.standard_normal(clean.shape)
    if noise.kind == "rician":
        noisy = np.hypot(noisy, sigma * random.standard_normal(clean.shape))
    if noise.kind == "impulses":
        struck = random.random(clean.shape) < 0.03
        noisy = np.where(struck, random.random(clean.shape), noisy)
    return Case(scan, noise, noisy.astype(np.float32), sigma, sigma_map)


def ramp(shape: tuple[int, ...], low: float = 0.02, high: float = 0.08) -> Volume:
    axis = int(np.argmax(shape[:3]))
    line = np.linspace(low, high, shape[axis], dtype=np.float32)
    values: Volume = np.broadcast_to(np.expand_dims(line, [k for k in range(len(shape)) if k != axis]), shape)
    return np.ascontiguousarray(values)
