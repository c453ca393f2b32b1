"""What the removed noise says about a result."""

from __future__ import annotations

import numpy as np

from napari_nlm.verdict import verdict
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import volume

NOISE = np.random.default_rng(0).standard_normal((64, 64))
EVERYWHERE = np.ones((64, 64), bool)
SMOOTH = (NOISE + np.roll(NOISE, 1, 0) + np.roll(NOISE, 1, 1)) / 3**0.5


def test_noise_that_is_left_and_structure_that_is_gone_are_told_apart() -> None:
    assert verdict(NOISE, EVERYWHERE, 1.0, False, False) == "looks like noise alone"
    assert verdict(0.4 * NOISE, EVERYWHERE, 1.0, False, False).startswith("noise left")
    assert verdict(1.5 * NOISE, EVERYWHERE, 1.0, False, False).startswith("structure removed")
    assert verdict(SMOOTH, EVERYWHERE, 1.0, False, False).startswith("structure removed")
    assert verdict(SMOOTH, EVERYWHERE, 1.0, False, True) == "looks like noise alone"


def test_noise_below_a_grey_step_needs_nothing_and_noise_without_a_level_has_no_verdict() -> None:
    assert verdict(NOISE, EVERYWHERE, 0.2, True, False) == "noise weaker than a grey step: nothing to do"
    assert verdict(NOISE, EVERYWHERE, 0.0, True, False) == ""


def test_pixels_outside_do_not_count() -> None:
    removed, inside = np.where(np.arange(64) < 20, 9.0, NOISE), EVERYWHERE & (np.arange(64) >= 20)
    assert verdict(removed, EVERYWHERE, 1.0, False, False).startswith("structure removed")
    assert verdict(removed, inside, 1.0, False, False) == "looks like noise alone"
    assert verdict(removed, ~EVERYWHERE, 1.0, False, False) == ""
    assert verdict(np.where(inside, removed, np.nan), inside, 1.0, False, False) == "looks like noise alone"


def test_a_slice_along_any_axis_is_judged() -> None:
    for axis in range(3):
        slab = np.expand_dims(SMOOTH, axis)
        assert verdict(slab, np.ones_like(slab, bool), 1.0, False, False).startswith("structure removed")


def test_the_preview_says_when_the_strength_is_too_low(bench: Bench) -> None:
    shown: list[str] = []
    bench.session.preview.shown.connect(lambda picture: shown.append(picture.verdict))
    bench.add(volume(20, 40, 44))
    assert shown[-1] == "looks like noise alone"
    bench.session.next_run.set(strength=0.25)
    bench.settle()
    assert shown[-1].startswith("noise left")
