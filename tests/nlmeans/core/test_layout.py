"""The meaning of axes: from an array to (C, D, H, W) and back."""

from __future__ import annotations

import pytest
import torch

from nlmeans.core.layout import Layout

CASES = [
    # shape of the array, channels, series, (C, D, H, W), volumes
    ((5, 6), None, None, (1, 1, 5, 6), 1),
    ((4, 5, 6), None, None, (1, 4, 5, 6), 1),
    ((5, 6, 3), 2, None, (3, 1, 5, 6), 1),
    ((5, 6, 3), -1, None, (3, 1, 5, 6), 1),
    ((3, 4, 5, 6), 0, None, (3, 4, 5, 6), 1),
    ((4, 3, 5, 6), 1, None, (3, 4, 5, 6), 1),
    ((5, 6, 7), None, 2, (1, 1, 5, 6), 7),
    ((4, 5, 6, 7), None, -1, (1, 4, 5, 6), 7),
    ((4, 7, 5, 6), None, 1, (1, 4, 5, 6), 7),
    ((7, 3, 4, 5, 6), 1, 0, (3, 4, 5, 6), 7),
    ((3, 4, 5, 6, 7), 0, 4, (3, 4, 5, 6), 7),
    ((4, 7, 5, 3, 6), 3, 1, (3, 4, 5, 6), 7),
    ((4, 3, 5, 7, 6), 1, 3, (3, 4, 5, 6), 7),
    ((5, 3, 7, 6), 1, 2, (3, 1, 5, 6), 7),
]


@pytest.mark.parametrize(("shape", "channels", "series", "engine", "volumes"), CASES)
def test_a_volume_of_any_layout_goes_to_the_engine_and_back(
    shape: tuple[int, ...],
    channels: int | None,
    series: int | None,
    engine: tuple[int, int, int, int],
    volumes: int,
) -> None:
    array = torch.arange(torch.Size(shape).numel()).reshape(shape)
    layout = Layout.of(array, channels, series)
    assert layout.shape == engine[1:]
    assert layout.volumes == volumes
    copied = torch.full_like(array, -1)
    for volume in range(volumes):
        index = layout.index(volume, layout.everywhere)
        values = layout.to_engine(array[index])
        assert values.shape == engine
        copied[index] = layout.from_engine(values)
    assert torch.equal(copied, array)


@pytest.mark.parametrize(("shape", "channels", "series", "engine", "volumes"), CASES)
def test_channels_are_found_where_they_lie(
    shape: tuple[int, ...],
    channels: int | None,
    series: int | None,
    engine: tuple[int, int, int, int],
    volumes: int,
) -> None:
    array = torch.arange(torch.Size(shape).numel()).reshape(shape)
    layout = Layout.of(array, channels, series)
    values = layout.to_engine(array[layout.index(volumes - 1, layout.everywhere)])
    pieces = layout.channel_pieces(volumes - 1, layout.everywhere)
    assert len(pieces) == engine[0]
    for channel, piece in zip(values, pieces, strict=True):
        assert torch.equal(array[piece].flatten().sort().values, channel.flatten().sort().values)


def test_a_piece_is_cut_from_the_spatial_axes() -> None:
    array = torch.arange(7 * 4 * 5 * 6).reshape(4, 7, 5, 6)
    layout = Layout.of(array, None, 1)
    piece = (slice(1, 3), slice(0, 2), slice(4, 6))
    assert torch.equal(layout.to_engine(array[layout.index(2, piece)])[0], array[1:3, 2, 0:2, 4:6])


def test_a_mask_has_the_spatial_axes_alone() -> None:
    layout = Layout.of(torch.zeros(7, 4, 5, 6), None, 0)
    assert layout.spatial(torch.zeros(4, 5, 6), "mask").shape == (4, 5, 6)
    with pytest.raises(ValueError, match=r"mask has shape \(7, 4, 5, 6\), but .* spatial shape \(4, 5, 6\)"):
        layout.spatial(torch.zeros(7, 4, 5, 6), "mask")


@pytest.mark.parametrize(
    ("shape", "channels", "series", "message"),
    [
        ((5,), None, None, "1 spatial axes"),
        ((4, 4, 5, 6), None, None, "4 spatial axes"),
        ((5, 6), 0, None, "1 spatial axes"),
        ((4, 5, 6), 1, -2, "channels=1 and series=1 name the same axis"),
        ((4, 5, 6), 3, None, "channels=3 is not an axis of an array with 3 axes"),
        ((4, 5, 6), None, -4, "series=-4 is not an axis"),
    ],
)
def test_axes_are_never_guessed(shape: tuple[int, ...], channels: int | None, series: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layout.of(torch.zeros(shape), channels, series)


def test_a_region_becomes_a_box_with_bounds() -> None:
    volume, image = Layout((4, 5, 6), None, None), Layout((5, 6, 3), 2, None)
    assert volume.piece((slice(1, 3), slice(None), slice(-2, None))) == (slice(1, 3), slice(0, 5), slice(4, 6))
    assert image.piece((slice(2), slice(3, 100))) == (slice(0, 1), slice(0, 2), slice(3, 6))


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((slice(1, 3),), r"must have one slice with step 1 for each spatial axis of \(4, 5, 6\)"),
        ((slice(0, 4, 2), slice(None), slice(None)), "must have one slice with step 1"),
        ((slice(2, 2), slice(None), slice(None)), r"contains no voxel of the spatial shape \(4, 5, 6\)"),
    ],
)
def test_other_regions_are_refused(region: tuple[slice, ...], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^region=.* {message}"):
        Layout((4, 5, 6), None, None).piece(region)


@pytest.mark.parametrize(("shape", "channels", "series", "engine", "volumes"), CASES)
def test_an_array_for_a_piece_of_every_volume_has_the_shape_of_such_pieces(
    shape: tuple[int, ...],
    channels: int | None,
    series: int | None,
    engine: tuple[int, int, int, int],
    volumes: int,
) -> None:
    array = torch.zeros(shape)
    layout = Layout.of(array, channels, series)
    box = (slice(0, 1), slice(1, 4), slice(2, 5))
    one = list(array[layout.index(0, box)].shape)
    if layout.series is not None:
        one[layout.series] = volumes
    assert layout.array_shape_of(box) == tuple(one)
