"""Sigma, SNR and CNR as metrics of MONAI: alone, in lists, and as handlers of an ignite engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler
from torch import Tensor

from monai_transforms import CNRMetric, NonLocalMeans, SigmaMetric, SNRMetric

SHAPE = (24, 24, 24)
SIGMA = 4.0


@pytest.fixture(scope="module")
def labels() -> Tensor:
    """Label 0 in the first third, then 1, then 2; the same for two images."""
    return (torch.arange(24) // 8).float()[:, None, None].expand(2, 1, *SHAPE).contiguous()


@pytest.fixture(scope="module")
def noisy(labels: Tensor) -> Tensor:
    """The second image has twice the noise of the first."""
    generator = torch.Generator().manual_seed(0)
    noise = SIGMA * torch.randn(2, 1, *SHAPE, generator=generator)
    return 40 * labels + noise * torch.tensor([1.0, 2.0])[:, None, None, None, None]


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [
        (SigmaMetric(), [4.0, 8.0]),
        (SigmaMetric(noise_label=0), [4.0, 8.0]),
        (SNRMetric(label=2), [20.0, 10.0]),
        (SNRMetric(label=2, noise_label=0), [20.0, 10.0]),
        (CNRMetric(labels=(2, 1)), [10.0, 5.0]),
        (CNRMetric(labels=(0, 1), noise_label=1), [10.0, 5.0]),
    ],
)
def test_values_are_those_of_the_phantom(metric: Any, wanted: list[float], noisy: Tensor, labels: Tensor) -> None:
    metric.reset()
    values = metric(noisy, labels)
    assert values.shape == (2, 1)
    assert values[:, 0].tolist() == pytest.approx(wanted, rel=0.06)
    assert metric.aggregate().item() == pytest.approx(sum(wanted) / 2, rel=0.06)


def test_lists_of_images_count_like_a_batch_and_calls_accumulate(noisy: Tensor, labels: Tensor) -> None:
    batch, one_by_one = SNRMetric(), SNRMetric()
    batch(noisy, labels)
    for image, label in zip(noisy, labels, strict=True):
        one_by_one([MetaTensor(image)], [MetaTensor(label)])
    torch.testing.assert_close(one_by_one.aggregate("none"), batch.aggregate("none"))
    one_by_one.reset()
    with pytest.raises(ValueError, match="no image was measured"):
        one_by_one.aggregate()


def test_channels_are_measured_one_by_one(noisy: Tensor) -> None:
    together = noisy.transpose(0, 1)  # (1, 2, ...)
    values = SigmaMetric(reduction="mean_batch")
    values(together)
    assert values.aggregate().tolist() == pytest.approx([4, 8], rel=0.06)


def test_an_image_without_the_region_is_left_out(noisy: Tensor, labels: Tensor) -> None:
    some = labels.clone()
    some[1] = 0
    metric = SNRMetric(label=2, get_not_nans=True)
    values = metric(noisy, some)
    assert values.isnan().flatten().tolist() == [False, True]
    mean, counted = metric.aggregate()
    assert (mean.item(), counted.item()) == (pytest.approx(20, rel=0.06), 1)


def test_denoising_raises_the_contrast_to_noise_ratio(noisy: Tensor, labels: Tensor) -> None:
    before, after = (CNRMetric(noise_label=0) for _ in range(2))
    before(noisy[:1], labels[:1])
    after(NonLocalMeans(sigma=SIGMA, method="classic")(noisy[0])[None], labels[:1])
    assert after.aggregate() > 2 * before.aggregate()


def test_an_engine_reports_it_through_the_handler_of_monai(noisy: Tensor, labels: Tensor) -> None:
    engine = Engine(lambda engine, batch: batch)
    IgniteMetricHandler(metric_fn=SNRMetric(label=2), save_details=True).attach(engine, "snr")
    pairs = [([image], [label]) for image, label in zip(noisy, labels, strict=True)]
    engine.run(pairs, max_epochs=2)
    assert engine.state.metrics["snr"] == pytest.approx(15, rel=0.06)
    assert engine.state.metric_details["snr"].shape == (2, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CNRMetric(labels=(1, 1)), "two different labels"),
        (lambda: SigmaMetric(noise="white"), "noise='white'"),
        (lambda: SNRMetric(label=1.5), "label"),  # type: ignore[arg-type]
        (lambda: SNRMetric()(torch.rand(1, 1, 8, 8)), "y is missing"),
        (lambda: SNRMetric()(torch.rand(1, 1, 8, 8), torch.ones(1, 3, 8, 8)), "argmax"),
        (lambda: SigmaMetric()(torch.rand(8, 8, 8)), "y_pred has shape"),
    ],
)
def test_wrong_arguments_are_refused_with_a_remedy(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()
