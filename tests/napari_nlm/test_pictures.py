"""What a mode needs of a picture, and what its layers hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_nlm.geometry import View
from napari_nlm.pictures import (
    COMPARE_MODES,
    DENOISED,
    EXACT_REGION,
    ORIGINAL,
    REMOVED,
    SIDE_BY_SIDE,
    SPLIT,
    Scene,
    denoised_part,
    outline,
)
from tests.napari_nlm.images import picture, volume

PART = View((1, 2), (slice(3, 4), slice(8, 16), slice(9, 17)), True)

NEEDED = {
    DENOISED: {DENOISED},
    SPLIT: {ORIGINAL, DENOISED},
    SIDE_BY_SIDE: {ORIGINAL, DENOISED, REMOVED},
    REMOVED: {REMOVED},
}


@pytest.mark.parametrize("mode", COMPARE_MODES)
def test_a_mode_needs_its_layers_and_the_outline_of_what_is_exact(mode: str) -> None:
    whole = picture(ViewerModel().add_image(volume(), name="scan"))
    part = replace(whole, exact=PART)
    assert Scene(whole, mode, 0.5, covered=False).wanted == NEEDED[mode]
    outlined = set() if mode == SIDE_BY_SIDE else {EXACT_REGION}
    assert Scene(part, mode, 0.5, covered=False).wanted == NEEDED[mode] | outlined
    assert Scene(whole, mode, 0.5, covered=True).wanted == (set() if mode == DENOISED else NEEDED[mode])


@pytest.mark.parametrize("split", [0.0, 1.0])
def test_a_line_at_the_edge_leaves_all_or_nothing_of_the_denoised_slice(split: float) -> None:
    content = Scene(picture(ViewerModel().add_image(volume(), name="scan")), SPLIT, split, False).content(DENOISED)
    assert (content is None) == (split == 1.0)
    if content is not None:
        assert content.data.shape == (1, 24, 28)


def test_the_outline_goes_once_around() -> None:
    lines = outline(PART).data
    ends = lines.sum(1)
    np.testing.assert_array_equal(ends, np.roll(lines[:, 0], -1, 0))
    np.testing.assert_array_equal(lines[:, 0].min(0), (3, 7.5, 8.5))
    np.testing.assert_array_equal(lines[:, 0].max(0), (3, 15.5, 16.5))


@pytest.mark.parametrize(("size", "columns"), [(1.0, slice(7, 28)), (-1.0, slice(0, 21))])
def test_what_is_denoised_lies_right_of_the_line_on_the_canvas(size: float, columns: slice) -> None:
    viewer = ViewerModel()
    source = viewer.add_image(volume(), name="scan", scale=(1, 1, size))
    box, _ = denoised_part(picture(source), 0.25)
    assert box[2] == columns
