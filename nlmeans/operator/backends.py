"""The backends, which are ways to compute the operator, and the choice between them."""

from __future__ import annotations

import logging

from nlmeans.core.axes import Axes, window_voxels
from nlmeans.operator import BACKEND_NAMES
from nlmeans.operator.cpu import CPU
from nlmeans.operator.full import FULL
from nlmeans.operator.gpu import GPU
from nlmeans.operator.loop import LOOP
from nlmeans.operator.request import Backend, Request
from nlmeans.operator.windowed import WINDOWED

log = logging.getLogger("nlmeans")

BACKENDS: dict[str, Backend] = dict(zip(BACKEND_NAMES, (CPU, GPU, LOOP, FULL, WINDOWED), strict=True))

MOST_PAIRS_FOR_FULL = 2**18
"""Number of voxel pairs up to which the few large operations of `full` are faster than the many of `loop`."""


def choose(request: Request, name: str = "auto") -> Backend:
    """Return the backend called `name`, or for ``"auto"`` the fastest one that serves the request exactly.

    Raises ``ValueError`` if the backend called `name` cannot serve the request. The error names one that can.
    """
    if name == "auto":
        backend, why = fastest_backend(request)
        log.info("backend %s: %s", backend.name, why)
        return backend
    reason = BACKENDS[name].refusal(request)
    if reason:
        able = [b.name for b in (CPU, GPU, LOOP, FULL) if b.name != name and not b.refusal(request)]
        raise ValueError(f"backend={name!r} cannot do this: {reason}; backend={able[0]!r} can")
    return BACKENDS[name]


def fastest_backend(request: Request) -> tuple[Backend, str]:
    """The fastest backend that serves the request exactly, and the reason for the choice."""
    fused = GPU if request.image.is_cuda else CPU
    reason = fused.refusal(request)
    if not reason:
        return fused, f"the fastest for {request.image.dtype} on {request.image.device}"
    pairs = request.image[0].numel() * window_voxels(request.search_radius)
    if pairs <= MOST_PAIRS_FOR_FULL and not FULL.refusal(request):
        return FULL, f"the fastest for small images if {fused.name} cannot do this: {reason}"
    return LOOP, f"{fused.name} cannot do this: {reason}"


def working_memory(name: str, channels: int, features: int, patch_radius: Axes, search_radius: Axes) -> float:
    """Bytes of working memory of a backend per voxel. ``"auto"`` uses no more than `loop`, or too little to matter."""
    backend = LOOP if name == "auto" else BACKENDS[name]
    return backend.bytes_per_voxel(channels, features, patch_radius, search_radius)
