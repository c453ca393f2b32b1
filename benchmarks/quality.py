"""How close to the truth: ours and every installed peer on the same noisy volumes.

python benchmarks/quality.py                        # the head phantom, and what the installed packages carry
python benchmarks/quality.py --volume scan.nii.gz   # any clean volume beside them
"""

from __future__ import annotations

import importlib.util
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import nibabel as nib
import numpy as np
import torch

import nlmeans
from nlmeans import METHODS, samples
from nlmeans.metrics import psnr, ssim

Volume = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Filter = Callable[[Volume, float, bool], Volume]
"""Of the noisy volume, sigma, and whether the noise is Rician."""

LEVELS = (1, 3, 5, 7, 9)
LARGEST = 112  # voxels per axis, cut from the middle: BM4D takes a minute for a million voxels


@dataclass(frozen=True)
class Score:
    volume: str
    noise: str
    percent: float
    method: str
    mask_psnr: float
    psnr: float
    ssim: float
    seconds: float


def ours(method: str) -> Filter:
    return lambda noisy, sigma, rician: nlmeans.denoise(
        noisy, sigma, method=method, noise="rician" if rician else "gaussian"
    )


def scikit_image(noisy: Volume, sigma: float, rician: bool) -> Volume:
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(noisy, patch_size=3, patch_distance=3, h=0.6 * sigma, sigma=sigma, fast_mode=True)


def total_variation(noisy: Volume, sigma: float, rician: bool) -> Volume:
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(noisy, weight=1.2 * sigma)


def dipy(method: str) -> Filter:
    def run(noisy: Volume, sigma: float, rician: bool) -> Volume:
        from dipy.denoise.nlmeans import nlmeans as nlm

        return nlm(noisy, sigma, patch_radius=1, block_radius=3, rician=rician, method=method)

    return run


def bm4d(noisy: Volume, sigma: float, rician: bool) -> Volume:
    from bm4d import bm4d as filter_volume

    return filter_volume(noisy, sigma)


def contenders(names: list[str]) -> dict[str, Filter]:
    """Ours by name, and the peers that are installed."""
    found: dict[str, Filter] = {name: ours(name) for name in names}
    if importlib.util.find_spec("skimage"):
        found |= {"scikit-image NLM": scikit_image, "total variation": total_variation}
    if importlib.util.find_spec("dipy"):
        found |= {"DIPY classic": dipy("classic"), "DIPY blockwise": dipy("blockwise")}
    if importlib.util.find_spec("bm4d"):
        found["BM4D"] = bm4d
    return found


def volumes(extra: list[Path]) -> dict[str, Volume]:
    """Clean volumes scaled to 1: the phantom, scans that packages carry, and those given."""
    paths = {"phantom": samples.path("head_clean"), "thick phantom": samples.path("thick_clean")}
    carried = {
        "diffusion b0": ("dipy", "data/files/S0_10slices.nii.gz"),
        "T1 example": ("nibabel", "tests/data/example4d.nii.gz"),
    }
    for name, (package, file) in carried.items():
        spec = importlib.util.find_spec(package)
        if spec and spec.origin and (path := Path(spec.origin).parent / file).is_file():
            paths[name] = path
    paths |= {path.name.removesuffix(".gz").removesuffix(".nii"): path for path in extra}
    return {name: load(path) for name, path in paths.items()}


def load(path: Path) -> Volume:
    data = np.asarray(nib.load(path).dataobj, np.float32)
    data = data[..., 0] if data.ndim == 4 else data
    middle = tuple(slice(max(0, n - LARGEST) // 2, max(0, n - LARGEST) // 2 + LARGEST) for n in data.shape)
    return np.ascontiguousarray(data[middle] / data.max())


def with_noise(clean: Volume, sigma: float, rician: bool) -> Volume:
    random = np.random.default_rng(0)
    real = clean + sigma * random.standard_normal(clean.shape)
    noisy = np.hypot(real, sigma * random.standard_normal(clean.shape)) if rician else real
    return noisy.astype(np.float32)


def scores(name: str, clean: Volume, filters: dict[str, Filter], levels: list[int], rician: bool) -> list[Score]:
    mask = clean > 10 / 255
    found = []
    for percent in levels:
        sigma = percent / 100
        noisy = with_noise(clean, sigma, rician)
        for method, run in {"noisy": lambda noisy, *_: noisy, **filters}.items():
            start = time.perf_counter()
            result = np.asarray(run(noisy, sigma, rician), np.float32)
            seconds = time.perf_counter() - start
            found.append(
                Score(
                    name,
                    "rician" if rician else "gaussian",
                    percent,
                    method,
                    psnr(clean, result, peak=1, mask=mask),
                    psnr(clean, result, peak=1),
                    ssim(clean, result, peak=1, mask=mask),
                    seconds,
                )
            )
            click.echo(f"{name:14} {percent} % {method:18} {found[-1].mask_psnr:6.2f} {found[-1].psnr:6.2f}")
    return found


def table(found: list[Score], machine: str) -> str:
    """Markdown, one table per volume and kind of noise; a cell has PSNR in the mask / everywhere and SSIM."""
    lines = [
        "# Quality",
        "",
        machine,
        "",
        "PSNR in the mask / everywhere (dB), SSIM in the mask; seconds at the last level.",
        "",
    ]
    for volume, noise in dict.fromkeys((s.volume, s.noise) for s in found):
        here = [s for s in found if (s.volume, s.noise) == (volume, noise)]
        levels = list(dict.fromkeys(s.percent for s in here))
        lines += [f"## {volume}, {noise} noise", "", "| method | " + " | ".join(f"{p} %" for p in levels) + " | s |"]
        lines.append("|---" * (len(levels) + 2) + "|")
        for method in dict.fromkeys(s.method for s in here):
            row = [s for s in here if s.method == method]
            cells = [f"{s.mask_psnr:.2f} / {s.psnr:.2f}, {s.ssim:.4f}" for s in row]
            lines.append(f"| {method} | " + " | ".join(cells) + f" | {row[-1].seconds:.1f} |")
        lines.append("")
    return "\n".join(lines)


@click.command()
@click.option(
    "--volume", "extra", multiple=True, type=click.Path(path_type=Path), help="A clean volume; may be repeated."
)
@click.option("--only", multiple=True, help="Volumes by name; all if not given.")
@click.option("--method", "names", multiple=True, help="Our methods; all if not given.")
@click.option("--level", "levels", multiple=True, type=int, help="Noise in per cent of the maximum.")
@click.option("--rician", is_flag=True, help="Rician instead of Gaussian noise.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", help="Folder for the results."
)
def main(
    extra: tuple[Path, ...],
    only: tuple[str, ...],
    names: tuple[str, ...],
    levels: tuple[int, ...],
    rician: bool,
    out: Path,
) -> None:
    filters = contenders(list(names or METHODS))
    found: list[Score] = []
    for name, clean in volumes(list(extra)).items():
        if not only or name in only:
            found += scores(name, clean, filters, list(levels or LEVELS), rician)
    facts: dict[str, Any] = {
        "machine": f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"nlmeans {nlmeans.__version__}",
        "scores": [asdict(score) for score in found],
    }
    stem = "quality-rician" if rician else "quality"
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{stem}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (out / f"{stem}.md").write_text(table(found, facts["machine"]), encoding="utf-8")


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


if __name__ == "__main__":
    main()
