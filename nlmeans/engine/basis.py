"""What the signals of a whole series have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.tiles import Piece
from nlmeans.patches.low_rank.components import (
    LOCAL_PATCH,
    LOCAL_STEP,
    MOST_OF_NOISE,
    Common,
    common_components,
    components_of_patches,
    distinct_components,
    ends_of_patches,
    least_energy,
    products_of,
)
from nlmeans.patches.low_rank.places import PLACE_REACH, Places, components_of_places, places_of

Signals = Callable[[Piece], Tensor]
"""A function of a box. It returns its signals in units of sigma, (V, D, H, W)."""

SLAB_BYTES, MOST_BYTES = 24, 2**25
"""Working memory per voxel and volume of a slab, and how much memory to use if there is more."""


def shared_basis(signals: Signals, shape: Axes, volumes: int, autocovariance: Tensor | None, memory: int) -> Tensor:
    """Find the components that the signals of a series have: those of thousands of voxels, and those of a few.

    A patch has few voxels, so that it shows few components, and these not exactly. Many more stand out over all voxels.
    What these leave is searched place by place and patch by patch: a component of a few voxels, such as an activation,
    is not lost.

    Args:
        signals: reads them.
        shape: (D, H, W) of the series.
        volumes: how many the series has.
        autocovariance: of the noise within a volume, in units of sigma², with lag 0 in the middle; None for white.
        memory: bytes to work in. It does not change the result.

    Returns:
        (V, components), orthonormal, float64; none if V, the volumes that have noise, is 0.
    """
    planes = planes_of_slab(shape, volumes, memory)
    common = common_of([products_of(signals(box)) for box in slabs(shape, planes)], autocovariance)
    found = [
        local_components(signals(box), common, autocovariance, shape, box[0]) for box in slabs_of_patches(shape, planes)
    ]
    return with_local(common, found, shape)


def planes_of_slab(shape: Axes, volumes: int, memory: int) -> int:
    """Return how many planes to read at once."""
    return max(LOCAL_PATCH, int(min(memory, MOST_BYTES) / (SLAB_BYTES * volumes * shape[1] * shape[2])))


def slabs(shape: Axes, planes: int) -> Iterator[Piece]:
    """Cut a volume into slabs."""
    for first in range(0, shape[0], planes):
        yield slice(first, min(first + planes, shape[0])), slice(0, shape[1]), slice(0, shape[2])


def slabs_of_patches(shape: Axes, planes: int) -> Iterator[Piece]:
    """Cut a volume into slabs that overlap so that each patch, and what is around each voxel, lies in one of them,
    wherever they are cut."""
    first, stop = ends_of_patches(shape[0])
    step = max(planes - (LOCAL_PATCH - LOCAL_STEP), LOCAL_STEP) // LOCAL_STEP * LOCAL_STEP
    for start in range(first, max(stop - (LOCAL_PATCH - LOCAL_STEP), first + 1), step):
        end = start + step + LOCAL_PATCH - LOCAL_STEP
        last = shape[0] if end >= stop else min(end + OVERLAP - (LOCAL_PATCH - LOCAL_STEP), shape[0])
        yield slice(0 if start == first else start, last), slice(0, shape[1]), slice(0, shape[2])


OVERLAP = 2 * PLACE_REACH
"""Planes that slabs have in common, so that each voxel has its neighbours in one of them; patches need fewer."""


def planes_of_patches(slab: slice, length: int) -> slice:
    """Return the planes of a slab that its patches cover, counted from its first one."""
    first, stop = ends_of_patches(length)
    start, end = max(slab.start, first), min(slab.stop, stop)
    return slice(start - slab.start, end - max(end - start - LOCAL_PATCH, 0) % LOCAL_STEP - slab.start)


def common_of(seen: Sequence[tuple[Tensor, int]], autocovariance: Tensor | None, most: float = MOST_OF_NOISE) -> Common:
    """Return the components of all voxels, of what `products_of` saw in each slab.

    `most` is the largest variance of noise in units of the signals, see `common_components`.
    """
    alike = 1.0 if autocovariance is None else float(autocovariance.square().sum())  # voxels that count as one
    products = torch.stack([products for products, _ in seen]).sum(0) / alike
    return common_components(products, int(sum(count for _, count in seen) / alike), most)


class Local(NamedTuple):
    """What a slab shows beside the common components."""

    patches: Tensor
    """The leading components of its patches, see `components_of_patches`."""
    places: Places | None
    """None where no dimension has noise alone."""


def local_components(
    signals: Tensor, common: Common, autocovariance: Tensor | None, shape: Axes, planes: slice
) -> Local:
    """Return what patches and places of a slab show beside the common components.

    `shape` is that of the whole series, and `planes` those of the slab.
    """
    if common.left == 0:
        return Local(torch.empty(0, 1, len(common.basis)), None)
    known, flat = common.basis.to(signals), signals.flatten(1).contiguous()  # the same bits on any axis
    rest = torch.addmm(flat, known, known.mT @ flat, alpha=-1).view_as(signals)
    rest /= max(1.0, common.variance) ** 0.5  # if sigma is a little too low, noise is no signal
    ends = (0 if planes.start == 0 else PLACE_REACH, rest.shape[1] - (0 if planes.stop == shape[0] else PLACE_REACH))
    places = places_of(rest, common.left, autocovariance, slice(*ends), planes.start)
    covered = rest[:, planes_of_patches(planes, shape[0])]
    patches = components_of_patches(covered, common.left, autocovariance, least_energy(shape, common.left))
    return Local(patches.cpu(), places)


def with_local(common: Common, found: Sequence[Local], shape: Axes) -> Tensor:
    """Return a basis of the common components and of those that were found in all slabs.

    Those of places come first, as an average over a place has less noise than a patch. The patches have to show what
    these leave.
    """
    places = [local.places for local in found if local.places is not None]
    basis, patches = common.basis, torch.cat([local.patches for local in found]).double()
    if places:
        joint = components_of_places(places, shape, common.left)
        basis = torch.cat([basis, joint], 1)
        patches = patches - patches @ joint @ joint.mT
    local = distinct_components(patches, shape, len(basis) - basis.shape[1])
    complete: Tensor = torch.linalg.qr(torch.cat([basis, local], 1))[0]
    return complete
