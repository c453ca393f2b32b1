"""The operator: a weighted average over a search window, which covers the whole family of non-local means."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from nlmeans.core import arrays, checks
from nlmeans.core.arrays import ArrayT, convert_like, finite_floats
from nlmeans.core.axes import Axes
from nlmeans.core.checks import Radius
from nlmeans.core.layout import Layout
from nlmeans.core.memory import available
from nlmeans.core.modes import outside_autocast
from nlmeans.core.padding import reflect
from nlmeans.core.progress import Report, cancellable
from nlmeans.core.tiles import Piece
from nlmeans.operator.backends import BACKENDS, choose
from nlmeans.operator.gradient import differentiable
from nlmeans.operator.neighbours import Neighbour, draw
from nlmeans.operator.request import LEAST_OWN_WEIGHT, Request

CENTERS = ("one", "max", "zero")
BLENDS = ("smooth", "plain")


@outside_autocast
def nonlocal_means(
    image: ArrayT,
    h: float | arrays.Array,
    *,
    sigma: float | arrays.Array = 0.0,
    patch_radius: Radius = 1,
    search_radius: Radius = 5,
    guide: arrays.Array | None = None,
    guide_scale: Sequence[float] | None = None,
    center: str | float = "one",
    samples: int | None = None,
    seed: int = 0,
    channels: int | None = None,
    region: Sequence[slice] | None = None,
    backend: str = "auto",
    blend: str = "smooth",
    memory: int | None = None,
    progress: Report | None = None,
) -> ArrayT:
    """Replace each voxel by an average of the voxels in its search window, weighted by how similar their patches are.

    ::

        d(i,j)  = Σ_f a_f · mean over the patch of (G_f(i+o) − G_f(j+o))²
        w(i,j)  = exp(−max(d(i,j) − 2σ(i)²·Σ_f a_f, 0) / h(i)²)
        out(i)  = Σ_j w(i,j)·V(j) / Σ_j w(i,j)

    V is the image, G the guide with its features f, o an offset within the patch and σ the standard deviation of the
    noise. With patch radius 0 on a smoothed image this is pixelwise non-local means. With a patch radius of 1 or more
    it is the filter of Buades, Coll and Morel (2005). Borders are reflected. Weights are at least e⁻⁶⁴. The time grows
    with the number of voxels times the size of the window. `denoise` chooses all arguments from the noise level.

    Args:
        image: values to average, (H, W) or (D, H, W), with one more axis if `channels` names it; real numpy array or
            torch tensor of any dtype. Computed in float64 for float64, otherwise in float32.
        h: filter strength in the units of the guide, greater than 0; a number, or an array of the spatial shape.
        sigma: standard deviation of the noise of the guide, in its units; a number, or an array of the spatial shape.
            The part of a distance that is due to noise, 2σ²·Σ_f a_f, is subtracted.
        patch_radius: radius of the patch in voxels, one for all axes or one per axis; the patch is 2r + 1 voxels wide.
        search_radius: radius of the search window in voxels, one for all axes or one per axis.
        guide: array from which the weights are computed, of the spatial shape, or ``(F, *spatial shape)`` for F
            features; None for the image itself, with its channels as features.
        guide_scale: the a_f, one per feature; None for 1/F each.
        center: weight of the voxel itself: ``"one"``, ``"max"`` (the largest weight of the other voxels), ``"zero"``,
            or a number from 0 to 1 (the largest weight of the other voxels, but at least this number).
        samples: number of voxels of the search window to draw at random, approximately; None for the whole window. Near
            voxels are drawn more often, and each is weighted by one over its probability (Monte Carlo; Chan, Zickler
            and Lu 2014). All voxels share the same offsets.
        seed: random seed of this draw.
        channels: axis of `image` that holds channels; None if all its axes are spatial.
        region: part to compute and return, one slice per spatial axis; None for all. It equals the same part of the
            whole result.
        backend: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"loop"``, ``"full"`` or ``"windowed"``. All give the same result,
            except ``"windowed"``, which compares a voxel with the windows that contain it.
        blend: how ``"windowed"`` joins its windows: ``"smooth"`` or ``"plain"``.
        memory: bytes that ``"full"`` and ``"windowed"`` may use; None for half of the free memory of the computer, or
            four fifths of that of the GPU.
        progress: function that is called with the fraction done. If it returns ``False``, the call raises `Cancelled`.

    Returns:
        An array of the type, dtype, device and shape of `image`, or the shape of `region`. It is differentiable with
        respect to image, guide, h and sigma if these are floating-point tensors.

    Raises:
        ValueError, TypeError: an argument is out of range, of the wrong shape or not finite, or the chosen backend
            cannot do this. The error names a remedy.
        Cancelled: `progress` returned ``False``.

    References:
        A. Buades, B. Coll, J.-M. Morel, "A non-local algorithm for image denoising", CVPR 2005,
        doi:10.1109/CVPR.2005.38. S. H. Chan, T. Zickler, Y. M. Lu, "Monte Carlo non-local means: random sampling for
        large-scale image filtering", IEEE Transactions on Image Processing 2014, doi:10.1109/TIP.2014.2327813.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> clean = np.repeat([0.0, 1.0], 16) * np.ones((32, 1))
        >>> noisy = clean + 0.1 * rng.standard_normal(clean.shape)
        >>> denoised = nonlocal_means(noisy, h=0.09, sigma=0.1, center="max")
        >>> bool(np.abs(denoised - clean).mean() < 0.4 * np.abs(noisy - clean).mean())
        True
    """
    layout = Layout.of(arrays.check_array(image, "image"), channels, None, "image")
    values = layout.to_engine(finite_floats(image, "image"))
    features = None if guide is None else guide_features(guide, layout).to(values.device)
    strength = per_voxel("h", h, checks.positive, layout, values)
    noise = per_voxel("sigma", sigma, checks.not_negative, layout, values)
    request, unit, shift = normalised(
        values,
        features,
        strength,
        noise,
        feature_scales(guide_scale, values if features is None else features),
        checks.radii("patch_radius", patch_radius, len(layout.spatial_axes)),
        checks.radii("search_radius", search_radius, len(layout.spatial_axes)),
        torch.float64 if arrays.dtype_name(image) == "float64" else torch.float32,
    )
    piece = None if region is None else layout.piece(region)
    if piece is not None and backend != "windowed":  # whose windows must lie as they do in the whole image
        request = cropped(request, piece)
    rule, least_own = center_rule(center)
    request = dataclasses.replace(
        request,
        center=rule,
        least_own=least_own,
        sample=None if samples is None else drawn(request.search_radius, samples, seed),
        blend=checks.choice("blend", blend, BLENDS),
        memory=available(values.device) if memory is None else int(checks.positive("memory", memory)),
        progress=cancellable(progress),
    )
    exact = values.dtype
    del values, features  # which take much of the memory if the volume is large
    chosen = choose(request, checks.choice("backend", backend, ("auto", *BACKENDS)))
    tracked = request.requires_grad and not chosen.differentiable
    result = (differentiable(request, chosen) if tracked else chosen.run(request)).to(exact)
    del request
    if piece is not None and backend == "windowed":
        result = result[:, *piece]
    result = result * unit + shift if result.requires_grad else result.mul_(unit).add_(shift)
    return convert_like(layout.from_engine(result), image)


def cropped(request: Request, region: Piece) -> Request:
    """Cut from a request the part that computes only a region of the result."""
    padded = [slice(box.start, box.stop + 2 * m) for box, m in zip(region, request.margin, strict=True)]
    image = request.image[:, *padded]
    return dataclasses.replace(
        request,
        image=image,
        guide=image if request.guide is request.image else request.guide[:, *padded],
        falloff=request.falloff[region] if request.falloff.ndim else request.falloff,
        offset=request.offset[region] if request.offset.ndim else request.offset,
    )


def drawn(search_radius: Axes, samples: int, seed: int) -> tuple[Neighbour, ...] | None:
    """Check `samples` and `seed`, and draw the sample; None if it would be the whole window."""
    return draw(search_radius, checks.whole("samples", samples, least=2), checks.whole("seed", seed))


def center_rule(center: str | float) -> tuple[str, float]:
    """The name of the center rule, and the smallest weight of the voxel itself."""
    if isinstance(center, str):
        return checks.choice("center", center, CENTERS), LEAST_OWN_WEIGHT
    if checks.not_negative("center", center) > 1:
        raise ValueError(f"center={center} must be at most 1, the weight of an identical patch")
    return "max", max(float(center), LEAST_OWN_WEIGHT)


def guide_features(guide: arrays.Array, layout: Layout) -> Tensor:
    """Check the guide and convert it to (F, D, H, W)."""
    spatial, shape = layout.spatial_shape, tuple(arrays.check_array(guide, "guide").shape)
    if shape[-len(spatial) :] != spatial or len(shape) > len(spatial) + 1:
        raise ValueError(
            f"guide has shape {shape}; give {spatial}, or (F, {', '.join(map(str, spatial))}) for F features"
        )
    return Layout(shape, None if shape == spatial else 0, None).to_engine(finite_floats(guide, "guide"))


def per_voxel(
    name: str, value: float | arrays.Array, check: Callable[[str, float], float], layout: Layout, values: Tensor
) -> Tensor:
    """Convert a number, or a map of the spatial shape to (D, H, W), with the dtype and device of `values`.

    `check` is called with the smallest value.
    """
    if not isinstance(value, Tensor | np.ndarray):
        return values.new_tensor(check(name, value))
    check(name, arrays.value_range(arrays.check_array(value, name), name)[0])
    tensor = finite_floats(value, name).to(values)
    return layout.spatial(value, name).to_engine(tensor)[0] if value.ndim else tensor


def feature_scales(scales: Sequence[float] | None, features: Tensor) -> tuple[float, ...]:
    """Check the a_f of the formula, which are 1/F by default."""
    count = len(features)
    if scales is None:
        return (1 / count,) * count
    if np.shape(scales) != (count,):
        raise ValueError(f"guide_scale={scales!r} must have one number per feature: {count}")
    return tuple(checks.positive("guide_scale", a) for a in scales)


def normalised(
    values: Tensor,
    features: Tensor | None,
    h: Tensor,
    sigma: Tensor,
    scales: tuple[float, ...],
    patch_radius: Axes,
    search_radius: Axes,
    precision: torch.dtype,
) -> tuple[Request, float, float]:
    """The request in units of h with the middle of the range at zero, and the unit and shift that reverse this.

    Images that differ by an offset and a factor become the same numbers, and a constant image becomes exact zeros.
    """
    depth, height, width = (p + s for p, s in zip(patch_radius, search_radius, strict=True))

    def padded(channels: Tensor, shift: float, unit: float) -> Tensor:
        return reflect((channels - shift).div_(unit).to(precision), (depth, height, width))

    shift, spread = middle_and_spread(values)
    strongest = float(h.detach().max())
    if features is None:
        unit = max(strongest, spread * SMALLEST_RATIO) or 1.0
        image = guide = padded(values, shift, unit)
        guide_unit = unit
    else:
        unit = spread or 1.0
        image = padded(values, shift, unit)
        guide_shift, guide_spread = middle_and_spread(features)
        guide_unit = max(strongest, guide_spread * SMALLEST_RATIO) or 1.0
        guide = padded(features, guide_shift, guide_unit)

    relative = [a / scales[0] for a in scales]
    if any(a != 1 for a in relative):
        guide = guide * guide.new_tensor(relative).sqrt()[:, None, None, None]
    request = Request(
        image=image,
        guide=guide,
        falloff=((guide_unit / h.clamp_min(guide_unit * SMALLEST_H)).square() * scales[0]).to(precision),
        offset=((sigma / guide_unit).square() * 2 * sum(relative)).to(precision),
        patch_radius=patch_radius,
        search_radius=search_radius,
        center="one",
    )
    return request, unit, shift


SMALLEST_RATIO = 1e-12
"""Smallest h relative to half the range of the guide. Below it, squares of normalised values would overflow float32."""

SMALLEST_H = 1e-17
"""Smallest h in the unit of the guide. Below it 1/h² would overflow float32, and only equal patches have a weight."""


def middle_and_spread(values: Tensor) -> tuple[float, float]:
    """The middle of the range of the values, and half its width."""
    low, high = (float(v) for v in torch.aminmax(values.detach()))
    return low / 2 + high / 2, high / 2 - low / 2
