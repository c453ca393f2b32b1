"""Small images with noise of a known level."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from napari.layers import Image

from napari_nlm.geometry import View
from napari_nlm.pictures import Picture
from tests.nlmeans.volumes import decaying_series

SIGMA = 8.0

ORIENTATIONS: dict[str, dict[str, Any]] = {
    "RAS": {"scale": (3.0, 1.0, 1.5), "translate": (-10.0, 5.0, 7.0)},
    "LPS": {"scale": (-3.0, -1.0, -1.5), "translate": (40.0, 25.0, 33.0)},
    "sagittal": {"scale": (1.5, -3.0, -1.0), "translate": (2.0, 80.0, 9.0)},
    "oblique": {
        "affine": np.array([[2.9, -0.3, 0.2, 5], [0.4, 1.1, -0.2, 0], [-0.3, 0.2, 1.4, -8], [0, 0, 0, 1]]),
    },
}
"""Places of volumes: no axis flipped, all flipped, some flipped, and rotated out of every slice."""


def volume(*shape: int, seed: int = 0, dtype: str = "float32") -> npt.NDArray[Any]:
    """A bright box away from the middle, on a dark ground, with noise."""
    clean = np.full(shape or (16, 24, 28), 60.0)
    clean[tuple(slice(n // 4, n // 2) for n in clean.shape)] = 160
    noise = SIGMA * np.random.default_rng(seed).standard_normal(clean.shape)
    return (clean + noise).astype(dtype)


def series() -> Any:
    """Three volumes, each with more noise than the one before."""
    return np.stack([volume(10, 16, 18, seed=seed) * (1 + seed) for seed in range(3)])


def decay(volumes: int = 8) -> npt.NDArray[np.float32]:
    """Volumes of 12 × 13 × 14 voxels that have much in common, (V, D, H, W)."""
    return np.ascontiguousarray(np.moveaxis(decaying_series(volumes, SIGMA)[1], -1, 0))


class CountedChunks:
    """A dask array that notes which of its chunks are computed.

    Args:
        shape: of the array, (D, H, W).
        chunks: of each of its chunks.
    """

    def __init__(self, shape: tuple[int, int, int], chunks: tuple[int, int, int]) -> None:
        self.read: list[tuple[int, ...]] = []
        self.shape, self.chunks = shape, chunks

        def one(block_info: Any = None) -> Any:
            place = block_info[None]["chunk-location"]
            self.read.append(tuple(place))
            size = block_info[None]["chunk-shape"]
            noise = np.random.default_rng(list(place)).standard_normal(size)
            return (100 + SIGMA * noise).astype(np.float32)

        self.array = da.map_blocks(
            one, chunks=da.core.normalize_chunks(chunks, shape), dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
        )

    @property
    def count(self) -> int:
        """How many chunks there are."""
        return int(np.prod(self.array.numblocks))


class Watched:
    """An array that records the sizes of the parts that were read."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.asked: list[int] = []
        self.shape, self.ndim, self.dtype, self.size = data.shape, data.ndim, data.dtype, data.size

    def __getitem__(self, index: Any) -> Any:
        part = self.data[index]
        self.asked.append(np.asarray(part).size)
        return part


def picture(layer: Image, cut: float = 0.0) -> Picture:
    """A slice of `volume`, from which something was taken."""
    box = (slice(3, 4), slice(0, 24), slice(0, 28))
    before = layer.data[box]
    return Picture(layer, View((1, 2), box, False), before, before - cut, SIGMA)
