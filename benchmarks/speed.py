"""Compare speed and memory of nlmeans and its peers on the same arrays, with the same number of threads.

Usage: python benchmarks/speed.py [--quick] [--out benchmarks/results] [--threads 2]

README.md in this folder describes how it is measured.
"""

from __future__ import annotations

import datetime
import importlib.util
import itertools
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import torch
from contenders import CONTENDERS, NOISE, OURS_3D, PEERS_3D, Case, input_of, noisy
from fresh_process import measured_alone
from speed_report import write_report
from torch import Tensor

import nlmeans
from nlmeans.methods.registry import single_methods

PACKAGES = ["nlmeans", "torch", "numpy", "numba", "triton"]
PACKAGES += ["scikit-image", "dipy", "opencv-python-headless", "opencv-python", "bm4d", "antspyx"]
MOST_RUNS = 8
LONG = 2.0  # seconds; a first run that takes longer counts, a shorter one only warms up


def cubes(sizes: list[int], patches: list[int], searches: list[int]) -> list[Case]:
    return [Case((n, n, n), p, s) for n, p, s in itertools.product(sizes, patches, searches)]


@dataclass(frozen=True)
class Plan:
    """Cases of a run, and the seconds after which a contender is not repeated."""

    budget: float = 4.0
    peers: list[Case] = field(default_factory=lambda: [*cubes([64, 96], [1], [3, 5]), *cubes([64, 96], [2], [5])])
    pixelwise: list[Case] = field(default_factory=lambda: cubes([64, 96], [0], [3, 5]))
    pictures: list[Case] = field(default_factory=lambda: [Case((1024, 1024), 2, 10), Case((1024, 1024), 3, 17)])
    methods: list[Case] = field(default_factory=lambda: [Case((64, 64, 64)), Case((96, 96, 96))])
    scaling: list[Case] = field(
        default_factory=lambda: [*cubes([64], [0, 1, 2], [10]), *cubes([64, 96, 128, 256], [0, 1, 2], [3, 5, 8])]
    )
    threads: list[Case] = field(default_factory=lambda: cubes([96], [0, 1, 2], [5]))
    memory: Case = field(default_factory=lambda: Case((128, 128, 128), 1, 3))
    biggest: Case = field(default_factory=lambda: Case((256, 256, 256), 0, 8))


QUICK = Plan(
    budget=0.5,
    peers=cubes([48], [1], [3]),
    pixelwise=cubes([48], [0], [3]),
    pictures=[Case((512, 512), 2, 10)],
    methods=[Case((32, 32, 32))],
    scaling=cubes([48, 64, 96], [0, 1, 2], [3, 5]),
    threads=cubes([64], [1], [3]),
    memory=Case((64, 64, 64), 1, 3),
    biggest=Case((128, 128, 128), 0, 5),
)


@dataclass
class Measurement:
    topic: str
    contender: str
    threads: int
    device: str
    note: str
    shape: tuple[int, ...]
    patch_radius: int | None
    search_radius: int | None
    pairs: int
    seconds: list[float]
    difference: float | None = None  # root mean square from ours, in standard deviations of the noise
    memory: int | None = None  # bytes, in addition to the memory in use before


def describe(topic: str, name: str, threads: int, case: Case, seconds: list[float]) -> Measurement:
    contender = CONTENDERS[name]
    return Measurement(
        topic, name, threads, contender.device, contender.note, **asdict(case), pairs=case.pairs, seconds=seconds
    )


def tell(m: Measurement) -> None:
    radii = "" if m.patch_radius is None else f" patch radius {m.patch_radius}, search radius {m.search_radius}"
    where = f"{m.topic}: {'×'.join(map(str, m.shape))}{radii}, {m.contender}, {m.threads} thread(s)"
    memory = "" if m.memory is None else f", {m.memory / 2**20:.0f} MiB"
    click.echo(f"{where}: {np.median(m.seconds):.3g} s{memory}")


def timed(name: str, values: Any, case: Case, threads: int) -> tuple[float, np.ndarray]:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    result = CONTENDERS[name].run(values, case, threads)
    if CONTENDERS[name].device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return seconds, result.cpu().numpy() if isinstance(result, Tensor) else result


def warm_up(name: str, values: Any, case: Case, threads: int) -> None:
    """Import and compile on a small piece; on a GPU on the whole input, as the kernel tunes itself to large inputs."""
    piece = values[(slice(0, 24),) * len(case.shape)] if CONTENDERS[name].device == "cpu" else values
    timed(name, piece, case, threads)


def enough(seconds: list[float], budget: float) -> bool:
    if not seconds or (len(seconds) == 1 and seconds[0] <= LONG):
        return False
    return len(seconds) > MOST_RUNS or sum(seconds) > budget


def race(topic: str, entrants: list[tuple[str, int]], case: Case, budget: float) -> list[Measurement]:
    """Time (contender, threads) in turns, so that a slowdown of the machine affects all; the first is ours."""
    entrants = [(name, n) for name, n in entrants if CONTENDERS[name].runs(case)]
    values = {name: CONTENDERS[name].prepare(input_of(case)) for name, _ in entrants}
    runs: dict[tuple[str, int], list[float]] = {entrant: [] for entrant in entrants}
    results: dict[str, np.ndarray] = {}
    for name, threads in entrants:
        warm_up(name, values[name], case, threads)
    while not all(enough(seconds, budget) for seconds in runs.values()):
        for (name, threads), seconds in runs.items():
            if not enough(seconds, budget):
                elapsed, results[name] = timed(name, values[name], case, threads)
                seconds.append(elapsed)

    measured = []
    margin = (case.patch_radius or 0) + (case.search_radius or 0)  # the filters treat borders differently
    inside = tuple(slice(margin, n - margin) for n in case.shape)
    for (name, threads), seconds in runs.items():
        measurement = describe(topic, name, threads, case, seconds if seconds[0] > LONG else seconds[1:])
        if case.pairs > math.prod(case.shape):
            error = results[name][inside].astype(np.float64) - results[entrants[0][0]][inside]
            measurement.difference = float(np.sqrt(np.mean(error**2))) / NOISE
        measured.append(measurement)
        tell(measurement)
    return measured


def prepared(name: str, case: Case, threads: int) -> Callable[[], tuple[float, int | None]]:
    """Prepare a run that returns its seconds and the GPU memory that it used, in bytes."""
    values = CONTENDERS[name].prepare(input_of(case))
    warm_up(name, values, case, threads)
    on_card = CONTENDERS[name].device == "cuda"
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if on_card else 0

    def run() -> tuple[float, int | None]:
        seconds, _ = timed(name, values, case, threads)
        return seconds, torch.cuda.max_memory_allocated() - held if on_card else None

    return run


def alone(topic: str, name: str, case: Case, threads: int) -> Measurement:
    """Measure time and memory of one run in a fresh process."""
    (seconds, on_card), memory = measured_alone(prepared, name, case, threads)
    measurement = describe(topic, name, threads, case, [seconds])
    measurement.memory = memory if on_card is None else on_card
    tell(measurement)
    return measurement


def first_calls() -> Callable[[], list[float]]:
    values = noisy((24, 24, 24))
    return lambda: [timed("nlmeans cpu", values, Case(values.shape, patch, 3), 1)[0] for patch in (0, 1, 2)]


def first_use() -> list[dict[str, float]]:
    """Measure the first call in a process per patch radius, in seconds: with an empty and a filled compile cache."""
    before = os.environ.get("NUMBA_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NUMBA_CACHE_DIR"] = folder
        found = [measured_alone(first_calls)[0] for _ in range(2)]
    del os.environ["NUMBA_CACHE_DIR"]
    os.environ.update({} if before is None else {"NUMBA_CACHE_DIR": before})
    return [{"patch_radius": patch, "empty": found[0][patch], "on_disk": found[1][patch]} for patch in (0, 1, 2)]


def preview(threads: int) -> list[float]:
    """Time the preview of one slice of a 256³ volume, in seconds."""
    torch.set_num_threads(threads)
    volume, seconds = noisy((256, 256, 256)), []
    for _ in range(22):
        start = time.perf_counter()
        nlmeans.preview(volume, 128, axis=0, sigma=NOISE, method="classic", patch_radius=1, search_radius=3)
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    fields = [tuple(part.strip() for part in line.split(":", 1)) for line in lines if ":" in line]
    models = [value for key, value in fields if key == "model name"]
    wide = ", AVX-512" if any(key == "flags" and "avx512f" in value for key, value in fields) else ""
    return (models[0] if models else platform.processor()) + wide


def machine(threads: int) -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": processor(),
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load_before": psutil.getloadavg()[0],
        "versions": versions,
        "missing": sorted({c.package for c in CONTENDERS.values() if not importlib.util.find_spec(c.package)}),
    }


def measure(plan: Plan, threads: int) -> dict[str, Any]:
    about, start = machine(threads), time.perf_counter()
    whole_methods = [*(f"denoise {name}" for name in single_methods()), "BM4D"]
    topics: dict[str, tuple[list[Case], list[str]]] = {
        "peers": (plan.peers, [*OURS_3D, *PEERS_3D]),
        "pixelwise": (plan.pixelwise, [*OURS_3D, "torch offset loop", "torch offset loop, CUDA"]),
        "pictures": (plan.pictures, ["nlmeans cpu", "nlmeans gpu", "OpenCV", "scikit-image fast"]),
        "methods": (plan.methods, whole_methods),
        "scaling": (plan.scaling, ["nlmeans cpu", "nlmeans gpu"]),
    }
    found: list[Measurement] = []
    for topic, (cases, names) in topics.items():
        counts = {name: [threads] for name in names}
        if topic in ("peers", "pictures"):
            counts["nlmeans cpu"] = sorted({1, threads}, reverse=True)  # some peers have only one thread
        entrants = [(name, count) for name in names for count in counts[name]]
        for case in cases:
            found += race(topic, entrants, case, plan.budget)
    for case in plan.threads:
        entrants = [("nlmeans cpu", n) for n in sorted({threads, *(2**n for n in range(threads.bit_length()))})]
        found += race("threads", entrants, case, plan.budget)
    for topic, case, names in (
        ("memory", plan.memory, [*OURS_3D, *(name for name in PEERS_3D if name != "scikit-image slow")]),
        ("memory of methods", plan.methods[0], whole_methods),
        ("biggest", plan.biggest, ["nlmeans cpu", "nlmeans gpu"]),
    ):
        found += [alone(topic, name, case, threads) for name in names if CONTENDERS[name].runs(case)]
    return {
        "machine": about | {"load_after": psutil.getloadavg()[0], "minutes": (time.perf_counter() - start) / 60},
        "measurements": [asdict(measurement) for measurement in found],
        "first_use": first_use(),
        "preview": preview(threads),
    }


@click.command()
@click.option("--quick", is_flag=True, help="Run small cases with few repeats to check that everything works.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", help="Output folder."
)
@click.option("--threads", type=click.IntRange(1), default=2, help="Threads of every contender.")
@click.option("--report-only", is_flag=True, help="Only write speed.md and speed.png from speed.json.")
def main(quick: bool, out: Path, threads: int, report_only: bool) -> None:
    """Measure nlmeans and its peers; write speed.json, speed.md and speed.png."""
    os.environ["OMP_NUM_THREADS"] = os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    out.mkdir(parents=True, exist_ok=True)
    if not report_only:
        results = measure(QUICK if quick else Plan(), threads)
        (out / "speed.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_report(json.loads((out / "speed.json").read_text(encoding="utf-8")), out)
    click.echo(f"Wrote {out}/speed.json, speed.md, speed.png")


if __name__ == "__main__":
    main()
