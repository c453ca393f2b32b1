"""Maps that say more about a result: sigma at every voxel, and what was removed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.engine.plan import Plan


def noise_map(plans: Sequence[Plan], denoised: arrays.Array) -> arrays.Array:
    """Return sigma at every voxel, as the plans counted with it, in image units.

    Args:
        plans: one for each volume, or one for all that were denoised together.
        denoised: the result, which says how strong noise is that follows the intensity.

    Returns:
        float32, an array of the same kind as `denoised`. For volumes that were denoised together, it has their spatial
        shape, otherwise the shape of `denoised`.
    """
    layout = plans[0].layout
    if plans[0].choices.method.joint:
        one = sigma_of_plan(plans[0], denoised)[:1]
        return as_array(layout.spatial_alone.from_engine(one), denoised)
    every = [layout.from_engine(sigma_of_plan(plan, denoised)) for plan in plans]
    return as_array(torch.cat(every, dim=layout.series or 0), denoised)


def sigma_of_plan(plan: Plan, denoised: arrays.Array) -> Tensor:
    """Return sigma at every voxel of one volume, (C, D, H, W), on the CPU."""
    facts, layout = plan.facts, plan.layout
    if facts.noise.follows_intensity:
        intensity = layout.to_engine(as_tensor(denoised)[layout.index(plan.index, layout.everywhere)])
        return facts.noise.sigma_at(intensity.double()).float().cpu()
    if plan.sigma_map is not None:
        given = plan.read_spatial(plan.sigma_map, "sigma", layout.everywhere, torch.device("cpu"))
        return given.float().expand(layout.channel_count, *layout.shape)
    relative = plan.relative_sigma(layout.everywhere, torch.device("cpu"))
    return torch.tensor(facts.sigma)[:, None, None, None] * torch.as_tensor(relative).expand(1, *layout.shape)


def residual_of(volume: arrays.Source, denoised: arrays.Array) -> arrays.Array:
    """Return what was removed, volume − result, in float32, or in float64 if the volume needs it."""
    dtype, device = arrays.precise_dtype(volume), arrays.device_of(volume)
    everything = (slice(None),) * len(volume.shape)
    removed = arrays.read(volume, everything, dtype, device) - as_tensor(denoised).to(device=device, dtype=dtype)
    return as_array(removed, denoised)


def as_tensor(array: arrays.Array) -> Tensor:
    if isinstance(array, Tensor):
        return array
    return arrays.read(array, (slice(None),) * array.ndim, arrays.precise_dtype(array), torch.device("cpu"))


def as_array(values: Tensor, like: arrays.Array) -> arrays.Array:
    """Return values as the same kind of array as another, on its device."""
    values = values.contiguous()
    return values.to(like.device) if isinstance(like, Tensor) else values.cpu().numpy()
