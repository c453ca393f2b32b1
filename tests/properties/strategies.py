"""Strategies for property tests: shapes, contents and storage of images, and arguments of the operator."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import settings
from hypothesis import strategies as st

from nlmeans.operator.neighbours import draw as draw_neighbours

Floats = npt.NDArray[np.float64]
Axes = tuple[int, int, int]

THOROUGH = settings.get_current_profile_name() == "thorough"
"""True to try the fused kernel with many patch radii, for each of which it is compiled anew."""

LONGEST = 40

seeds = st.integers(0, 2**32 - 1)


@st.composite
def shapes(draw: Any, dimensions: int | None = None, voxels: int = 3000, longest: int = LONGEST) -> tuple[int, ...]:
    """Draw a shape of 2 or 3 axes with 1 to `longest` voxels each, and at most `voxels` in all."""
    count = draw(st.sampled_from([3, 3, 2])) if dimensions is None else dimensions
    sizes: list[int] = []
    for _ in range(count):
        sizes.append(draw(st.integers(1, min(longest, max(voxels // math.prod(sizes), 1)))))
    return tuple(draw(st.permutations(sizes)))


CONTENTS = ("noise", "steps", "constant", "ramp", "impulses", "zeros")


def content(kind: str, shape: tuple[int, ...], seed: int) -> Floats:
    """Make values from about 0 to 1; all but constants have noise of 0.05."""
    random = np.random.default_rng(seed)
    noise = 0.05 * random.standard_normal(shape)
    places = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    if kind == "constant":
        return np.full(shape, random.random())
    if kind == "noise":
        return random.random(shape)
    if kind == "ramp":
        return sum(places) / len(shape) + noise
    values = np.where(places[-1] > random.random(), 0.8, 0.3) + noise
    if kind == "impulses":
        values[random.random(shape) < 0.05] = 1
    if kind == "zeros":
        values[places[0] < random.random()] = 0
    return values


@st.composite
def images(draw: Any, kinds: tuple[str, ...] = CONTENTS, **limits: Any) -> Floats:
    return content(draw(st.sampled_from(kinds)), draw(shapes(**limits)), draw(seeds))


@st.composite
def radii(draw: Any, largest: int, voxels: int) -> Axes:
    """Draw one radius per axis, so that the window has at most `voxels` voxels."""
    window, per_axis = 1, []
    for _ in range(3):
        radius = draw(st.integers(0, min(largest, (voxels // window - 1) // 2)))
        per_axis.append(radius)
        window *= 2 * radius + 1
    z, y, x = draw(st.permutations(per_axis))
    return z, y, x


COMPILED = ((1, 1, 1), (0, 0, 0))
"""Patch radii for which the other tests of the ordinary suite compile the fused kernel anyway."""


@dataclass(frozen=True)
class Evaluation:
    """One call of the operator: the image (C, D, H, W), its arguments, and the voxels to compare."""

    image: Floats
    arguments: dict[str, Any]
    region: tuple[slice, slice, slice] | None
    voxels: list[Axes]
    factors: dict[Axes, float] | None = field(default=None, repr=False)

    def keywords(self, dtype: Any) -> dict[str, Any]:
        """Return the arguments of `nonlocal_means`, with arrays of one type."""
        found = {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in self.arguments.items()}
        return {**found, "region": self.region, "channels": 0}

    def at_voxels(self, result: npt.NDArray[Any]) -> Floats:
        """Pick the voxels to compare, (voxels, C), from a result for the image or for the region."""
        first = (0, 0, 0) if self.region is None else tuple(box.start for box in self.region)
        index = np.array(self.voxels) - first
        return result[:, *index.T].T.astype(np.float64)


@st.composite
def evaluations(
    draw: Any, backend: str = "loop", voxels: int = 3000, window: int = 400, looked_at: int = 8
) -> Evaluation:
    """Draw any call that a backend serves. All numbers are float32 numbers."""
    shape = draw(shapes(dimensions=3, voxels=voxels))
    seed, channels, features = draw(seeds), draw(st.integers(1, 3)), draw(st.sampled_from([0, 0, 1, 3]))
    random = np.random.default_rng(seed)

    def numbers(*lengths: int, low: float = 0.0) -> Floats:
        return (low + random.random(lengths)).astype(np.float32).astype(np.float64)

    kind = draw(st.sampled_from(CONTENTS))
    image = np.stack([content(kind, shape, seed + c) for c in range(channels)]).astype(np.float32).astype(np.float64)
    searched = draw(radii(5, window))
    few = backend == "cpu" and not THOROUGH
    patch = draw(st.sampled_from(COMPILED) if few else radii(3, 75))
    arguments: dict[str, Any] = {
        "patch_radius": patch,
        "search_radius": searched,
        "h": draw(st.sampled_from([0.05, 0.2, 1.0, 30.0])),
    }
    if backend != "windowed":
        arguments["center"] = draw(st.sampled_from(["one", "max", "zero", 0.0, 0.1, 1.0]))
        arguments["sigma"] = draw(st.sampled_from([0.0, 0.05, 0.3]))
        if draw(st.booleans()):
            arguments["sigma"] = numbers(*shape) * arguments["sigma"]
    if draw(st.booleans()):
        arguments["h"] = numbers(*shape, low=0.2) * arguments["h"]
    if features:
        arguments["guide"] = numbers(features, *shape)
        if draw(st.booleans()):
            arguments["guide_scale"] = tuple(random.uniform(0.1, 2, features).tolist())
    factors = None
    if backend not in ("windowed", "gpu") and draw(st.booleans()) and (backend != "cpu" or THOROUGH):
        arguments["samples"] = draw(st.integers(2, 200))
        arguments["seed"] = draw(st.integers(0, 99))
        drawn = draw_neighbours(searched, arguments["samples"], arguments["seed"])
        if drawn is not None:
            factors = {tuple(s * o for o in n.offset): n.factor for n in drawn for s in (1, -1)}  # type: ignore[misc]
    region = None
    if backend != "windowed" and draw(st.booleans()):
        starts = [draw(st.integers(0, n - 1)) for n in shape]
        z, y, x = (slice(a, draw(st.integers(a + 1, n))) for a, n in zip(starts, shape, strict=True))
        region = z, y, x
    boxes = [slice(0, n) for n in shape] if region is None else region
    corners = [tuple(b.start for b in boxes), tuple(b.stop - 1 for b in boxes)]
    others = [tuple(int(random.integers(b.start, b.stop)) for b in boxes) for _ in range(looked_at - 2)]
    return Evaluation(image, arguments, region, [*corners, *others], factors)  # type: ignore[list-item]


# ---------------------------------------------------------------- how arrays are stored

NUMPY_TYPES = (
    *("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "g"),
    *(">u2", ">i2", ">u4", ">i4", ">u8", ">i8", ">f2", ">f4", ">f8"),
)
TORCH_TYPES = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64),
)
STORES = ("plain", "reversed", "Fortran", "strided", "read-only", "broadcast", "view", "byte offset")
TENSOR_STORES = ("plain", "transposed", "strided", "expanded", "view", "requires_grad", "inference", "parameter")


def scaled_for(values: Floats, dtype: Any) -> npt.NDArray[Any]:
    """Scale values from 0..1 to numbers that a type holds: 0 to 120, or False and True for booleans."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return values > 0.5
    return np.clip(120 * values, 0, 120).astype(kind)


def stored(values: npt.NDArray[Any], store: str) -> npt.NDArray[Any]:
    """Store the same values in another way. A broadcast array repeats its first slice instead."""
    if store == "reversed":
        return np.flip(np.flip(values).copy())
    if store == "Fortran":
        return np.asfortranarray(values)
    if store == "strided":
        wide = np.zeros((*values.shape[:-1], 3 * values.shape[-1]), values.dtype)
        wide[..., 1::3] = values
        return wide[..., 1::3]
    if store == "broadcast":
        return np.broadcast_to(values[:1], values.shape)
    if store == "view":
        return np.pad(values, 2)[(slice(2, -2),) * values.ndim]
    if store == "byte offset":
        data = b"x" + np.ascontiguousarray(values).tobytes()
        return np.frombuffer(data, values.dtype, offset=1).reshape(values.shape)
    values = values.copy()
    values.flags.writeable = store != "read-only"
    return values


def stored_tensor(values: torch.Tensor, store: str) -> torch.Tensor:
    if store == "transposed":
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if store == "strided":
        wide = torch.zeros(*values.shape[:-1], 3 * values.shape[-1], dtype=values.dtype)
        wide[..., 1::3] = values
        return wide[..., 1::3]
    if store == "expanded":
        return values[:1].expand(values.shape)
    if store == "view":
        wide = torch.zeros([n + 4 for n in values.shape], dtype=values.dtype)
        place = (slice(2, -2),) * values.ndim
        wide[place] = values
        return wide[place]
    if store == "requires_grad" and values.dtype.is_floating_point:
        return values.clone().requires_grad_()
    if store == "parameter":
        return torch.nn.Parameter(values.clone(), requires_grad=values.dtype.is_floating_point)
    if store == "inference":
        with torch.inference_mode():
            return values.clone()
    return values.clone()
