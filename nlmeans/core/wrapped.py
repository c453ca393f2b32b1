"""Images of nibabel, SimpleITK and xarray: their voxels, the size of these, and how a result becomes such an image.

None of these packages is imported here. Whoever passes an image has imported the package that it comes from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]

EVEN = 1e-3
"""Largest relative difference between steps of a coordinate that count as equal."""


class Wrapped(NamedTuple):
    """An image taken apart."""

    values: Any
    """Its voxels, an array."""
    spacing: tuple[float, ...] | None
    """Voxel size along the spatial axes; None if it is not known."""
    series: int | None
    """The axis of volumes, where the kind of image says that there is one."""
    names: tuple[str, ...]
    """Names of the axes, if they have names."""
    wrap: Callable[..., Any]
    """Make an image of a result, where the image lies. ``without=`` is the axis of volumes that a map lacks."""
    wrap_slice: Callable[[Any, int, int], Any]
    """Make an image of one slice of a result, where this slice lies, from the slice, its axis and its number."""
    place: Any
    """Where the image lies, as an array that can be compared; None if it is not known."""
    modality: str | None = None
    """DICOM's code of what made the image, where it is known."""

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Complete the arguments of denoising: axes by number, and the voxel size of the image.

        Raises:
            ValueError: an axis is named that the image does not have.
        """
        found = dict(given)
        for key in ("channels", "series"):
            if isinstance(found.get(key), str):
                if found[key] not in self.names:
                    raise ValueError(f"{key}={found[key]!r} is no axis of the volume, whose axes are {self.names}")
                found[key] = self.names.index(found[key])
        if found.get("channels") is None and found.get("series") is None:
            found["series"] = self.series
        if found.get("modality") is None and self.modality is not None:
            found["modality"] = self.modality
        if "spacing" not in found and self.spacing is not None:
            others = {axis % self.values.ndim for key in ("channels", "series") if (axis := found.get(key)) is not None}
            spatial = [axis for axis in range(self.values.ndim) if axis not in others]
            sizes = [self.spacing[axis] for axis in spatial]
            found["spacing"] = tuple(sizes) if all(size > 0 for size in sizes) else None
        return found


def taken_apart(image: object) -> Wrapped | None:
    """Take an image of another package apart; None if it is an array or anything else."""
    homes = {kind.__module__.partition(".")[0] for kind in type(image).__mro__}
    found: Any = image
    if "xarray" in homes and isinstance(image, sys.modules["xarray"].DataArray):
        return of_xarray(found)
    if "SimpleITK" in homes and isinstance(image, sys.modules["SimpleITK"].Image):
        return of_itk(found)
    if "nibabel" in homes and isinstance(image, sys.modules["nibabel"].spatialimages.SpatialImage):
        return of_nibabel(found)
    return None


def beside(array: Any, image: Wrapped, name: str) -> Any:
    """Return the voxels of a mask or map that goes with an image; anything but an image of a package is left as it is.

    Raises:
        ValueError: it lies elsewhere, or has other axes.
    """
    other = taken_apart(array)
    if other is None:
        return array
    if image.names and other.names:
        order = [axis for axis in image.names if axis in other.names]
        if len(order) != len(other.names):
            raise ValueError(f"{name} has the axes {other.names}, but the volume has {image.names}; rename them")
        return other.values.transpose([other.names.index(axis) for axis in order])
    there, here = other.place, image.place
    if (
        there is not None
        and here is not None
        and not (there.shape == here.shape and np.allclose(there, here, rtol=1e-4, atol=1e-2))
    ):
        raise ValueError(
            f"{name} lies elsewhere than the volume, or is stored in another orientation; resample it first"
        )
    return other.values


def of_xarray(image: Any) -> Wrapped:
    """A ``DataArray``: dims, coords, name and attributes stay."""
    steps = tuple(step_of(image.coords[name].values) if name in image.coords else 0.0 for name in image.dims)

    def wrap(result: Any, without: int | None = None) -> Any:
        place = image if without is None else image.isel({image.dims[without]: 0}, drop=True)
        return place.copy(data=result)

    def wrap_slice(result: Any, axis: int, index: int) -> Any:
        return image.isel({image.dims[axis]: index}).copy(data=result)

    return Wrapped(image.data, steps, None, tuple(map(str, image.dims)), wrap, wrap_slice, None)


def step_of(places: Values) -> float:
    """The even step of a coordinate; 0 if it has none.

    >>> step_of(np.array([0.0, 0.5, 1.0])), step_of(np.array([0, 1, 5])), step_of(np.array(["a", "b"]))
    (0.5, 0.0, 0.0)
    """
    if places.ndim != 1 or len(places) < 2 or places.dtype.kind not in "iuf":
        return 0.0
    steps = np.abs(np.diff(places.astype(np.float64)))
    return float(steps.mean()) if np.ptp(steps) <= EVEN * steps.mean() else 0.0


def of_itk(image: Any) -> Wrapped:
    """An ``Image`` of SimpleITK, whose array has the axes (z, y, x), with components last and times first."""
    sitk = sys.modules["SimpleITK"]
    dimensions, parts = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    sizes = image.GetSpacing()[::-1] + (1.0,) * (parts > 1)

    def as_image(result: Values, where: Any, vectors: bool) -> Any:
        made = sitk.GetImageFromArray(np.ascontiguousarray(result), isVector=vectors)
        made.CopyInformation(where)
        for key in image.GetMetaDataKeys():
            made.SetMetaData(key, image.GetMetaData(key))
        return made

    def wrap(result: Values, without: int | None = None) -> Any:
        where = image[..., 0] if dimensions == 4 and without is not None else image
        return as_image(result, where, parts > 1 and without is None)

    def wrap_slice(result: Values, axis: int, index: int) -> Any:
        box = [slice(index, index + 1) if number == axis else slice(None) for number in range(dimensions)]
        return as_image(np.expand_dims(result, axis), image[tuple(box[::-1])], parts > 1)

    place = np.array([*image.GetSpacing()[:3], *image.GetOrigin()[:3], *np.ravel(spatial_direction(image))])
    series = 0 if dimensions == 4 else dimensions if parts > 1 else None
    return Wrapped(sitk.GetArrayFromImage(image), sizes, series, (), wrap, wrap_slice, place)


def spatial_direction(image: Any) -> Values:
    """The directions of the spatial axes of an ``Image`` of SimpleITK."""
    dimensions = image.GetDimension()
    spatial = min(dimensions, 3)
    return np.reshape(image.GetDirection(), (dimensions, dimensions))[:spatial, :spatial]


def of_nibabel(image: Any) -> Wrapped:
    """An image of nibabel, whose fourth axis counts volumes. What `load_image` read of DICOM says what made it."""
    values = with_volumes_last(np.asarray(image.dataobj))
    zooms = tuple(float(size) for size in image.header.get_zooms())

    def as_image(result: Values, where: Any) -> Any:
        made = type(image)(result, where.affine, where.header, extra=image.extra)
        made.set_data_dtype(result.dtype)
        return made

    def wrap(result: Values, without: int | None = None) -> Any:
        return as_image(result.reshape(image.shape) if without is None else result, image)

    def wrap_slice(result: Values, axis: int, index: int) -> Any:
        box = tuple(slice(index, index + 1) if number == axis else slice(None) for number in range(values.ndim))
        return as_image(np.expand_dims(result, axis), image.slicer[box])

    place, modality = np.asarray(image.affine), (image.extra or {}).get("modality")
    return Wrapped(values, zooms, 3 if values.ndim == 4 else None, (), wrap, wrap_slice, place, modality)


def with_volumes_last(values: Values) -> Values:
    """Values of NIfTI with four axes at most: the fourth counts volumes, those of all echoes.

    >>> with_volumes_last(np.ones((5, 6, 7, 1, 1))).shape, with_volumes_last(np.ones((5, 6, 7, 3, 2))).shape
    ((5, 6, 7, 1), (5, 6, 7, 6))
    """
    while values.ndim > 4 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 5 and values.shape[3] > 1:  # with one volume, the last axis is a vector
        values = values.reshape(*values.shape[:3], -1)
    return values
