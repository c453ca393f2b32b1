"""The choice that method="auto" makes."""

from __future__ import annotations

import math

import pytest

from nlmeans import METHODS, denoise
from nlmeans.core.axes import Axes
from nlmeans.methods.automatic import LARGE_VOLUME, MOST_OVERLAP, SMALL_VOLUME, overlap, pick_method
from tests.nlmeans.volumes import noisy_piecewise

SIGMA = 10.0


def test_auto_is_best_for_small_volumes() -> None:
    assert pick_method((96, 96, 96), 1, "auto", 2**31)[0] == "best"
    assert pick_method((128, 128, 64), 1, "auto", 2**31)[0] == "best"
    assert SMALL_VOLUME == 128 * 128 * 64


def test_auto_is_bayes_for_images_and_larger_volumes_where_time_and_memory_allow_it() -> None:
    assert pick_method((129, 128, 64), 1, "auto", 2**31)[0] == "bayes"
    assert pick_method((1, 512, 512), 1, "auto", 2**31)[0] == "bayes"


@pytest.mark.parametrize(
    ("shape", "backend", "memory", "name", "reason"),
    [
        ((96, 112, 96), "windowed", 2**31, "classic", "backend='windowed'"),
        ((256, 256, 256), "auto", 2**25, "wiener", "tiles of bayes do not fit into the memory"),
        ((64, 64, 64), "auto", 2**18, "classic", "tiles of wiener do not fit into the memory"),
        (
            (1000, 900, 800),
            "auto",
            2**37,
            "wiener",
            "more than ten minutes on two cores for 720,000,000 voxels",
        ),
    ],
)
def test_auto_says_why_it_is_another(shape: Axes, backend: str, memory: int, name: str, reason: str) -> None:
    picked, why = pick_method(shape, 1, backend, memory)
    assert picked == name
    assert reason in why


def test_auto_names_its_choice_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    _, image = noisy_piecewise(8, 9, 10, sigma=SIGMA)
    with caplog.at_level("INFO", logger="nlmeans"):
        denoise(image, SIGMA)
    assert "method auto picked best: the volume is so small that the best method takes seconds" in caplog.text


def test_time_decides_at_the_largest_volume_for_bayes() -> None:
    assert pick_method((512, 1024, 1024), 1, "auto", 2**40)[0] == "bayes"
    assert LARGE_VOLUME == 512 * 1024 * 1024
    assert pick_method((513, 1024, 1024), 1, "auto", 2**40)[0] == "wiener"


def test_the_overlap_counts_the_voxels_of_tiles_and_halos() -> None:
    assert overlap((64, 64, 64), (4, 4, 4), 1e9) == 1.0
    assert overlap((64, 64, 64), (4, 4, 4), 10) == math.inf
    assert 1 < overlap((64, 64, 64), (4, 4, 4), 40**3) < MOST_OVERLAP
    assert overlap((64, 64, 64), (4, 4, 4), 12**3) > MOST_OVERLAP


def test_more_channels_need_more_memory() -> None:
    method = METHODS["best"]
    memory = 120**3 * method.bytes_per_voxel("auto", 1, (1, 1, 1), (3, 3, 3))
    names = [pick_method((96, 96, 96), channels, "auto", memory)[0] for channels in (1, 30)]
    assert names[0] == "best"
    assert names[1] not in ("best", "bayes")
