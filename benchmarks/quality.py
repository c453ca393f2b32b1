"""Score our methods and every installed peer against the truth, on the same noisy volumes.

python benchmarks/quality.py                        # the phantoms and the volumes of installed packages
python benchmarks/quality.py --volume scan.nii.gz   # these and a clean volume

Existing scores are kept, so that an interrupted run continues where it stopped. README.md in this folder describes how
it is measured.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import statistics
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from filelock import FileLock  # a dependency of torch
from quality_figure import write_figure
from quality_methods import Contestant, contestants
from quality_report import write_report
from quality_volumes import KINDS, NOISES, Case, Noise, Scan, case, scans

from nlmeans.core.metrics import psnr, ssim

Results = dict[str, Any]


class Store:
    """Results file: a score per volume, noise, level, method and version, and seconds per method.

    Every change locks the file and reads it again, so that several runs can share it, say one of ours and one of peers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FileLock(Path(tempfile.gettempdir()) / f"nlmeans-quality-{zlib.crc32(bytes(path.resolve()))}.lock")

    def read(self) -> Results:
        if not self.path.is_file():
            return {"volumes": {}, "timing": {}, "seconds": {}, "scores": {}}
        results: Results = json.loads(self.path.read_text(encoding="utf-8"))
        return results

    def write(self, results: Results) -> None:
        results["scores"] = dict(sorted(results["scores"].items()))
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def add(self, section: str, entries: Results) -> None:
        with self.lock:
            results = self.read()
            results.setdefault(section, {}).update(entries)
            self.write(results)

    def forget(self, keys: set[str]) -> None:
        with self.lock:
            results = self.read()
            results["scores"] = {key: score for key, score in results["scores"].items() if key not in keys}
            self.write(results)


def key(scan: Scan, noise: Noise, name: str, contestant: Contestant) -> str:
    return " | ".join([scan.name, noise.kind, f"{noise.level:g}", name, contestant.version])


def noises(scan: Scan, kinds: list[str], levels: list[float]) -> Iterator[Noise]:
    """Yield noise that suits the scan: CT has no Rician noise, and a series is only for methods that take series."""
    suits = {"CT slice": ("gaussian", "poisson"), "diffusion series": ("gaussian", "rician")}.get(
        scan.name, tuple(KINDS)
    )
    for noise in NOISES:
        if noise.kind in suits and noise.kind in kinds and (not levels or noise.level in levels):
            yield noise


class Picked(logging.Handler):
    """Log handler that remembers which method `auto` picked."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.method = ""

    def emit(self, record: logging.LogRecord) -> None:
        if "picked" in record.msg and isinstance(record.args, tuple):
            self.method = str(record.args[0]) if "%s" in record.msg else "series"


def run(contestant: Contestant, given: Case) -> tuple[np.ndarray, str]:
    """Denoise; return the result and the method that `auto` picked."""
    picked, log = Picked(), logging.getLogger("nlmeans")
    level = log.level
    log.addHandler(picked)
    log.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peers warn about missing optional packages
            return np.asarray(contestant.run(given), np.float32), picked.method
    finally:
        log.removeHandler(picked)
        log.setLevel(level)


def score(given: Case, result: np.ndarray) -> dict[str, float]:
    clean, mask = given.scan.clean, given.scan.mask
    volumes = [(clean, result, mask)]
    if clean.ndim == 4:
        volumes = list(zip(*(np.moveaxis(values, 3, 0) for values in (clean, result, mask)), strict=True))
    similar = [ssim(*pair, peak=1, mask=inside) for *pair, inside in volumes if inside.any()]
    return {
        "mask_psnr": round(psnr(clean, result, peak=1, mask=mask), 4),
        "psnr": round(psnr(clean, result, peak=1), 4),
        "ssim": round(statistics.fmean(similar), 5),
    }


def measure(
    store: Store, found: list[Scan], chosen: dict[str, Contestant], kinds: list[str], levels: list[float]
) -> None:
    known = set(store.read()["scores"])
    for scan in found:
        store.add("volumes", {scan.name: {"voxels": "×".join(map(str, scan.clean.shape)), "about": scan.about}})
        for noise in noises(scan, kinds, levels):
            given = case(scan, noise)
            for name, contestant in chosen.items():
                cell = key(scan, noise, name, contestant)
                if cell in known or not contestant.takes(given):
                    continue
                try:
                    result, picked = run(contestant, given)
                except Exception as error:  # a peer that fails is left out, whatever the reason
                    click.echo(f"{cell}: left out, {error!r}")
                    continue
                found_score: dict[str, Any] = score(given, result)
                if picked and name.startswith("auto"):
                    found_score["picked"] = picked
                store.add("scores", {cell: found_score})
                click.echo(f"{cell:70} {found_score}")


def measure_seconds(store: Store, scan: Scan, chosen: dict[str, Contestant]) -> None:
    """Time every contestant on one case: the median of three runs after a warm-up, or the first run if it is slow."""
    given = case(scan, Noise("gaussian", 3))
    for name, contestant in chosen.items():
        if name == "noisy" or not contestant.takes(given):
            continue
        times: list[float] = []
        while len(times) < 2 or (len(times) < 4 and sum(times) < SLOW):
            again = case(scan, given.noise)  # of which no contestant keeps a result
            start = time.perf_counter()
            contestant.run(again)
            times.append(time.perf_counter() - start)
            if times[0] > SLOW:
                break
        median = statistics.median(times[1:] or times)
        store.add("seconds", {name: round(median, 4)})
        click.echo(f"{name:40} {median:8.3f} s")
    store.add(
        "timing",
        {
            "volume": f"{scan.name}, {given.noise}, {'×'.join(map(str, scan.clean.shape))}",
            "machine": f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            "load": round(os.getloadavg()[0], 1),
        },
    )


SLOW = 8.0


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


@click.command()
@click.option(
    "--volume", "given", multiple=True, type=click.Path(path_type=Path), help="Add a clean volume; repeatable."
)
@click.option("--only", multiple=True, help="Volume to use, by name; repeatable.  [default: all]")
@click.option("--method", "names", multiple=True, help="Method or peer, by name; repeatable.  [default: all]")
@click.option("--ours", "which", flag_value="ours", help="Measure only our methods.")
@click.option("--peers", "which", flag_value="peers", help="Measure only the peers.")
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Kind of noise; repeatable; default: all."
)
@click.option("--level", "levels", multiple=True, type=float, help="Level of noise; repeatable.  [default: all]")
@click.option("--again", is_flag=True, help="Measure the chosen methods again, replacing their scores.")
@click.option("--timing", is_flag=True, help="Measure seconds instead, on the MNI152 crop; needs an idle machine.")
@click.option("--figure", is_flag=True, help="Only draw the figure of the removed noise.")
@click.option("--report-only", is_flag=True, help="Only write the tables from existing results.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", help="Folder for the results."
)
def main(
    given: tuple[Path, ...],
    only: tuple[str, ...],
    names: tuple[str, ...],
    which: str | None,
    kinds: tuple[str, ...],
    levels: tuple[float, ...],
    again: bool,
    timing: bool,
    figure: bool,
    report_only: bool,
    out: Path,
) -> None:
    """Measure the missing scores and write the tables."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    every, found = contestants(), scans(list(given))
    unknown = [name for name in (*names, *only) if name not in {*every, *found}]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: neither a method nor a volume; choose from {[*every, *found]}")
    chosen = {
        name: contestant
        for name, contestant in every.items()
        if (not names or name in names)
        and (which is None or (contestant.distribution == "nlmeans") == (which == "ours"))
    }
    wanted = [scan for scan in found.values() if not only or scan.name in only]
    out.mkdir(parents=True, exist_ok=True)
    store = Store(out / "quality.json")
    if figure:
        write_figure(found.get("MNI152", wanted[0]), every, out / "removed-noise.png")
        return
    if timing:
        measure_seconds(store, found.get("MNI152", wanted[0]), chosen)
    elif not report_only:
        everything = [(scan, noise) for scan in wanted for noise in noises(scan, list(kinds or KINDS), list(levels))]
        if again:
            store.forget({key(*pair, name, contestant) for pair in everything for name, contestant in chosen.items()})
        measure(store, wanted, chosen, list(kinds or KINDS), list(levels))
    write_report(store.read(), every, out / "quality.md")


if __name__ == "__main__":
    main()
