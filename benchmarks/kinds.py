"""How often the kind of noise is found right: four kinds, 2 to 9 % of the maximum, nothing told.

python benchmarks/kinds.py                        # the phantoms and scans in installed packages: two minutes
python benchmarks/kinds.py --volume scan.nii.gz   # these and any clean volume
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from quality_volumes import Volume, scans

import nlmeans
from nlmeans.noise.kinds import NOISES
from nlmeans.noise.search.air import air_of
from nlmeans.noise.search.curve import FEWEST_BINS, kind_of_noise, variance_curve
from nlmeans.noise.search.finest import finest_detail
from nlmeans.noise.search.usable import measured_voxels

PERCENT = (2, 3, 5, 7, 9)
Maker = Callable[[Volume, float, np.random.Generator], Volume]


def rician(clean: Volume, sigma: float, rng: np.random.Generator) -> Volume:
    return np.hypot(clean + sigma * rng.standard_normal(clean.shape), sigma * rng.standard_normal(clean.shape))


def chi(clean: Volume, sigma: float, rng: np.random.Generator) -> Volume:
    """Four coils that see the same signal."""
    squares = [rician(clean / 2, sigma, rng) ** 2 for _ in range(4)]
    return np.sqrt(np.sum(squares, axis=0))


def counts(clean: Volume, sigma: float, rng: np.random.Generator) -> Volume:
    """Photons with a deviation of sigma where the image is 1."""
    return sigma**2 * rng.poisson(clean.clip(0) / sigma**2)


def camera(clean: Volume, sigma: float, rng: np.random.Generator) -> Volume:
    return counts(clean, sigma, rng) + 0.2 + 0.3 * sigma * rng.standard_normal(clean.shape)


KINDS: dict[str, tuple[str, Maker]] = {
    "gaussian": ("gaussian", lambda clean, sigma, rng: clean + sigma * rng.standard_normal(clean.shape)),
    "gaussian, no negative values": (
        "gaussian",
        lambda clean, sigma, rng: clean + 1 + sigma * rng.standard_normal(clean.shape),
    ),
    "rician": ("rician", rician),
    "chi, 4 coils": ("chi", chi),
    "photons": ("poisson", counts),
    "photons, offset and read noise": ("poisson", camera),
}


def told(clean: Volume, noisy: Volume) -> str:
    """Return the kind found if the noise alone is told: without structure, in voxels as flat as those measured."""
    values = torch.from_numpy(noisy.reshape((1,) * (3 - noisy.ndim) + noisy.shape))
    noise = values - torch.from_numpy(clean.astype(np.float32)).view(values.shape)
    around = finest_detail(values, None, measured_voxels(values))
    air = air_of(values, around, around.usable)
    alone = around._replace(finest=finest_detail(noise, None).finest)
    curve = variance_curve(alone, around.usable)
    if len(curve.variance) < FEWEST_BINS or float(values.min()) < 0:
        return "gaussian"
    return kind_of_noise(curve, air, NOISES).kind


@click.command()
@click.option("--volume", "extra", multiple=True, type=click.Path(path_type=Path), help="A clean volume; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "kinds.md")
def main(extra: tuple[Path, ...], out: Path) -> None:
    torch.set_grad_enabled(False)
    lines = [
        "# The kind of noise, found in the volume",
        "",
        f"`python benchmarks/kinds.py`, nlmeans {nlmeans.__version__}. What `estimate_noise` finds at "
        f"{', '.join(map(str, PERCENT))} % of the maximum, and sigma relative to the truth. Volumes without dark air "
        "do not show whether their noise is Rician, which then hardly differs from Gaussian noise. None of this "
        "noise is a curve over intensity of another kind, which is looked for, too.",
        "",
    ]
    right: dict[str, list[bool]] = {name: [] for name in KINDS}
    shown: dict[str, list[bool]] = {name: [] for name in KINDS}
    for scan in scans(list(extra)).values():
        if scan.clean.ndim == 4:
            continue
        air = f"{np.mean(scan.clean < 0.02):.0%} air"
        lines += [f"## {scan.name}, {' × '.join(map(str, scan.clean.shape))}, {air}", ""]
        lines += ["| noise | " + " | ".join(f"{p} %" for p in PERCENT) + " |", "|---|" + "---|" * len(PERCENT)]
        for name, (kind, maker) in KINDS.items():
            cells = []
            for percent in PERCENT:
                sigma = percent / 100
                noisy = maker(scan.clean, sigma, np.random.default_rng(percent)).astype(np.float32)
                model = nlmeans.estimate_noise(noisy)
                right[name].append(model.kind == kind)
                shown[name].append(told(scan.clean, noisy) == kind)
                level = f" {(model.sigma or 0) / sigma:.2f}" if kind != "poisson" else ""
                cells.append(("" if model.kind == kind else f"**{model.kind}**") + level or "right")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
            click.echo(f"{scan.name}: {lines[-1]}")
        lines.append("")
    lines += [
        "## All",
        "",
        "The last two columns count the cases that show their kind: those in which the same decision is right if it is "
        "told the noise alone, without the structure of the volume.",
        "",
        "| noise | right | show their kind | right among these |",
        "|---|--:|--:|--:|",
    ]
    right["all"], shown["all"] = ([one for name in KINDS for one in of[name]] for of in (right, shown))
    for name, found in right.items():
        both = sum(here and seen for here, seen in zip(found, shown[name], strict=True))
        lines.append(f"| {name} | {sum(found)} of {len(found)} | {sum(shown[name])} | {both} of {sum(shown[name])} |")
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo("\n".join(lines[-len(KINDS) - 1 :]))


if __name__ == "__main__":
    main()
