"""Filters that the benchmarks compare, and their input arrays."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import nlmeans
from nlmeans.files import samples
from nlmeans.methods.registry import single_methods

NOISE = 15.0  # standard deviation, in grey values from 0 to 255
H = 0.8 * NOISE
FULL_BYTES = 4e9  # `full` runs if its tensors are smaller


@dataclass(frozen=True)
class Case:
    """Shape of a volume (or of an image, if it has two axes) and the radii; None if each method has its own."""

    shape: tuple[int, ...]
    patch_radius: int | None = None
    search_radius: int | None = None

    @property
    def pairs(self) -> int:
        """Voxels × voxels of the search window."""
        return math.prod(self.shape) * (2 * (self.search_radius or 0) + 1) ** len(self.shape)

    @property
    def steps(self) -> int:
        """Steps of a filter that visits every voxel of the patch for every pair."""
        return self.pairs * (2 * (self.patch_radius or 0) + 1) ** len(self.shape)

    @property
    def sigma(self) -> float:
        """Sigma whose expected distance is subtracted; OpenCV and the pixelwise filter subtract nothing."""
        return 0.0 if self.patch_radius == 0 or len(self.shape) == 2 else NOISE


@functools.lru_cache(maxsize=4)
def noisy(shape: tuple[int, ...]) -> np.ndarray:
    """Mirror the head phantom to any size and add Gaussian noise: float32; an image has whole grey values."""
    clean = np.asarray(nib.load(samples.path("slice_clean" if len(shape) == 2 else "head_clean")).dataobj, np.float32)
    before = [max(0, n - have) // 2 for n, have in zip(shape, clean.shape, strict=True)]
    after = [max(0, n - have) - b for n, have, b in zip(shape, clean.shape, before, strict=True)]
    clean = np.pad(clean * (255 / 1000), list(zip(before, after, strict=True)), mode="symmetric")
    middle = tuple(slice((have - n) // 2, (have - n) // 2 + n) for n, have in zip(shape, clean.shape, strict=True))
    values = clean[middle] + NOISE * np.random.default_rng(0).standard_normal(shape, np.float32)
    return values if len(shape) == 3 else np.clip(np.rint(values), 0, 255)


def input_of(case: Case) -> np.ndarray:
    """Make the input of all contenders; it is smoothed first for the pixelwise filter, as in torch_nlm."""
    values = noisy(case.shape)
    if case.patch_radius != 0:
        return values
    padded = F.pad(torch.from_numpy(values)[None, None], (1,) * 6, mode="reflect")
    return F.avg_pool3d(padded, 3, stride=1)[0, 0].numpy()


@dataclass(frozen=True)
class Contender:
    """Filter to compare; `run` takes the prepared array, the case and the number of threads."""

    run: Callable[[Any, Case, int], Any]
    package: str = "nlmeans"
    device: str = "cpu"
    takes: Callable[[Case], bool] = lambda case: True
    note: str = ""

    def runs(self, case: Case) -> bool:
        installed = importlib.util.find_spec(self.package) is not None
        return installed and (self.device == "cpu" or torch.cuda.is_available()) and self.takes(case)

    def prepare(self, values: np.ndarray) -> Any:
        if self.package == "cv2":
            return values.astype(np.uint8)
        return values if self.device == "cpu" else torch.from_numpy(values).to(self.device)


def ours(backend: str) -> Callable[[Any, Case, int], Any]:
    def run(values: Any, case: Case, threads: int) -> Any:
        return nlmeans.nonlocal_means(
            values,
            H,
            sigma=case.sigma,
            patch_radius=case.patch_radius or 0,
            search_radius=case.search_radius or 0,
            backend=backend,
        )

    return run


def our_method(method: str) -> Callable[[Any, Case, int], Any]:
    return lambda values, case, threads: nlmeans.denoise(values, NOISE, method=method)


def scikit_image(fast: bool) -> Callable[[Any, Case, int], Any]:
    def run(values: np.ndarray, case: Case, threads: int) -> np.ndarray:
        from skimage.restoration import denoise_nl_means

        size = 2 * case.patch_radius + 1
        return denoise_nl_means(values, size, case.search_radius, H, sigma=case.sigma, fast_mode=fast)

    return run


def dipy(method: str) -> Callable[[Any, Case, int], Any]:
    def run(values: np.ndarray, case: Case, threads: int) -> np.ndarray:
        from dipy.denoise.nlmeans import nlmeans

        # the classic method keeps its patches inside the block, so its window is smaller by the patch radius
        radius = case.search_radius + (case.patch_radius if method == "classic" else 0)
        options: dict[str, Any] = {"patch_radius": case.patch_radius, "block_radius": radius, "rician": False}
        return nlmeans(values, NOISE, method=method, num_threads=threads, **options)

    return run


def opencv(values: np.ndarray, case: Case, threads: int) -> np.ndarray:
    import cv2

    cv2.setNumThreads(threads)
    return cv2.fastNlMeansDenoising(values, None, H, 2 * case.patch_radius + 1, 2 * case.search_radius + 1)


def bm4d(values: np.ndarray, case: Case, threads: int) -> np.ndarray:
    from bm4d import BM4DProfile, bm4d

    profile = BM4DProfile()
    profile.num_threads = threads
    return bm4d(values, NOISE, profile)


def ants(values: np.ndarray, case: Case, threads: int) -> np.ndarray:
    import ants

    image = ants.from_numpy(values)
    return ants.denoise_image(image, p=case.patch_radius, r=case.search_radius, noise_model="Gaussian").numpy()


def torch_loop(values: np.ndarray | Tensor, case: Case, threads: int) -> Tensor:
    """Compute pixelwise non-local means by its definition, one offset at a time, with whole-volume operations."""
    volume, radius = torch.as_tensor(values), case.search_radius or 0
    padded = F.pad(volume[None, None], (radius,) * 6, mode="reflect")[0, 0]
    weighted, total = torch.zeros_like(volume), torch.zeros_like(volume)
    for z, y, x in itertools.product(range(2 * radius + 1), repeat=3):
        d, h, w = volume.shape
        other = padded[z : z + d, y : y + h, x : x + w]
        weight = torch.exp(-((volume - other) ** 2) / H**2)
        weighted += weight * other
        total += weight
    return weighted / total


CONTENDERS = {
    "nlmeans cpu": Contender(ours("cpu")),
    "nlmeans gpu": Contender(ours("gpu"), device="cuda", note="array already on the card"),
    "nlmeans loop": Contender(ours("loop"), note="plain torch"),
    "nlmeans full": Contender(ours("full"), takes=lambda case: 36 * case.pairs < FULL_BYTES, note="plain torch"),
    "scikit-image fast": Contender(scikit_image(True), "skimage", note="one thread; patches 2r wide, not 2r + 1"),
    "scikit-image slow": Contender(
        scikit_image(False), "skimage", takes=lambda case: case.steps < 1e10, note="one thread; Gaussian patches"
    ),
    "DIPY classic": Contender(dipy("classic"), "dipy", takes=lambda case: case.steps < 5e10, note="other weights"),
    "DIPY blockwise": Contender(dipy("blockwise"), "dipy", note="another, cheaper algorithm"),
    "ANTs": Contender(ants, "ants", note="DenoiseImage, another algorithm"),
    "OpenCV": Contender(opencv, "cv2", note="uint8"),
    "torch offset loop": Contender(torch_loop, "torch", note="as torch_nlm"),
    "torch offset loop, CUDA": Contender(torch_loop, "torch", device="cuda", note="as torch_nlm"),
    "BM4D": Contender(bm4d, "bm4d", note="another method"),
    **{f"denoise {name}": Contender(our_method(name)) for name in single_methods()},
}
OURS_3D = ["nlmeans cpu", "nlmeans gpu", "nlmeans loop", "nlmeans full"]
PEERS_3D = ["scikit-image fast", "scikit-image slow", "DIPY classic", "DIPY blockwise", "ANTs"]
