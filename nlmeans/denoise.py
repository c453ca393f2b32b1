"""The front door: any array in, the same type, shape, dtype and device out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from nlmeans import arrays, checks
from nlmeans.checks import Radius
from nlmeans.estimate import estimate_sigma
from nlmeans.layout import Layout
from nlmeans.memory import available, readable
from nlmeans.methods import METHODS, Method, Options, pick
from nlmeans.noise import without_rician_bias
from nlmeans.nonlocal_means import ArrayT
from nlmeans.progress import Report, part, reporting
from nlmeans.settings import Settings
from nlmeans.tiles import Piece, Tile, tile_shape, tiles

log = logging.getLogger("nlmeans")


def denoise(
    volume: ArrayT,
    sigma: float | Sequence[float] | arrays.Array | None = None,
    *,
    method: str = "auto",
    noise: str = "gaussian",
    h: float | None = None,
    patch_radius: Radius | None = None,
    search_radius: Radius | None = None,
    mask: arrays.Array | None = None,
    spacing: Sequence[float] | None = None,
    channels: int | None = None,
    series: int | None = None,
    backend: str = "auto",
    device: str | torch.device | None = None,
    memory: int | str | None = None,
    dtype: str | None = None,
    progress: bool | Report | None = None,
) -> ArrayT:
    """Denoise an image, a volume, or a series of volumes.

    Args:
        volume: (H, W) or (D, H, W), with one more axis for each of `channels` and `series`; real numpy array or torch
            tensor, any dtype, finite. It is never written to.
        sigma: standard deviation of the noise, in image units: one number; one per volume of the series (or per
            channel); or an array of the spatial shape for noise that varies in space. None estimates it
            (`estimate_sigma`).
        method: ``"auto"`` or a name in `nlmeans.METHODS`.
        noise: ``"gaussian"``, or ``"rician"`` for MR magnitude images: the bias that such noise adds is removed, so
            that the background goes to zero.
        h: filter strength in image units; None for the method's own multiple of sigma. Larger is smoother.
        patch_radius: voxels, for all axes or one per axis; patches are 2r + 1 wide. None for the method's own.
        search_radius: voxels, likewise, of the window in which similar voxels are sought.
        mask: where to denoise, of the spatial shape; voxels where it is zero come back as they were.
        spacing: voxel size in mm, one number per spatial axis. A radius given as one number, or not given, then spans
            the same distance along all axes, counted in voxels of the smallest size: thick slices get a flat window.
        channels: axis of channels that are compared together, such as RGB. None: all axes are spatial.
        series: axis of volumes to denoise one by one, such as the repetitions of a 4D scan.
        backend: ``"auto"``, ``"full"``, ``"windowed"`` or ``"loop"``.
        device: where to compute, such as ``"cuda"``; None for where the volume lies.
        memory: bytes to work in (or text, ``"2GB"``): larger volumes are cut into overlapping tiles, which changes
            nothing in the result. None for half the free memory.
        dtype: ``"float16"``, ``"float32"`` or ``"float64"`` for a result of that type; None for the volume's own.
        progress: True for a bar, or a function called with the fraction done; returning ``False`` cancels.

    Returns:
        Same type, shape, device, and dtype unless `dtype` is given; integers are rounded and clipped.
        Computed in float32.

    Raises:
        ValueError, TypeError: an argument is out of range or does not fit the volume; the message names a remedy.
        Cancelled: `progress` returned ``False``.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> noisy = (100 + 8 * rng.standard_normal((24, 24, 24))).astype(np.int16)
        >>> denoised = denoise(noisy, sigma=8)
        >>> denoised.dtype, bool(denoised.std() < 0.3 * noisy.std())
        (dtype('int16'), True)
    """
    sigma_map = sigma if isinstance(sigma, np.ndarray | Tensor) and sigma.ndim > 1 else None
    if sigma_map is None and isinstance(sigma, np.ndarray | Tensor):
        sigma = sigma.tolist()
    settings = Settings(
        sigma=None if sigma_map is not None else sigma,  # type: ignore[arg-type]  # narrowed and checked by Settings
        method=method,
        noise=noise,
        h=h,
        patch_radius=patch_radius,
        search_radius=search_radius,
        spacing=spacing,  # type: ignore[arg-type]  # a sequence becomes a tuple in Settings
        channels=channels,
        series=series,
        backend=backend,
        device=None if device is None else str(device),
        memory=memory,  # type: ignore[arg-type]  # text becomes a number in Settings
        dtype=dtype,
    )
    with reporting(progress, "denoising") as report:
        return run(volume, settings, mask=mask, sigma_map=sigma_map, progress=report)


def run(
    volume: ArrayT,
    settings: Settings,
    *,
    mask: arrays.Array | None = None,
    sigma_map: arrays.Array | None = None,
    progress: Report,
) -> ArrayT:
    """Denoise with `settings`: what every door comes to. `sigma_map` takes the place of ``settings.sigma``."""
    layout = Layout.of(arrays.checked(volume, "volume"), settings.channels, settings.series)
    if mask is not None:
        layout.spatial(arrays.checked(mask, "mask"), "mask")
    settings = resolve(settings, layout)
    result = arrays.empty_like(volume, settings.dtype)
    for index in range(layout.volumes):
        task = Task.of(volume, index, layout, settings, mask, sigma_map)
        task.run(result, part(progress, index / layout.volumes, (index + 1) / layout.volumes))
    progress(1.0)
    return cast(ArrayT, result)


def resolve(settings: Settings, layout: Layout) -> Settings:
    """Settings with the method picked and one radius per spatial axis."""
    name = pick(settings.method)
    method, dimensions = METHODS[name], len(layout.spatial_axes)
    if settings.method == "auto":
        log.info("method auto picked %s (%s)", name, method.summary)

    if settings.spacing is not None and len(settings.spacing) != dimensions:
        raise ValueError(f"spacing={settings.spacing} must have one number per spatial axis: {dimensions}")

    def per_axis(name: str, radius: Radius) -> tuple[int, ...]:
        if isinstance(radius, int) and settings.spacing is not None:
            radius = tuple(round(radius * min(settings.spacing) / size) for size in settings.spacing)
        return checks.radii(name, radius, dimensions)[-dimensions:]

    return dataclasses.replace(
        settings,
        method=name,
        patch_radius=per_axis(
            "patch_radius", method.patch_radius if settings.patch_radius is None else settings.patch_radius
        ),
        search_radius=per_axis(
            "search_radius", method.search_radius if settings.search_radius is None else settings.search_radius
        ),
    )


@dataclass(frozen=True)
class Task:
    """One volume to denoise, with all that must be known of it before it is cut into tiles."""

    volume: arrays.Array
    index: int
    layout: Layout
    settings: Settings
    sigma: tuple[float, ...]
    """One per channel; with a map of sigma, its largest value."""
    shift: tuple[float, ...]
    """The middle of each channel's range, which goes to zero, so that a constant channel comes back exactly."""
    mask: arrays.Array | None
    sigma_map: arrays.Array | None

    @classmethod
    def of(
        cls,
        volume: arrays.Array,
        index: int,
        layout: Layout,
        settings: Settings,
        mask: arrays.Array | None,
        sigma_map: arrays.Array | None,
    ) -> Task:
        channels = layout.channel_pieces(index)
        ranges = [arrays.value_range(volume[piece], "volume") for piece in channels]
        if sigma_map is not None:
            low, high = arrays.value_range(arrays.checked(sigma_map, "sigma"), "sigma")
            layout.spatial(sigma_map, "sigma")
            checks.not_negative("sigma", low)
            sigma = (high,) * len(channels)
        else:
            sigma = noise_levels(volume, index, layout, settings, mask)
        peaks = (max(-low, high) for low, high in ranges)
        sigma = tuple(s if 0 < peak * NEGLIGIBLE < s else 0.0 for s, peak in zip(sigma, peaks, strict=True))
        middles = tuple(low / 2 + high / 2 for low, high in ranges)
        return cls(volume, index, layout, settings, sigma, middles, mask, sigma_map)

    def run(self, result: arrays.Array, progress: Report) -> None:
        method, shape = METHODS[self.settings.method], self.layout.shape
        patch_radius, search_radius = (
            checks.radii("radius", radius, len(self.layout.spatial_axes))
            for radius in (self.settings.patch_radius, self.settings.search_radius)
            if radius is not None
        )
        device = torch.device(self.settings.device or arrays.device_of(self.volume))
        memory = available(device) if self.settings.memory is None else self.settings.memory
        working = method.bytes_per_voxel(self.settings.backend, len(self.sigma), patch_radius, search_radius)
        halo = method.halo(patch_radius, search_radius)
        try:
            size = tile_shape(shape, halo, memory / (working + CONVERSION_BYTES * len(self.sigma)))
        except ValueError as error:
            raise ValueError(
                f"memory={readable(memory)} is too little: {error}; allow more or take a smaller search_radius"
            ) from error
        pieces = list(tiles(shape, size, halo))
        log.info("%s on %s in %d tiles, sigma %s", self.settings.method, device, len(pieces), self.sigma)
        for number, tile in enumerate(pieces):
            options = Options(
                h=method.h,
                patch_radius=patch_radius,
                search_radius=search_radius,
                backend=self.settings.backend,
                memory=memory,
                progress=part(progress, number / len(pieces), (number + 1) / len(pieces)),
            )
            denoised = self.denoise_tile(tile, method, options, device)
            arrays.write(result, self.layout.index(self.index, tile.inner), self.layout.from_engine(denoised))
            progress((number + 1) / len(pieces))

    def denoise_tile(self, tile: Tile, method: Method, options: Options, device: torch.device) -> Tensor:
        """The inner voxels of a tile, denoised, in image units."""
        noisy = self.read(self.volume, self.layout, tile.outer, device)
        result = noisy[:, *tile.within].clone()
        inside = torch.ones_like(result[0], dtype=torch.bool)
        if self.mask is not None:
            inside &= self.read(self.mask, self.layout.spatial(self.mask, "mask"), tile.inner, device)[0] != 0
        relative: float | Tensor = 1.0
        if self.sigma_map is not None:
            relative = self.read(self.sigma_map, self.layout.spatial(self.sigma_map, "sigma"), tile.outer, device)[0]
            relative = (relative / max(self.sigma[0], TINY)).float()
            inside &= relative[tile.within] > 0
            relative = relative.clamp_min(LEAST_RELATIVE_SIGMA)
        present = [channel for channel, sigma in enumerate(self.sigma) if sigma > 0]
        if not present or not bool(inside.any()):
            return result

        unit = noisy.new_tensor([self.sigma[c] for c in present])[:, None, None, None]
        shift = noisy.new_tensor([self.shift[c] for c in present])[:, None, None, None]
        if self.settings.h is not None:
            options = dataclasses.replace(options, h=self.settings.h / (sum(self.sigma) / len(present)))
        denoised = method.run(((noisy[present] - shift) / unit).float(), relative, options)[:, *tile.within]
        denoised = denoised.to(noisy.dtype) * unit + shift
        if self.settings.noise == "rician":
            scale = unit if isinstance(relative, float) else unit * relative[tile.within]
            denoised = without_rician_bias(denoised, scale)
        result[present] = torch.where(inside, denoised, result[present])
        return result

    def read(self, array: arrays.Array, layout: Layout, piece: Piece, device: torch.device) -> Tensor:
        dtype = torch.float64 if arrays.is_wide(array) else torch.float32
        index = layout.index(self.index if array is self.volume else 0, piece)
        return layout.to_engine(arrays.read(array, index, dtype, device))


CONVERSION_BYTES = 24
"""Per voxel and channel, for the tile as read, in units of sigma, and on its way back."""

NEGLIGIBLE = 1e-12
"""Sigma beside the largest value; where it is less there is no noise to speak of, and values / sigma leave float32."""

LEAST_RELATIVE_SIGMA = 1e-4
"""Beside the map's largest value; where it is less, the noise is far below float32's own rounding."""

TINY = 1e-38


def noise_levels(
    volume: arrays.Array, index: int, layout: Layout, settings: Settings, mask: arrays.Array | None
) -> tuple[float, ...]:
    """Sigma of each channel of one volume, as given or estimated."""
    channels = len(layout.channel_pieces(index))
    if settings.sigma is None:
        one = volume[layout.index(index, layout.everywhere)]
        estimate = estimate_sigma(one, noise=settings.noise, mask=mask, channels=layout.channels, series=layout.series)
        levels = tuple(np.ravel(estimate).tolist())
        log.info("estimated sigma %s", levels)
        return levels
    if isinstance(settings.sigma, float):
        return (settings.sigma,) * channels
    expected = layout.volumes if layout.series is not None else channels
    if len(settings.sigma) != expected or (layout.series is None and layout.channels is None):
        raise ValueError(
            f"sigma has {len(settings.sigma)} numbers; give one, or one per volume of series= or channel of channels= "
            f"(here {expected}), or an array of the spatial shape {layout.spatial_shape}"
        )
    return (settings.sigma[index],) * channels if layout.series is not None else settings.sigma
