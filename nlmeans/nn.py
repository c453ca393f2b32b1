"""Layers of networks: the non-local block, which is trainable non-local means, and non-local means for batches.

Forward and backward, the block takes memory in proportion to the number N of voxels. It never builds the N × N matrix
of weights: the Gaussian forms use attention kernels, the dot product is associative, and the concatenation is sorted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlmeans.core import checks
from nlmeans.core.modes import is_exporting
from nlmeans.operator.attention import attention
from nlmeans.operator.nonlocal_means import nonlocal_means

MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLINGS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class NonLocalBlock(nn.Module):
    """Add to every voxel a weighted average of features of all voxels; weights and features are learned.

    ::

        y(i) = Σ_j f(x(i), x(j)) · g(x(j)) / C(i)
        z(i) = W_z y(i) + x(i)

    ========================  ==========================================  ==========
    mode                      f(x(i), x(j))                               C(i)
    ========================  ==========================================  ==========
    ``"gaussian"``            exp(x(i) · x(j))                            Σ_j f
    ``"embedded_gaussian"``   exp(θ(x(i)) · φ(x(j)))                      Σ_j f
    ``"dot_product"``         θ(x(i)) · φ(x(j))                           voxels j
    ``"concatenation"``       max(w · [θ(x(i)), φ(x(j))], 0)              voxels j
    ========================  ==========================================  ==========

    θ, φ, g and W_z are convolutions with a kernel of one voxel. The last layer starts at zero, so a new block changes
    nothing: you can insert it into a trained network and continue the training.

    For N voxels, memory grows with N. The time grows with N² for the Gaussian forms, with N log N for the concatenation
    and with N for the dot product.

    Args:
        in_channels: channels of the input, and of the output.
        spatial_dims: 1, 2 or 3.
        mode: how two voxels are compared: ``"gaussian"``, ``"embedded_gaussian"``, ``"dot_product"`` or
            ``"concatenation"``, see above.
        inter_channels: channels of θ, φ and g; None for half of `in_channels`.
        sub_sample: let j run over voxels of half the resolution: φ and g are max-pooled over 2 voxels along each axis.
            This leaves a quarter of the comparisons in 2D and an eighth in 3D.
        batch_norm: normalise W_z y over the batch, as the authors did for video. Not advisable for batches of one or
            two volumes.

    Shape:
        Input and output: ``(B, in_channels, *spatial)``, any floating dtype. Under autocast and for half precision, the
        Gaussian forms compute in half precision and the other forms sum in float32. For float64 on a GPU, PyTorch
        builds the N × N matrix of the Gaussian forms.

    Raises:
        ValueError, TypeError: an argument is out of range, or the input has the wrong axes or channels.

    References:
        X. Wang, R. Girshick, A. Gupta, K. He, "Non-local neural networks", CVPR 2018,
        doi:10.1109/CVPR.2018.00813.

    Example:
        >>> block = NonLocalBlock(8, spatial_dims=3)
        >>> features = torch.rand(1, 8, 6, 7, 5)
        >>> bool((block(features) == features).all())  # a new block changes nothing
        True
    """

    def __init__(
        self,
        in_channels: int,
        *,
        spatial_dims: int,
        mode: str = "embedded_gaussian",
        inter_channels: int | None = None,
        sub_sample: bool = False,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in CONVOLUTIONS:
            raise ValueError(f"spatial_dims={spatial_dims!r} must be 1, 2 or 3")
        self.in_channels = checks.whole("in_channels", in_channels, least=1)
        self.spatial_dims = spatial_dims
        self.mode = checks.choice("mode", mode, MODES)
        self.softmax = mode in ("gaussian", "embedded_gaussian")
        inner = (
            max(1, in_channels // 2)
            if inter_channels is None
            else checks.whole("inter_channels", inter_channels, least=1)
        )
        convolution = CONVOLUTIONS[spatial_dims]

        embedded = mode != "gaussian"
        self.theta = convolution(in_channels, inner, 1) if embedded else nn.Identity()
        self.phi = convolution(in_channels, inner, 1) if embedded else nn.Identity()
        self.g = convolution(in_channels, inner, 1)
        self.pair = nn.Linear(2 * inner, 1, bias=False) if mode == "concatenation" else None
        self.pool = POOLINGS[spatial_dims](2, ceil_mode=True) if sub_sample else nn.Identity()
        self.out = convolution(inner, in_channels, 1)
        self.norm = NORMS[spatial_dims](in_channels) if batch_norm else nn.Identity()
        for parameter in (self.norm if batch_norm else self.out).parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            self.check(x)
        theta = self.theta(x).flatten(2).transpose(1, 2)
        phi = self.pool(self.phi(x)).flatten(2).transpose(1, 2)
        g = self.pool(self.g(x)).flatten(2).transpose(1, 2)
        # the convolution as a product, which torch.compile also compiles for a second shape of x
        y = F.linear(self.related(theta, phi, g), self.out.weight.flatten(1), self.out.bias)
        z: Tensor = self.norm(y.transpose(1, 2).reshape(x.shape)) + x
        return z

    def check(self, x: Tensor) -> None:
        """Raise ``ValueError`` if the input has the wrong axes or channels."""
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels or 0 in x.shape:
            axes = ", ".join("DHW"[-self.spatial_dims :])
            raise ValueError(f"x has shape {tuple(x.shape)}; give (batch, {self.in_channels} channels, {axes})")

    def related(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """Σ_j f(i, j) · g_j / C(i): (B, N, K), (B, M, K) and (B, M, C) to (B, N, C)."""
        if self.softmax:
            averaged: Tensor = attention(theta, phi, g)
            return averaged
        if torch.jit.is_scripting():
            return self.summed(theta, phi, g)
        with torch.autocast(theta.device.type, enabled=False):  # sums over all voxels exceed the range of float16
            return self.summed(theta, phi, g)

    def summed(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """`related` for the dot product and the concatenation, in at least float32."""
        precise = torch.promote_types(g.dtype, torch.float32)
        theta, phi, values = theta.to(precise), phi.to(precise), g.to(precise)
        if self.pair is None:
            y = theta @ (phi.transpose(1, 2) @ values) / values.shape[1]
        else:
            of_theta, of_phi = self.pair.weight.to(precise)[0].chunk(2)
            y = mean_of_positive_sums(theta @ of_theta, phi @ of_phi, values)
        return y.to(g.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, spatial_dims={self.spatial_dims}, mode={self.mode!r}"


class NonLocalMeansFilter(nn.Module):
    """Denoise a batch by `nlmeans.nonlocal_means`, differentiable with respect to the batch and the filter strength.

    Args:
        spatial_dims: 2 or 3.
        h: filter strength in the units of the values, greater than 0.
        learned: True to make h a parameter, whose logarithm ``log_h`` is learned.
        sigma: standard deviation of the noise, in the same units; its part in the distances is subtracted.
        patch_radius: voxels, one for all axes or one per axis.
        search_radius: voxels, one for all axes or one per axis.
        channel_wise: False to compare the channels together, so that they share their weights.

    Shape:
        Input and output: ``(B, C, *spatial)``, any floating dtype.

    Raises:
        ValueError, TypeError: an argument is out of range, or the input has the wrong axes.

    Example:
        >>> denoise = NonLocalMeansFilter(spatial_dims=3, h=0.2, learned=True)
        >>> denoise(torch.rand(2, 1, 8, 9, 10)).mean().backward()
        >>> denoise.log_h.grad is not None
        True
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        h: float,
        learned: bool = False,
        sigma: float = 0.0,
        patch_radius: checks.Radius = 1,
        search_radius: checks.Radius = 3,
        channel_wise: bool = True,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims={spatial_dims!r} must be 2 or 3")
        self.spatial_dims = spatial_dims
        self.sigma = checks.not_negative("sigma", sigma)
        self.patch_radius = checks.radius("patch_radius", patch_radius)
        self.search_radius = checks.radius("search_radius", search_radius)
        self.channel_wise = channel_wise
        self.log_h = nn.Parameter(torch.tensor(checks.positive("h", h)).log(), requires_grad=learned)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != self.spatial_dims + 2:
            axes = ", ".join("DHW"[-self.spatial_dims :])
            raise ValueError(f"x has shape {tuple(x.shape)}; give (batch, channels, {axes})")
        images = x.flatten(0, 1) if self.channel_wise else x
        h, together = self.log_h.exp(), None if self.channel_wise else 0
        each = [
            nonlocal_means(
                image,
                h,
                sigma=self.sigma,
                patch_radius=self.patch_radius,
                search_radius=self.search_radius,
                center="max",
                channels=together,
            )
            for image in images
        ]
        return torch.stack(each).reshape(x.shape)

    def extra_repr(self) -> str:
        return (
            f"spatial_dims={self.spatial_dims}, h={float(self.log_h.exp()):.4g}, sigma={self.sigma}, "
            f"patch_radius={self.patch_radius}, search_radius={self.search_radius}, channel_wise={self.channel_wise}"
        )


def mean_of_positive_sums(a: Tensor, b: Tensor, values: Tensor) -> Tensor:
    """The mean over j of max(a_i + b_j, 0) · v_j: (B, N), (B, M) and (B, M, C) to (B, N, C).

    Only voxels j with b_j > −a_i contribute to voxel i. In descending order of b they come first. Their sum is
    a_i Σ v_j + Σ b_j v_j, and both terms are running sums.
    """
    middle = a.detach().mean(1, keepdim=True)  # opposite offsets of a and b cancel in a + b, but not in sums
    a, b = a - middle, b + middle
    b, order = b.sort(1, descending=True)
    channels = values.shape[2]
    values = values.gather(1, order.unsqueeze(-1).expand(-1, -1, channels))
    sums = F.pad(torch.cat([values, b.unsqueeze(-1) * values], -1).cumsum(1), [0, 0, 1, 0])
    counted = count_smaller(-b.detach(), a.detach())
    plain, weighted = sums.gather(1, counted.unsqueeze(-1).expand(-1, -1, 2 * channels)).chunk(2, -1)
    return (a.unsqueeze(-1) * plain + weighted) / values.shape[1]


def count_smaller(rising: Tensor, values: Tensor) -> Tensor:
    """Count for each value how many of a row of rising numbers are smaller: (B, M) and (B, N) to (B, N).

    >>> count_smaller(torch.tensor([[1.0, 2.0, 5.0]]), torch.tensor([[3.0, 0.0, 9.0]]))
    tensor([[2, 0, 3]])
    """
    if torch.jit.is_scripting():
        return torch.searchsorted(rising, values)
    return count_by_sorting(rising, values) if is_exporting() else torch.searchsorted(rising, values)


def count_by_sorting(rising: Tensor, values: Tensor) -> Tensor:
    """Count as `count_smaller` does, with operations that ONNX has."""
    count = rising.shape[1]
    order = torch.cat([rising, values], 1).sort(1)[1]
    before = (order < count).long().cumsum(1)
    return before.gather(1, order.sort(1)[1])[:, count:]
