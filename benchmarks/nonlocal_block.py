"""Compare memory and time of the non-local block with the plain version and its N × N matrix, forward and backward.

Usage: python benchmarks/nonlocal_block.py [--size 16 --size 32] [--channels 32] [--threads 2]

README.md in this folder describes how it is measured.
"""

from __future__ import annotations

import datetime
import functools
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
import torch
from fresh_process import measured_alone
from torch import Tensor, nn

from nlmeans.core.memory import size_text
from nlmeans.nn import MODES, NonLocalBlock

PLAIN = "embedded_gaussian, plain"
MATRICES = 3.5
"""Matrices that the plain version holds at once, with a margin: weights, their derivative, that of the products."""


class Plain(NonLocalBlock):
    """Embedded Gaussian block as it is usually written."""

    def related(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return torch.softmax(theta @ phi.mT, -1) @ g


@dataclass(frozen=True)
class Case:
    name: str
    size: int
    channels: int
    threads: int

    @property
    def matrix(self) -> int:
        """Bytes of the matrix of all pairs."""
        return self.size**6 * 4

    @property
    def volume(self) -> int:
        """Bytes of the input."""
        return self.size**3 * self.channels * 4

    def block(self) -> NonLocalBlock:
        torch.manual_seed(0)
        kind, mode = (Plain, "embedded_gaussian") if self.name == PLAIN else (NonLocalBlock, self.name)
        block = kind(self.channels, spatial_dims=3, mode=mode)
        nn.init.normal_(block.out.weight, std=0.1)
        return block


def forward_and_backward(block: NonLocalBlock, size: int) -> float:
    """Run one forward and backward pass and return its seconds."""
    x = torch.randn(1, block.in_channels, size, size, size, generator=torch.Generator().manual_seed(1))
    x.requires_grad_()
    start = time.perf_counter()
    block(x).square().mean().backward()
    return time.perf_counter() - start


def prepared(case: Case) -> Callable[[], float]:
    """Prepare a run that returns its seconds."""
    torch.set_num_threads(case.threads)
    block = case.block()
    forward_and_backward(block, 8)
    return functools.partial(forward_and_backward, block, case.size)


def row(case: Case) -> str:
    cells = [f"{case.size}³ × {case.channels}", case.name]
    needed = MATRICES * case.matrix
    if case.name == PLAIN and needed > psutil.virtual_memory().available:
        cells += [f"not run: would need about {size_text(needed)}", "", ""]
    else:
        seconds, extra = measured_alone(prepared, case)
        cells += [size_text(extra), f"{extra / case.volume:.1f}", f"{seconds:.2f}"]
    line = f"| {' | '.join([*cells, size_text(case.matrix)])} |"
    click.echo(line)
    return line


@click.command(help=__doc__)
@click.option("--size", "sizes", multiple=True, default=(16, 32), show_default=True, help="Voxels along each axis.")
@click.option("--channels", default=32, show_default=True, help="Channels of the input.")
@click.option("--threads", default=2, show_default=True, help="Threads of PyTorch.")
@click.option("--out", type=Path, default=Path(__file__).parent / "results" / "nonlocal_block.md", show_default=True)
def main(sizes: tuple[int, ...], channels: int, threads: int, out: Path) -> None:
    lines = [row(Case(name, size, channels, threads)) for size in sizes for name in (*MODES, PLAIN)]
    machine = f"{platform.system()} {platform.machine()}, torch {torch.__version__}, {threads} threads, float32"
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    out.write_text(
        "# Non-local block, forward and backward\n\n"
        "Made by `python benchmarks/nonlocal_block.py`. How it is measured: [README](../README.md).\n\n"
        f"{machine}; {date}, load {psutil.getloadavg()[0]:.1f} at the end.\n\n"
        "| voxels × channels | mode | memory | memory / input | seconds | one matrix of all pairs |\n"
        "| --- | --- | ---: | ---: | ---: | ---: |\n" + "\n".join(lines) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
