"""Maps that say more about a result: sigma at every voxel, and what was removed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
        one = sigma_of_plan(plans[0], denoised, 1)
        return as_array(layout.spatial_alone.from_engine(one), denoised)
    every = [layout.from_engine(sigma_of_plan(plan, denoised, layout.channel_count)) for plan in plans]
    return as_array(torch.cat(every, dim=layout.series or 0), denoised)


def sigma_of_plan(plan: Plan, denoised: arrays.Array, count: int) -> Tensor:
    """Return sigma at every voxel of the first channels of one volume, (count, D, H, W), on the CPU."""
    facts, layout = plan.facts, plan.layout
    if facts.noise.follows_intensity:
        intensity = layout.to_engine(as_tensor(denoised)[layout.index(plan.index, layout.everywhere, slice(0, count))])
        return facts.noise.sigma_at(intensity.double()).float().cpu()
    if plan.sigma_map is not None:
        given = plan.read_spatial(plan.sigma_map, "sigma", layout.everywhere, torch.device("cpu"))
        return given.float().expand(count, *layout.shape)
    relative = plan.relative_sigma(layout.everywhere, torch.device("cpu"))
    return torch.tensor(facts.sigma[:count])[:, None, None, None] * torch.as_tensor(relative).expand(1, *layout.shape)


def residual_of(volume: arrays.Source, denoised: arrays.Array) -> arrays.Array:
    """Return what was removed, volume − result, in float32, or in float64 if the volume needs it."""
    dtype, stored = arrays.precise_dtype(volume), arrays.fetch(volume, (slice(None),) * len(volume.shape))
    if isinstance(stored, Tensor):
        return as_array(stored.to(dtype) - as_tensor(denoised).to(device=stored.device, dtype=dtype), denoised)
    removed: arrays.Array = np.subtract(
        stored, denoised, dtype=str(dtype).removeprefix("torch."), casting="unsafe", order="C"
    )
    return removed


def as_tensor(array: arrays.Array) -> Tensor:
    if isinstance(array, Tensor):
        return array
    return arrays.read(array, (slice(None),) * array.ndim, arrays.precise_dtype(array), torch.device("cpu"))


def as_array(values: Tensor, like: arrays.Array) -> arrays.Array:
    """Return values as the same kind of array as another, on its device."""
    values = values.contiguous()
    return values.to(like.device) if isinstance(like, Tensor) else values.cpu().numpy()
