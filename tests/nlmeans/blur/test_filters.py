"""Both filters compared with kernels written out for every voxel, and what must always hold."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nlmeans import blur
from nlmeans.blur import gaussian_blur, gaussian_kernel, local_gaussian_blur
from nlmeans.blur.covariance import COVARIANCE_TYPES

SHAPES = {1: (11,), 2: (7, 8), 3: (4, 5, 6)}
SPACING = {1: (0.8,), 2: (1.0, 1.5), 3: (2.0, 0.7, 1.0)}
KERNEL_SIZE = {1: (7,), 2: (5, 3), 3: (3, 5, 3)}
CASES = list(itertools.product(SHAPES, COVARIANCE_TYPES))


def matrices_of(covariance: Tensor, covariance_type: str, dimensions: int) -> Tensor:
    """Covariances of any type as (..., D, D)."""
    if covariance_type == "full":
        return (covariance + covariance.mT) / 2
    per_axis = (
        covariance if covariance_type == "diagonal" else covariance[..., None].expand((*covariance.shape, dimensions))
    )
    return torch.diag_embed(per_axis)


def kernels_of(matrices: Tensor, size: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """The offsets in voxels (K, D) and the kernels (..., K), from the formula."""
    axes = [torch.arange(-(n // 2), n // 2 + 1) for n in size]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(size))
    places = offsets.double() * torch.tensor(spacing, dtype=torch.float64)
    distance = torch.einsum("oa,...ab,ob->...o", places, torch.linalg.inv(matrices), places)
    weights = torch.exp(-0.5 * distance)
    return offsets, weights / weights.sum(-1, keepdim=True)


def im2col(
    image: Tensor, matrices: Tensor, size: tuple[int, ...], spacing: tuple[float, ...], padding: str = "reflect"
) -> Tensor:
    """Multiply the columns of the image by the stacked kernels, in float64."""
    offsets, kernels = kernels_of(matrices.double(), size, spacing)
    radius = [n // 2 for n in size]
    index = torch.from_numpy(np.pad(np.arange(image.numel()).reshape(image.shape), [(r, r) for r in radius], "reflect"))
    padded = image.double().flatten()[index]
    if padding == "zeros":
        inside = np.pad(np.ones(image.shape), [(r, r) for r in radius])
        padded = padded * torch.from_numpy(inside)
    columns = [
        padded[tuple(slice(r + int(o), r + int(o) + n) for r, o, n in zip(radius, offset, image.shape, strict=True))]
        for offset in offsets
    ]
    return (torch.stack(columns, -1) * kernels).sum(-1)


def random_covariance(shape: tuple[int, ...], covariance_type: str, dimensions: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    form = {"spherical": (), "diagonal": (dimensions,), "full": (dimensions, dimensions)}[covariance_type]
    values = torch.rand((*shape, *form), generator=random, dtype=torch.float64)
    if covariance_type == "full":
        return (values - 0.5) @ (values - 0.5).mT + 0.3 * torch.eye(dimensions)
    return 0.3 + values


def random_image(dimensions: int, seed: int = 1) -> Tensor:
    return torch.rand(SHAPES[dimensions], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("padding", blur.PADDINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("dimensions", "covariance_type"), CASES)
def test_a_local_blur_is_the_columns_times_the_kernels(
    dimensions: int, covariance_type: str, dtype: torch.dtype, padding: str
) -> None:
    image = random_image(dimensions).to(dtype)
    covariance = random_covariance(SHAPES[dimensions], covariance_type, dimensions).to(dtype)
    size, spacing = KERNEL_SIZE[dimensions], SPACING[dimensions]
    matrices = matrices_of(covariance.double(), covariance_type, dimensions)
    expected = im2col(image, matrices, size, spacing, padding)
    result = local_gaussian_blur(image, covariance, kernel_size=size, spacing=spacing, padding=padding)
    assert result.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("padding", blur.PADDINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("dimensions", "covariance_type"), CASES)
def test_a_blur_is_the_columns_times_the_kernel(
    dimensions: int, covariance_type: str, dtype: torch.dtype, padding: str
) -> None:
    image = random_image(dimensions).to(dtype)
    covariance = random_covariance((), covariance_type, dimensions).to(dtype)
    size, spacing = KERNEL_SIZE[dimensions], SPACING[dimensions]
    expected = im2col(image, matrices_of(covariance.double(), covariance_type, dimensions), size, spacing, padding)
    result = gaussian_blur(image, covariance, kernel_size=size, spacing=spacing, padding=padding)
    assert result.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("padding", blur.PADDINGS)
@pytest.mark.parametrize(("dimensions", "covariance_type"), CASES)
def test_the_derivatives_of_a_local_blur_are_right(dimensions: int, covariance_type: str, padding: str) -> None:
    image = random_image(dimensions).requires_grad_()
    covariance = random_covariance(SHAPES[dimensions], covariance_type, dimensions).requires_grad_()
    size, spacing = KERNEL_SIZE[dimensions], SPACING[dimensions]

    def blurred(image: Tensor, covariance: Tensor) -> Tensor:
        return local_gaussian_blur(image, covariance, kernel_size=size, spacing=spacing, padding=padding)

    assert torch.autograd.gradcheck(blurred, (image, covariance), fast_mode=dimensions == 3)


@pytest.mark.parametrize(("dimensions", "covariance_type"), CASES)
def test_the_derivatives_of_a_blur_are_right(dimensions: int, covariance_type: str) -> None:
    image = random_image(dimensions).requires_grad_()
    covariance = random_covariance((), covariance_type, dimensions).requires_grad_()

    def blurred(image: Tensor, covariance: Tensor) -> Tensor:
        return gaussian_blur(image, covariance, spacing=SPACING[dimensions])

    assert torch.autograd.gradcheck(blurred, (image, covariance), fast_mode=dimensions == 3)


@pytest.mark.parametrize(("dimensions", "covariance_type"), CASES)
def test_the_derivatives_of_kernels_are_right(dimensions: int, covariance_type: str) -> None:
    def kernels(covariance: Tensor) -> Tensor:
        options: dict[str, Any] = {"covariance_type": covariance_type, "spacing": SPACING[dimensions]}
        return gaussian_kernel(covariance, dimensions, **options)

    for many in ((), (2, 3)):
        covariance = random_covariance(many, covariance_type, dimensions).requires_grad_()
        assert torch.autograd.gradcheck(kernels, (covariance,), fast_mode=dimensions == 3)


@pytest.mark.parametrize(("dimensions", "covariance_type"), CASES)
def test_float32_has_the_derivatives_of_float64(dimensions: int, covariance_type: str) -> None:
    derivatives = []
    for dtype in (torch.float64, torch.float32):
        image = random_image(dimensions).to(dtype).requires_grad_()
        covariance = random_covariance(SHAPES[dimensions], covariance_type, dimensions).to(dtype).requires_grad_()
        result = local_gaussian_blur(image, covariance, kernel_size=KERNEL_SIZE[dimensions])
        (result * random_image(dimensions, seed=2)).sum().backward()
        derivatives.append((image.grad, covariance.grad))
    for exact, single in zip(*derivatives, strict=True):
        assert float((single.double() - exact).norm() / exact.norm()) < 1e-5


@pytest.mark.parametrize(("dimensions", "covariance_type"), CASES)
def test_kernels_follow_the_formula_one_by_one_and_together(dimensions: int, covariance_type: str) -> None:
    covariance = random_covariance((2, 3), covariance_type, dimensions)
    options: dict[str, Any] = {"kernel_size": KERNEL_SIZE[dimensions], "spacing": SPACING[dimensions]}
    _, expected = kernels_of(matrices_of(covariance, covariance_type, dimensions), *options.values())
    kernels = gaussian_kernel(covariance, dimensions, covariance_type=covariance_type, **options)
    assert kernels.shape == (2, 3, *KERNEL_SIZE[dimensions])
    torch.testing.assert_close(kernels.flatten(2), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(gaussian_kernel(covariance[1, 2], dimensions, **options), kernels[1, 2])


def test_a_kernel_covers_the_standard_deviations_asked_for() -> None:
    assert gaussian_kernel(9.0, 1).shape == (13,)
    assert gaussian_kernel(9.0, 1, std_devs=3).shape == (19,)
    assert gaussian_kernel(9.1, 1).shape == (15,)
    assert gaussian_kernel((4.0, 0.01), 2).shape == (9, 3)
    assert gaussian_kernel(9.0, spacing=(1.0, 2.0, 5.0)).shape == (13, 7, 5)
    assert gaussian_kernel(((4.0, 1.0), (1.0, 1.0))).shape == (9, 5)
    assert gaussian_kernel(np.array([1.0, 9.0]), 1, covariance_type="spherical").shape == (2, 13)
    assert gaussian_kernel(1.0, 2, kernel_size=7).shape == (7, 7)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("dimensions", SHAPES)
def test_a_constant_image_stays_constant(dimensions: int, covariance_type: str) -> None:
    image = np.full(SHAPES[dimensions], 300.0, np.float32)
    everywhere = random_covariance(SHAPES[dimensions], covariance_type, dimensions).numpy() * 4
    one = random_covariance((), covariance_type, dimensions) * 4
    assert (local_gaussian_blur(image, everywhere) == image).all()
    assert (local_gaussian_blur(image.astype(np.float64), everywhere) == image).all()
    np.testing.assert_allclose(gaussian_blur(image, one), image, rtol=1e-6)
    assert (gaussian_blur(image.astype(np.int16), one) == 300).all()


def test_beyond_zero_padding_there_is_nothing() -> None:
    image, variance = torch.ones(9), torch.ones(9)
    kernel = gaussian_kernel(1.0, 1)
    expected = torch.stack([kernel[2:].sum(), kernel[1:].sum(), kernel.sum()])
    torch.testing.assert_close(local_gaussian_blur(image, variance, padding="zeros")[:3], expected)
    torch.testing.assert_close(gaussian_blur(image, 1.0, padding="zeros")[:3], expected)


def test_a_kernel_may_be_larger_than_the_image() -> None:
    image, variance = torch.rand(3, 4), torch.full((3, 4), 30.0)
    expected = im2col(image, matrices_of(variance.double(), "spherical", 2), (23, 23), (1.0, 1.0))
    torch.testing.assert_close(local_gaussian_blur(image, variance).double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(gaussian_blur(image, 30.0).double(), expected, rtol=0, atol=1e-6)


def test_an_offset_of_the_image_does_not_spoil_derivatives_in_float32() -> None:
    image = random_image(3)
    exact, single = (random_covariance(SHAPES[3], "full", 3).to(dtype) for dtype in (torch.float64, torch.float32))
    local_gaussian_blur(image, exact.requires_grad_()).square().sum().backward()
    shifted = (image + 64).float()
    ((local_gaussian_blur(shifted, single.requires_grad_()) - 64).square().sum()).backward()
    assert float((single.grad.double() - exact.grad).norm() / exact.grad.norm()) < 1e-4


def test_where_all_covariances_are_equal_a_local_blur_is_a_blur() -> None:
    image = torch.rand(6, 7, 8)
    for covariance in (torch.tensor(2.0), torch.tensor([1.0, 2.0, 3.0]), torch.eye(3) + 0.5):
        everywhere = covariance.expand(*image.shape, *covariance.shape)
        torch.testing.assert_close(local_gaussian_blur(image, everywhere), gaussian_blur(image, covariance))


def test_a_thin_oblique_kernel_is_accurate_in_float32() -> None:
    angle = torch.tensor(0.5)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    covariance = (turn @ torch.diag(torch.tensor([9.0, 0.02])) @ turn.T).expand(20, 21, 2, 2)
    image = torch.rand(20, 21)
    expected = im2col(image, covariance.double(), (13, 13), (1.0, 1.0))
    result = local_gaussian_blur(image, covariance, kernel_size=13)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kernel_of_one_voxel_changes_nothing(covariance_type: str, dtype: torch.dtype) -> None:
    image = torch.rand(4, 5, dtype=dtype, requires_grad=True)
    covariance = random_covariance((4, 5), covariance_type, 2).to(dtype).requires_grad_()
    result = local_gaussian_blur(image, covariance, kernel_size=1)
    result.sum().backward()
    assert torch.equal(result, image)
    assert bool((image.grad == 1).all())
    assert bool((covariance.grad == 0).all())


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_kept_for_the_derivative_does_not_grow_with_the_kernel(
    covariance_type: str, dtype: torch.dtype
) -> None:
    image = torch.rand(30, 31, dtype=dtype, requires_grad=True)
    covariance = random_covariance((30, 31), covariance_type, 2).to(dtype).requires_grad_()

    def kept(kernel_size: int) -> int:
        sizes = {}

        def note(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            local_gaussian_blur(image, covariance, kernel_size=kernel_size)
        padded = (30 + kernel_size - 1) * (31 + kernel_size - 1)
        return sum(sizes.values()) - padded

    assert kept(3) == kept(21)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dimensions", "covariance_type"), CASES)
def test_a_gpu_gives_what_the_cpu_gives(dimensions: int, covariance_type: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        image = random_image(dimensions).to(device).requires_grad_()
        covariance = random_covariance(SHAPES[dimensions], covariance_type, dimensions).to(device).requires_grad_()
        result = local_gaussian_blur(image, covariance)
        result.square().sum().backward()
        found.append([tensor.detach().cpu() for tensor in (result, image.grad, covariance.grad)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_tiny_variance_leaves_the_image_as_it_is() -> None:
    image = torch.rand(6, 7)
    assert torch.equal(local_gaussian_blur(image, torch.full((6, 7), 1e-20)), image)
    assert torch.equal(gaussian_blur(image, 1e-20), image)


def test_batch_and_channels_may_share_covariances_or_not() -> None:
    images = torch.rand(2, 3, 6, 7)
    options: dict[str, Any] = {"kernel_size": 5}
    for lead in itertools.product((1, 2), (1, 3)):
        covariance = random_covariance((*lead, 6, 7), "full", 2).float()
        result = local_gaussian_blur(images, covariance, spatial_dims=2, **options)
        every = covariance.expand(2, 3, 6, 7, 2, 2)
        for n, c in itertools.product(range(2), range(3)):
            expected = local_gaussian_blur(images[n, c], every[n, c], **options)
            torch.testing.assert_close(result[n, c], expected)
    one = gaussian_blur(images, 2.0, spatial_dims=2)
    torch.testing.assert_close(one[1, 2], gaussian_blur(images[1, 2], 2.0))


def test_derivatives_reach_covariances_that_images_share() -> None:
    images = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    for lead in itertools.product((1, 2), (1, 3)):
        covariance = random_covariance((*lead, 4, 5), "diagonal", 2).requires_grad_()

        def blurred(images: Tensor, covariance: Tensor) -> Tensor:
            return local_gaussian_blur(images, covariance, spatial_dims=2, kernel_size=3)

        assert torch.autograd.gradcheck(blurred, (images, covariance), fast_mode=True)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float16, np.float32, np.float64])
def test_arrays_come_back_as_they_came(dtype: Any) -> None:
    image = (np.random.default_rng(0).random((6, 7)) * 200).astype(dtype)
    copy = image.copy()
    for result in (gaussian_blur(image, 1.0), local_gaussian_blur(image, np.ones((6, 7)))):
        assert isinstance(result, np.ndarray)
        assert result.dtype == dtype
        np.testing.assert_allclose(result, gaussian_blur(image.astype(float), 1.0), rtol=2e-3, atol=0.5001)
    tensor = torch.from_numpy(image)
    assert gaussian_blur(tensor, 1.0).dtype == local_gaussian_blur(tensor, torch.ones(6, 7)).dtype == tensor.dtype
    assert (image == copy).all()
    assert isinstance(gaussian_kernel(np.array(1.0), 2), np.ndarray)


def test_strides_do_not_matter() -> None:
    image, variance = torch.rand(8, 6).T, torch.rand(8, 12).add(0.5).T[::2]
    expected = local_gaussian_blur(image.contiguous(), variance.contiguous())
    assert torch.equal(local_gaussian_blur(image, variance), expected)
    flipped = local_gaussian_blur(image.numpy()[::-1], variance.numpy()[::-1])
    np.testing.assert_allclose(flipped[::-1], expected, rtol=1e-6)


def test_only_the_derivative_asked_for_is_computed() -> None:
    image, variance = torch.rand(6, 7), torch.ones(6, 7, requires_grad=True)
    local_gaussian_blur(image, variance).sum().backward()
    assert image.grad is None
    assert variance.grad is not None
    image.requires_grad_()
    local_gaussian_blur(image, variance.detach()).sum().backward()
    assert image.grad is not None


def test_a_kernel_size_that_changes_with_the_covariance_is_not_differentiated() -> None:
    image = torch.rand(30, dtype=torch.float64)
    derivatives = []
    for kernel_size in (None, 9):
        variance = torch.full((30,), 4.0, dtype=torch.float64, requires_grad=True)
        local_gaussian_blur(image, variance, kernel_size=kernel_size).square().sum().backward()
        derivatives.append(variance.grad)
    assert torch.equal(derivatives[0], derivatives[1])


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_second_derivative_is_refused(covariance_type: str) -> None:
    image = torch.rand(5, 6, dtype=torch.float64, requires_grad=True)
    for filtered in (
        local_gaussian_blur(image, random_covariance((5, 6), covariance_type, 2).requires_grad_()),
        gaussian_blur(image, random_covariance((), covariance_type, 2).requires_grad_()),
    ):
        (first,) = torch.autograd.grad(filtered.square().sum(), image, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


ONE = torch.ones(4, 5)
REFUSED: dict[str, tuple[Any, str]] = {
    "image of four axes": (lambda: gaussian_blur(torch.ones(1, 1, 4, 5), 1.0), "spatial_dims="),
    "more spatial axes than the image has": (lambda: gaussian_blur(ONE, 1.0, spatial_dims=3), "spatial_dims=3"),
    "image with NaN": (lambda: gaussian_blur(ONE * torch.nan, 1.0), "image contains NaN"),
    "complex image": (lambda: gaussian_blur(ONE + 1j, 1.0), "image has dtype"),
    "empty image": (lambda: gaussian_blur(ONE[:0], 1.0), "image has shape"),
    "covariance with NaN": (lambda: local_gaussian_blur(ONE, ONE * torch.nan), "covariance contains NaN"),
    "variance 0": (lambda: gaussian_blur(ONE, 0.0), "must be greater than 0"),
    "negative variance": (lambda: local_gaussian_blur(ONE, ONE - 2), "must be greater than 0"),
    "text": (lambda: gaussian_blur(ONE, "wide"), "covariance='wide' must be"),
    "three variances for two axes": (lambda: gaussian_blur(ONE, (1.0, 2.0, 3.0)), "diagonal one in 2 dimensions"),
    "many for one": (lambda: gaussian_blur(ONE, torch.ones(4, 5, 2)), "local_gaussian_blur one per voxel"),
    "indefinite matrix": (lambda: gaussian_blur(ONE, ((1.0, 2.0), (2.0, 1.0))), "not positive definite"),
    "singular matrix": (lambda: gaussian_blur(ONE, ((1.0, 1.0), (1.0, 1.0))), "not positive definite"),
    "map of another shape": (lambda: local_gaussian_blur(ONE, torch.ones(4, 6)), r"give \(4, 5\), \(4, 5, 2\)"),
    "map without the leading axes": (lambda: local_gaussian_blur(ONE[None], ONE, spatial_dims=2), "length 1"),
    "even kernel": (lambda: gaussian_blur(ONE, 1.0, kernel_size=4), "kernel_size=4 must be an odd number"),
    "kernel sizes for other axes": (lambda: gaussian_blur(ONE, 1.0, kernel_size=(3, 3, 3)), "one per spatial axis: 2"),
    "no standard deviations": (lambda: gaussian_blur(ONE, 1.0, std_devs=0), "std_devs=0"),
    "spacing of other axes": (lambda: gaussian_blur(ONE, 1.0, spacing=(1, 1, 1)), "one number per spatial axis: 2"),
    "negative spacing": (lambda: gaussian_blur(ONE, 1.0, spacing=(1, -1)), "spacing=-1.0"),
    "unknown padding": (lambda: gaussian_blur(ONE, 1.0, padding="wrap"), "'reflect', 'zeros'"),
    "kernel of unknown dimension": (lambda: gaussian_kernel(1.0), "give spatial_dims= or spacing="),
    "kernel of four dimensions": (lambda: gaussian_kernel(1.0, 4), "spatial_dims=4 must be 1, 2 or 3"),
    "unknown type": (lambda: gaussian_kernel(1.0, 2, covariance_type="round"), "covariance_type='round'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_the_engine_offers_it_by_name() -> None:
    import nlmeans

    assert nlmeans.blur.gaussian_kernel is gaussian_kernel


def test_a_plain_number_has_all_its_digits_for_an_image_in_float64() -> None:
    image = np.random.default_rng(0).random((6, 7))
    expected = gaussian_blur(image, np.array(1.0 / 3), kernel_size=5)
    np.testing.assert_allclose(gaussian_blur(image, 1.0 / 3, kernel_size=5), expected, rtol=1e-14)
