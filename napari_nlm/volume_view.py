"""One volume of an array, read only where the engine slices it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nlmeans.core.arrays import Sliced, chunks

LayerArray = npt.NDArray[Any]


class VolumeView(Sliced):
    """One volume of an array that need not be in memory. Making the view reads nothing.

    Args:
        array: gives numpy arrays when sliced.
        at: one index per axis of the array. A number picks the volume along that axis; a slice with start and stop is
            an axis of the volume.
    """

    def __init__(self, array: Any, at: Sequence[int | slice]) -> None:
        self.array, self.at = array, tuple(at)
        self.shape = tuple(side.stop - side.start for side in self.at if isinstance(side, slice))
        self.ndim = len(self.shape)
        self.dtype = np.dtype(array.dtype)
        stored = stored_chunks(array)
        self.chunks = stored and tuple(n for n, side in zip(stored, self.at, strict=True) if isinstance(side, slice))

    def __getitem__(self, key: tuple[slice, ...]) -> LayerArray:
        parts = iter(key)
        index = tuple(side if isinstance(side, int) else shifted_by(next(parts), side) for side in self.at)
        return np.asarray(self.array[index])


def stored_chunks(array: Any) -> tuple[int, ...] | None:
    """Shape of the chunks of an array; of dask's, whose chunks may differ, that of the largest. None if it has none."""
    return chunks(array) or getattr(array, "chunksize", None)


def shifted_by(part: slice, side: slice) -> slice:
    """`part` of an axis that is itself the `side` of a longer axis.

    >>> shifted_by(slice(2, None), slice(10, 20))
    slice(12, 20, None)
    """
    inside = range(side.start, side.stop)[part]
    return slice(inside.start, inside.stop)


def view_of_volume(array: Any, at: Sequence[int | slice]) -> LayerArray | VolumeView:
    """A numpy view if the array is one of numpy, else a `VolumeView`."""
    return np.asarray(array[tuple(at)]) if isinstance(array, np.ndarray) else VolumeView(array, at)


def read_all(view: LayerArray | VolumeView) -> LayerArray:
    """All of a volume, in memory."""
    return view if isinstance(view, np.ndarray) else view[(slice(None),) * view.ndim]
