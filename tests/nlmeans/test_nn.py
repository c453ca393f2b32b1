"""The non-local block compared with the formula of the paper, written out with its N × N matrix in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nlmeans import nonlocal_means
from nlmeans.nn import MODES, NonLocalBlock, NonLocalMeansFilter, count_by_sorting, mean_of_positive_sums
from tests.nlmeans.graphs import GRAPHS, check_graph, saved_and_loaded

SHAPES = {1: (11,), 2: (5, 6), 3: (4, 3, 5)}
SOFTMAX = ("gaussian", "embedded_gaussian")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(20)


@pytest.fixture(params=[1, 3], ids=lambda n: f"{n} threads")
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the attention for a number of threads; 3 does not divide the number of voxels."""
    monkeypatch.setattr("nlmeans.operator.attention.threads", lambda: request.param)


def trained(channels: int = 6, spatial_dims: int = 2, **arguments: Any) -> NonLocalBlock:
    """A block in float64 whose last layer is no longer zero."""
    block = NonLocalBlock(channels, spatial_dims=spatial_dims, **arguments).double()
    for layer in (block.out, block.norm):
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    return block


def volume(channels: int = 6, spatial_dims: int = 2, batch: int = 2, **options: Any) -> Tensor:
    return torch.randn(batch, channels, *SHAPES[spatial_dims], dtype=torch.float64, **options)


def formula(block: NonLocalBlock, x: Tensor) -> Tensor:
    """z = W_z y + x from the weights of all pairs of voxels."""
    pools = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}

    def embedded(layer: nn.Module, sub_sampled: bool) -> Tensor:
        inner = x if isinstance(layer, nn.Identity) else pointwise(layer, x)
        if sub_sampled and not isinstance(block.pool, nn.Identity):
            inner = pools[x.ndim - 2](inner, 2, ceil_mode=True)
        return inner.flatten(2)

    theta, phi, g = embedded(block.theta, False), embedded(block.phi, True), embedded(block.g, True)
    products = torch.einsum("bci,bcj->bij", theta, phi)
    if block.mode in SOFTMAX:
        f = products.exp()
        weights = f / f.sum(2, keepdim=True)
    elif block.mode == "dot_product":
        weights = products / products.shape[2]
    else:
        pairs = torch.cat(
            [theta[..., None].expand(*theta.shape, phi.shape[2]), phi[:, :, None].expand(-1, -1, theta.shape[2], -1)], 1
        )
        assert block.pair is not None
        weights = torch.einsum("c,bcij->bij", block.pair.weight[0], pairs).relu() / phi.shape[2]
    y = torch.einsum("bij,bcj->bci", weights, g).reshape(len(x), -1, *x.shape[2:])
    return block.norm(pointwise(block.out, y)) + x


def pointwise(layer: Any, x: Tensor) -> Tensor:
    weight = layer.weight.flatten(1)
    return torch.einsum("kc,bc...->bk...", weight, x) + layer.bias.reshape(-1, *[1] * (x.ndim - 2))


def error(result: Tensor, expected: Tensor) -> float:
    return float((result.detach().double() - expected.detach()).abs().max() / expected.detach().abs().max())


def gradients(function: Callable[[NonLocalBlock, Tensor], Tensor], block: NonLocalBlock, x: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
    return list(torch.autograd.grad((function(block, x) * weights).sum(), [x, *block.parameters()]))


# ---------------------------------------------------------------- the formula


@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.parametrize("spatial_dims", SHAPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("threads")
def test_it_is_the_formula_and_so_are_its_gradients(mode: str, spatial_dims: int, sub_sample: bool) -> None:
    block = trained(spatial_dims=spatial_dims, mode=mode, sub_sample=sub_sample)
    x = volume(spatial_dims=spatial_dims, requires_grad=True)
    assert error(block(x), formula(block, x)) < 1e-12
    for got, expected in zip(gradients(NonLocalBlock.__call__, block, x), gradients(formula, block, x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("inter_channels", [1, 5, 9])
@pytest.mark.parametrize("mode", MODES)
def test_any_number_of_inner_channels_is_taken(mode: str, inter_channels: int) -> None:
    block, x = trained(mode=mode, inter_channels=inter_channels), volume()
    assert block.g.weight.shape == (inter_channels, 6, 1, 1)
    assert error(block(x), formula(block, x)) < 1e-12


def test_half_of_the_channels_are_the_inner_ones_unless_told() -> None:
    assert [len(NonLocalBlock(n, spatial_dims=1).g.weight) for n in (1, 2, 7, 32)] == [1, 1, 3, 16]


@pytest.mark.parametrize("mode", MODES)
def test_batch_norm_is_that_of_the_last_layer(mode: str) -> None:
    block, x = trained(mode=mode, batch_norm=True), volume()
    assert error(block(x), formula(block, x)) < 1e-12
    block.eval()
    assert error(block(x), formula(block, x)) < 1e-12


@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_gradcheck(mode: str, sub_sample: bool) -> None:
    block = trained(channels=3, mode=mode, sub_sample=sub_sample, inter_channels=2)
    parameters = dict(block.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(block, dict(zip(parameters, values, strict=True)), (x,))
        return result

    x = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *parameters.values()))


@pytest.mark.parametrize(("of_a", "of_b"), [(0.0, 0.0), (-100.0, 100.0), (100.0, -100.0), (-5.0, 0.0), (0.0, -5.0)])
def test_concatenation_loses_nothing_where_sums_cancel_or_few_are_positive(of_a: float, of_b: float) -> None:
    """Compare float32 with float64 of the same numbers: running sums of large numbers that cancel lose digits."""
    a, b = (torch.randn(2, 1500) + of_a).requires_grad_(), (torch.randn(2, 1400) + of_b).requires_grad_()
    values, weights = torch.randn(2, 1400, 3, requires_grad=True), torch.randn(2, 1500, 3)
    double = [t.detach().double().requires_grad_() for t in (a, b, values)]
    expected = (double[0][:, :, None] + double[1][:, None]).relu() @ double[2] / 1400
    result = mean_of_positive_sums(a, b, values)
    assert float((expected.detach() != 0).double().mean()) > 0.001
    assert error(result, expected) < 2e-6
    theirs = torch.autograd.grad((expected * weights).sum(), double)
    for got, exact in zip(torch.autograd.grad((result * weights).sum(), (a, b, values)), theirs, strict=True):
        assert error(got, exact) < 5e-6


def test_concatenation_of_equal_voxels_counts_every_pair() -> None:
    block, x = trained(mode="concatenation"), torch.ones(1, 6, 5, 6, dtype=torch.float64)
    assert error(block(x), formula(block, x)) < 1e-12


# ---------------------------------------------------------------- in a network


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_a_new_block_changes_nothing_and_learns(mode: str, batch_norm: bool) -> None:
    block, x = NonLocalBlock(6, spatial_dims=2, mode=mode, batch_norm=batch_norm), volume().float()
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for step in range(3):
        result = block(x)
        assert torch.equal(result, x) == (step == 0)
        optimizer.zero_grad()
        result.square().sum().backward()
        optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in block.g.parameters())


NAMES = {
    "gaussian": {"g", "out"},
    "embedded_gaussian": {"theta", "phi", "g", "out"},
    "dot_product": {"theta", "phi", "g", "out"},
    "concatenation": {"theta", "phi", "g", "out"},
}


@pytest.mark.parametrize("mode", MODES)
def test_the_names_of_saved_weights_stay(mode: str) -> None:
    """A network that was saved with the block must load again."""
    state = NonLocalBlock(6, spatial_dims=3, mode=mode, sub_sample=True).state_dict()
    expected = {f"{layer}.{kind}" for layer in NAMES[mode] for kind in ("weight", "bias")}
    assert set(state) == expected | ({"pair.weight"} if mode == "concatenation" else set())
    assert state["g.weight"].shape == (3, 6, 1, 1, 1)
    assert state["out.weight"].shape == (6, 3, 1, 1, 1)
    again = NonLocalBlock(6, spatial_dims=3, mode=mode)
    again.load_state_dict(state)
    normed = NonLocalBlock(6, spatial_dims=3, mode=mode, batch_norm=True).state_dict()
    assert {"norm.weight", "norm.running_var"} <= set(normed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("mode", MODES)
def test_half_and_single_precision_come_close(mode: str, dtype: torch.dtype) -> None:
    block, x = trained(mode=mode), volume() / 2
    expected = formula(block, x)
    result = block.to(dtype)(x.to(dtype))
    assert result.dtype == dtype
    assert error(result, expected) < (1e-5 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("mode", MODES)
def test_autocast_is_followed(mode: str) -> None:
    block, x = trained(mode=mode), volume(requires_grad=True)
    expected = formula(block, x)
    block, single = block.float(), x.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = block(single)
    result.sum().backward()
    assert result.dtype == torch.float32
    assert error(result, expected) < 0.05
    assert single.grad is not None
    assert single.grad.isfinite().all()


def test_sums_over_many_voxels_stay_within_half_precision() -> None:
    block = NonLocalBlock(2, spatial_dims=1, mode="dot_product").half()
    for parameter in block.parameters():
        nn.init.ones_(parameter)
    result = block(torch.full((1, 2, 70_000), 3.0, dtype=torch.float16))
    assert float(result[0, 0, 0].detach()) == pytest.approx(
        3 + 1 + 7**3
    )  # y = 7³; summed before the division, 70 000 · 49


@pytest.mark.parametrize("mode", ["embedded_gaussian", "concatenation"])
def test_it_compiles_into_one_graph(mode: str) -> None:
    block, x = trained(mode=mode, sub_sample=True), volume(requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    got, expected = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (compiled, block))
    torch.testing.assert_close(got, expected)


def test_channels_last_and_other_strides_are_taken() -> None:
    block, x = trained(spatial_dims=3), volume(spatial_dims=3)
    expected = formula(block, x)
    assert error(block(x.to(memory_format=torch.channels_last_3d)), expected) < 1e-12
    assert error(block(x.mT).mT, expected) < 1e-12


def test_sub_sampling_keeps_axes_of_one_voxel() -> None:
    block, x = trained(spatial_dims=3, sub_sample=True), torch.randn(1, 6, 1, 4, 5, dtype=torch.float64)
    assert error(block(x), formula(block, x)) < 1e-12


# ---------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """Record the operators that run, and the size of the largest tensor that one of them creates."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.names.add(function.overloadpacket.__name__)
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("threads")
def test_no_matrix_of_all_pairs_is_made(mode: str, dtype: torch.dtype, channels: int) -> None:
    block = trained(channels, spatial_dims=3, mode=mode).to(dtype)
    x = torch.randn(1, channels, 8, 10, 12, dtype=dtype, requires_grad=True)
    with Largest() as largest:
        block(x).sum().backward()
    voxels = 8 * 10 * 12
    assert largest.numbers <= 3 * 16 * voxels < voxels**2 / 10  # 3 pieces by threads, of vectors of 16
    if mode in SOFTMAX:
        assert "_scaled_dot_product_flash_attention_for_cpu" in largest.names
        assert "_scaled_dot_product_flash_attention_for_cpu_backward" in largest.names


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_a_card_needs_no_matrix_either(mode: str, dtype: torch.dtype) -> None:
    block = trained(32, spatial_dims=3, mode=mode).to("cuda", dtype)
    x = torch.randn(1, 32, 24, 24, 24, dtype=dtype, device="cuda", requires_grad=True)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    block(x).sum().backward()
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - held < x.shape[2:].numel() ** 2 * x.element_size() / 5


# ---------------------------------------------------------------- non-local means


def by_windows(image: Tensor, radius: tuple[int, int], function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `function` to windows, and average its results at each pixel: (C, H, W) to (C, H, W).

    As in the backend `windowed`, windows are centred on every (r + 1)th pixel and on the last.
    """
    (r, s), (height, width) = radius, image.shape[1:]
    padded = F.pad(image[None], (s, s, r, r), mode="reflect")[0]
    total = torch.zeros(1, *padded.shape[1:], dtype=image.dtype)
    summed = torch.zeros_like(padded)
    for window in windows(height, width, r, s):
        summed[:, *window] += function(padded[:, *window])
        total[:, *window] += 1
    return (summed / total)[:, r : r + height, s : s + width]


def windows(height: int, width: int, r: int, s: int) -> Iterator[tuple[slice, slice]]:
    starts = (sorted({*range(0, n, radius + 1), n - 1}) for n, radius in ((height, r), (width, s)))
    for y, x in itertools.product(*starts):
        yield slice(y, y + 2 * r + 1), slice(x, x + 2 * s + 1)


def identity(layer: Any) -> None:
    nn.init.dirac_(layer.weight)
    nn.init.zeros_(layer.bias)


def test_the_gaussian_form_with_identity_embeddings_is_windowed_non_local_means() -> None:
    """For unit vectors, |v_i − v_j|² is 2 − 2 v_i · v_j, so the weights are those of the block for v/h."""
    h, radius = 0.4, (2, 3)
    angle = torch.rand(7, 9, dtype=torch.float64) * 3
    vectors = torch.stack([angle.cos(), angle.sin()])
    block = NonLocalBlock(2, spatial_dims=2, mode="gaussian", inter_channels=2).double()
    identity(block.g)
    identity(block.out)

    mine = by_windows(vectors / h, radius, lambda window: (block(window[None])[0] - window) * h)
    options: dict[str, Any] = {"patch_radius": 0, "search_radius": radius, "backend": "windowed", "blend": "plain"}
    theirs = nonlocal_means(vectors, h, channels=0, **options)
    assert error(mine, theirs) < 1e-12
    assert error(vectors, theirs) > 0.1


def test_the_embedded_form_of_an_image_and_its_square_is_windowed_non_local_means() -> None:
    """exp(−(x_i − x_j)²/h²), without a factor that depends only on i: θ = [2x/h², −1/h²], φ = [x, x²], g = x."""
    h, radius = 0.3, (2, 3)
    image = torch.rand(7, 9, dtype=torch.float64)
    block = NonLocalBlock(2, spatial_dims=2, inter_channels=2).double()
    for layer in (block.phi, block.g, block.out):
        identity(layer)
    with torch.no_grad():
        block.theta.weight[:, :, 0, 0] = torch.tensor([[2 / h**2, 0], [0, 0]], dtype=torch.float64)
        block.theta.bias[:] = torch.tensor([0, -1 / h**2], dtype=torch.float64)

    mine = by_windows(torch.stack([image, image**2]), radius, lambda window: block(window[None])[0] - window)[0]
    options: dict[str, Any] = {"patch_radius": 0, "search_radius": radius, "backend": "windowed", "blend": "plain"}
    theirs = nonlocal_means(image, h, **options)
    assert error(mine, theirs) < 1e-12
    assert error(image, theirs) > 0.1


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels=0 must be a whole number of at least 1"),
        ({"in_channels": 2.5}, "in_channels=2.5 must be a whole number"),
        ({"spatial_dims": 4}, "spatial_dims=4 must be 1, 2 or 3"),
        ({"mode": "cosine"}, "mode='cosine' is not known; choose one of 'gaussian', "),
        ({"inter_channels": -1}, "inter_channels=-1 must be a whole number of at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        NonLocalBlock(**{"in_channels": 6, "spatial_dims": 2, **arguments})


@pytest.mark.parametrize("shape", [(6, 5, 5), (1, 4, 5, 5), (1, 6, 5, 5, 5), (0, 6, 5, 5), (1, 6, 0, 5)])
def test_inputs_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x has shape .*; give \(batch, 6 channels, H, W\)"):
        NonLocalBlock(6, spatial_dims=2)(torch.zeros(shape))


# ---------------------------------------------------------------- graphs


def with_weights(mode: str, dimensions: int = 2, **options: Any) -> NonLocalBlock:
    torch.manual_seed(0)
    block = NonLocalBlock(4, spatial_dims=dimensions, mode=mode, **options)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block.eval()


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("mode", MODES)
def test_a_graph_takes_other_shapes(mode: str, graph: str) -> None:
    others = [torch.randn(3, 4, 7, 9), torch.randn(1, 4, 12, 5)]
    check_graph(graph, with_weights(mode), torch.randn(2, 4, 8, 10), others, (0, 2, 3))


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_in_3d_with_all_options(graph: str) -> None:
    block = with_weights("embedded_gaussian", 3, sub_sample=True, batch_norm=True, inter_channels=3)
    check_graph(graph, block, torch.randn(2, 4, 4, 5, 6), [torch.randn(3, 4, 5, 7, 4)], (0, 2, 3, 4))


@pytest.mark.parametrize("mode", MODES)
def test_a_script_comes_back_from_a_file(mode: str, tmp_path: Path) -> None:
    block, x = with_weights(mode), torch.randn(2, 4, 6, 7)
    torch.testing.assert_close(saved_and_loaded(block, tmp_path)(x), block(x))


def test_torch_compile_takes_a_second_shape() -> None:
    torch._dynamo.reset()
    block = with_weights("embedded_gaussian")
    compiled = torch.compile(block)
    for shape in ((4, 4, 8, 8), (3, 4, 8, 12)):
        x = torch.randn(*shape)
        torch.testing.assert_close(compiled(x), block(x))


@given(seed=st.integers(0, 2**31))
def test_counting_by_sorting_is_a_search(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rising = torch.randn(2, 9, generator=generator).sort(1)[0]
    values = torch.randn(2, 7, generator=generator)
    values[:, 1] = values[:, 0]
    assert torch.equal(count_by_sorting(rising, values), torch.searchsorted(rising, values))


# ---------------------------------------------------------------- non-local means for batches


@pytest.mark.parametrize("channel_wise", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 9, 10), (2, 2, 5, 6, 7)], ids=str)
def test_a_batch_is_filtered_image_by_image(shape: tuple[int, ...], channel_wise: bool) -> None:
    batch = torch.rand(shape)
    options: dict[str, Any] = {"sigma": 0.1, "patch_radius": 1, "search_radius": 2}
    layer = NonLocalMeansFilter(spatial_dims=len(shape) - 2, h=0.3, channel_wise=channel_wise, **options)
    result = layer(batch)
    for image, filtered in zip(batch, result, strict=True):
        if channel_wise:
            expected = torch.stack([nonlocal_means(c, 0.3, center="max", **options) for c in image])
        else:
            expected = nonlocal_means(image, 0.3, center="max", channels=0, **options)
        torch.testing.assert_close(filtered, expected)


def test_the_filter_strength_is_learned_if_wanted() -> None:
    layer = NonLocalMeansFilter(spatial_dims=2, h=0.3, learned=True, search_radius=1)
    batch = torch.rand(1, 1, 8, 8, requires_grad=True)
    layer(batch).square().sum().backward()
    assert float(layer.log_h.grad) != 0
    assert bool(batch.grad.any())
    assert not NonLocalMeansFilter(spatial_dims=2, h=0.3).log_h.requires_grad


def test_a_filter_refuses_what_is_no_batch() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(8, 8\); give \(batch, channels, H, W\)"):
        NonLocalMeansFilter(spatial_dims=2, h=0.3)(torch.rand(8, 8))
    with pytest.raises(ValueError, match="spatial_dims=4 must be 2 or 3"):
        NonLocalMeansFilter(spatial_dims=4, h=0.3)
    with pytest.raises(ValueError, match="h=0 must be greater than 0"):
        NonLocalMeansFilter(spatial_dims=2, h=0)
