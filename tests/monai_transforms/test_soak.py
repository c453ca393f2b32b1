"""Test that many transforms in one process leave its memory, threads and open files as they were."""

from __future__ import annotations

import pytest

pytest.importorskip("monai")

import torch
from monai.data import MetaTensor

from monai_transforms import NonLocalMeansd, RandNonLocalMeans
from tests.soak import assert_nothing_stays, rounds


def test_transforms(request: pytest.FixtureRequest) -> None:
    plain = NonLocalMeansd("image", method="classic", search_radius=1)
    at_random = RandNonLocalMeans(prob=0.5, method="dct").set_random_state(0)

    def run(index: int) -> None:
        generator = torch.Generator().manual_seed(index)
        image = MetaTensor(100 + 10 * torch.randn(1, 14, 15, 16 + index % 3, generator=generator))
        at_random(plain({"image": image})["image"])

    assert_nothing_stays(run, rounds(request, 5, 30), rounds(request, 20, 200))
