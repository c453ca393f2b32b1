"""How often the default makes a volume worse without a warning: random volumes, noise and defects.

python benchmarks/compositions.py                        # 500 of the phantoms and scans in packages: 5 minutes
python benchmarks/compositions.py --volume scan.nii.gz   # these and any clean volume
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from correlated import response
from kinds import camera, chi, counts, rician
from quality_volumes import Volume, scans
from speed_report import table

import nlmeans

EDGE = 48
"""Most voxels along an axis of a volume; where it is cut out is random."""

WORSE = 1.01
"""Error after denoising, relative to that before, from which a volume counts as worse."""


class Damaged(NamedTuple):
    """A noisy volume with a defect, and what it would be without noise."""

    noisy: Volume
    truth: Volume
    counted: Volume
    """Voxels in which errors count."""


Random = np.random.Generator
Defect = Callable[[Volume, Volume, Random], Damaged]


def everywhere(noisy: Volume, truth: Volume) -> Damaged:
    return Damaged(noisy, truth, np.ones(noisy.shape, bool))


def hot_voxels(noisy: Volume, truth: Volume, random: Random) -> Damaged:
    """A few voxels with up to a thousand times the maximum."""
    hot = random.random(noisy.shape) < 10 ** random.uniform(-4.5, -3)
    values = noisy.max() * 10 ** random.uniform(0.5, 3)
    return Damaged(np.where(hot, values, noisy), np.where(hot, values, truth), ~hot)


def hot_organ(noisy: Volume, truth: Volume, random: Random) -> Damaged:
    """A small ball with up to thirty times the maximum, with noise of its own."""
    centre = [random.integers(n // 4, max(3 * n // 4, n // 4 + 1)) for n in noisy.shape]
    places = np.meshgrid(*(np.arange(n) - c for n, c in zip(noisy.shape, centre, strict=True)), indexing="ij")
    ball = np.square(places).sum(0) < random.uniform(2, 5) ** 2
    factor = 10 ** random.uniform(0.5, 1.5)
    return everywhere(np.where(ball, factor * noisy.max() + (noisy - truth), noisy),
                      np.where(ball, factor * noisy.max(), truth))  # fmt: skip


def padded(noisy: Volume, truth: Volume, random: Random) -> Damaged:
    """A constant around the volume, or outside of a circle."""
    value = random.choice([0.0, noisy.min(), noisy.max(), -2 * noisy.max()])
    if random.random() < 0.5:
        widths = [(int(random.integers(0, n // 3 + 1)),) * 2 for n in noisy.shape]
        return everywhere(*(np.pad(values, widths, constant_values=value) for values in (noisy, truth)))
    rows, columns = (np.linspace(-1, 1, n) for n in noisy.shape[:2])
    outside = (np.hypot(rows[:, None], columns) > random.uniform(0.7, 1))[..., None]
    return everywhere(np.where(outside, value, noisy), np.where(outside, value, truth))


def clipped(noisy: Volume, truth: Volume, random: Random) -> Damaged:
    """All values limited to a window."""
    low, high = np.quantile(truth, [random.uniform(0, 0.4), random.uniform(0.6, 1)])
    return everywhere(noisy.clip(low, high), truth.clip(low, high))


def quantised(noisy: Volume, truth: Volume, random: Random) -> Damaged:
    """Few grey values."""
    step = np.ptp(noisy) / 2 ** random.uniform(4, 8)
    return everywhere(np.round(noisy / step) * step, truth)


def masked(noisy: Volume, truth: Volume, random: Random) -> Damaged:
    """Exactly zero where there is little signal, as after skull-stripping."""
    inside = truth > np.quantile(truth, random.uniform(0.2, 0.7))
    return everywhere(np.where(inside, noisy, 0), np.where(inside, truth, 0))


def scaled(noisy: Volume, truth: Volume, random: Random) -> Damaged:
    """Other units, with an offset."""
    factor = 10 ** random.uniform(-6, 6)
    offset = random.choice([0.0, -1000.0, 200.0]) * factor
    return everywhere(noisy * factor + offset, truth * factor + offset)


def turned(noisy: Volume, truth: Volume, random: Random) -> Damaged:
    """Axes in another order, and reversed."""
    axes, flips = random.permutation(noisy.ndim), [slice(None, None, random.choice([-1, 1])) for _ in noisy.shape]
    return everywhere(*(values.transpose(axes)[tuple(flips)] for values in (noisy, truth)))


DEFECTS: dict[str, Defect] = {
    "none": lambda noisy, truth, random: everywhere(noisy, truth),
    "hot voxels": hot_voxels,
    "hot organ": hot_organ,
    "padded": padded,
    "clipped": clipped,
    "few grey values": quantised,
    "masked": masked,
    "other units": scaled,
    "turned": turned,
}

CORRELATED = ("zero-filled", "apodised", "CT", "resampled")
NOISES = ("gaussian", *CORRELATED, "rician", "chi", "photons", "camera")


def with_noise(kind: str, clean: Volume, sigma: float, random: Random) -> tuple[Volume, Volume]:
    """Return a noisy copy, and what it would be without noise."""
    if kind in CORRELATED:
        white = np.fft.fftn(random.standard_normal(clean.shape))
        return clean + sigma * np.fft.ifftn(white * response(kind, clean.shape)).real, clean
    if kind == "gaussian":
        return clean + sigma * random.standard_normal(clean.shape), clean
    makers = {"rician": rician, "chi": chi, "photons": counts, "camera": camera}
    return makers[kind](clean, sigma, random), clean + (0.2 if kind == "camera" else 0.0)


class Warnings(logging.Handler):
    """The warnings that a run gave."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


class Case(NamedTuple):
    """One composition and what became of it."""

    seed: int
    volume: str
    noise: str
    level: float
    defect: str
    ratio: float
    """Error after denoising relative to that before."""
    warned: str


def noise_free(extra: list[Path]) -> dict[str, Volume]:
    """Return volumes by name; those that are scans are denoised first, as their own noise would count as truth."""
    found = {one.name: one.clean for one in scans(extra).values() if one.clean.ndim == 3}
    return {name: nlmeans.denoise(clean) if name in SCANNED else clean for name, clean in found.items()}


SCANNED = ("diffusion b0", "example4d", "anatomical")


def cut(clean: Volume, random: Random) -> Volume:
    starts = [int(random.integers(0, max(n - EDGE, 0) + 1)) for n in clean.shape]
    return clean[tuple(slice(start, start + EDGE) for start in starts)]


def compose(seed: int, volumes: dict[str, Volume], said: Warnings) -> Case:
    """Make a composition from a seed, and denoise it by default."""
    random = np.random.default_rng(seed)
    name = str(random.choice(list(volumes)))
    clean = cut(volumes[name], random).astype(float)
    noise, defect = str(random.choice(NOISES)), str(random.choice(list(DEFECTS)))
    level = round(float(random.uniform(1, 9)), 1)
    noisy, truth = with_noise(noise, clean, level / 100, random)
    made = DEFECTS[defect](noisy, truth, random)
    said.said.clear()
    denoised = nlmeans.denoise(np.ascontiguousarray(made.noisy, np.float32))
    before, after = (
        np.sqrt(np.mean(np.square(values - made.truth)[made.counted])) for values in (made.noisy, denoised)
    )
    ratio = float(after / before) if before > 0 else 1.0 if after == 0 else np.inf
    return Case(seed, name, noise, level, defect, ratio, "; ".join(said.said))


@click.command()
@click.option("--volume", "extra", multiple=True, type=click.Path(path_type=Path), help="A clean volume; repeatable.")
@click.option("--cases", default=500, show_default=True)
@click.option("--first", default=0, show_default=True, help="Seed of the first case.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "compositions.md")
def main(extra: tuple[Path, ...], cases: int, first: int, out: Path) -> None:
    """Denoise random compositions and write compositions.md."""
    torch.set_grad_enabled(False)
    said = Warnings()
    logging.getLogger("nlmeans").addHandler(said)
    volumes = noise_free(list(extra))
    found = []
    with click.progressbar(range(first, first + cases)) as seeds:
        for seed in seeds:
            found.append(compose(seed, volumes, said))
    worse = [case for case in found if case.ratio > WORSE]
    rows = []
    for defect in DEFECTS:
        own = [case for case in found if case.defect == defect]
        if own:
            ratios, bad = [case.ratio for case in own], [case for case in own if case.ratio > WORSE]
            silent, warned = sum(not case.warned for case in bad), sum(bool(case.warned) for case in own)
            rows.append([defect, len(own), silent, len(bad), warned, f"{np.median(ratios):.2f}", f"{max(ratios):.2f}"])
    head = ["defect", "cases", "worse, without a warning", "worse", "with a warning", "error left: median", "most"]
    listed = [
        [
            case.seed,
            case.volume,
            case.noise,
            f"{case.level:g} %",
            case.defect,
            f"{case.ratio:.2f}",
            case.warned or "none",
        ]
        for case in worse
    ]
    text = (
        f"# Random compositions\n\nMade by `python benchmarks/compositions.py`: {cases} random compositions of a "
        f"volume ({', '.join(volumes)}; at most {EDGE} voxels along an axis), noise ({', '.join(NOISES)}) of 1 to 9 % "
        "of the maximum, and a defect, denoised by default with nothing told. The error is the root mean square "
        "difference from the volume without noise but with the defect, after denoising relative to before; above "
        f"{WORSE:g} a volume counts as worse.\n\n{table(head, [[str(v) for v in row] for row in rows])}\n\n"
        f"## What was made worse\n\n"
        + (table(["seed", "volume", "noise", "level", "defect", "error left", "warning"],
                 [[str(v) for v in row] for row in listed]) if listed else "Nothing.")
        + "\n"
    )  # fmt: skip
    out.write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
