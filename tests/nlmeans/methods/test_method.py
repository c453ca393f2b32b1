"""Options and defaults of a method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nlmeans import METHODS, denoise
from nlmeans.core.progress import silent
from nlmeans.core.tiles import piece
from nlmeans.methods.method import Method, Options, h_of_contrast, whole_tile
from tests.nlmeans.volumes import noisy_piecewise


def test_h_grows_with_the_contrast_between_its_bounds() -> None:
    volume, flat = (3, 3, 3), (0, 3, 3)
    assert [h_of_contrast(contrast, volume) for contrast in (0, 20, 1000)] == pytest.approx([0.6, 0.77, 1.0])
    assert h_of_contrast(20, flat) == 1.0


def test_a_method_may_search_more_widely_in_a_plane() -> None:
    for name, radii in {"classic": (3, 3), "stochastic": (8, 8), "bayes": (4, 20), "series": (3, 7)}.items():
        assert tuple(METHODS[name].usual_search_radius(flat) for flat in (False, True)) == radii


def test_controls_that_a_method_is_without_change_nothing_or_hardly_anything() -> None:
    image = noisy_piecewise(14, 15, 16, sigma=10.0)[1]
    for name, method in METHODS.items():
        assert set(method.without) <= {"h", "patch_radius", "search_radius"}
        if not method.joint:
            own = denoise(image, 10.0, method=name)
            for control in method.without:
                changed = denoise(image, 10.0, method=name, **{control: 8.0 if control == "h" else 2})
                assert np.abs(changed - own).mean() < 1.0, (name, control)


def test_a_method_has_its_own_multiple_of_the_usual_strength() -> None:
    classic = METHODS["classic"]
    assert classic.h == 1
    doubled = replace(classic, h=2.0)
    assert doubled.usual_h(20, (3, 3, 3)) == pytest.approx(2 * h_of_contrast(20, (3, 3, 3)))


def test_a_stage_computes_the_tile_and_returns_the_wanted_part() -> None:
    noisy, seen = torch.rand(2, 5, 6, 7), []
    options = Options(1.0, (1, 1, 1), (3, 3, 3), "auto", 2**30)

    def stage(values: torch.Tensor, sigma: object, given: Options, progress: object) -> torch.Tensor:
        seen.append((values, sigma, given))
        return values + 1

    wanted = piece([slice(1, 4), slice(0, 6), slice(2, 3)])
    result = whole_tile(stage)(noisy, 0.5, wanted, options, silent)
    assert torch.equal(result, noisy[:, 1:4, :, 2:3] + 1)
    assert seen[0][0] is noisy
    assert seen[0][1:] == (0.5, options)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_says_its_halo_and_memory_for_volumes_and_images(name: str) -> None:
    method: Method = METHODS[name]
    for patch, search in (((1, 1, 1), (3, 3, 3)), ((0, 1, 1), (0, 3, 3))):
        halo = method.halo(patch, search)
        assert len(halo) == 3
        assert min(halo[1:]) >= 3
        one, two = (method.bytes_per_voxel("auto", channels, patch, search) for channels in (1, 2))
        assert 4 < one < two
