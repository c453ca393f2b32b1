"""Denoise a zarr array on a cluster of processes, chunk by chunk.

    python examples/dask_cluster.py                       a small simulated volume, on two processes
    python examples/dask_cluster.py IN.zarr OUT.zarr --workers 8 --memory 8GB --method bayes

On a real cluster, pass the address of its scheduler to ``distributed.Client`` instead of the ``LocalCluster``. All
workers must have access to the files.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import dask.array as da
import numpy as np
import zarr
from distributed import Client, LocalCluster

import nlmeans


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, help="zarr array to denoise; by default a simulated one")
    parser.add_argument("target", nargs="?", type=Path, help="zarr array to write the result to")
    parser.add_argument("--workers", type=int, default=2, help="number of processes, each with one thread")
    parser.add_argument("--memory", default="2GB", help="memory limit of each process")
    parser.add_argument("--method", default="classic", help="method of nlmeans.denoise")
    parser.add_argument("--backend", default="auto", help="backend of nlmeans.denoise")
    given = parser.parse_args(arguments)
    if given.source is not None and given.target is None:
        parser.error("give a target as well as a source")
    with tempfile.TemporaryDirectory() as folder:
        source = given.source or made(Path(folder) / "noisy.zarr")
        target = given.target or Path(folder) / "denoised.zarr"
        denoise(source, target, given.workers, given.memory, method=given.method, backend=given.backend)


def made(path: Path) -> Path:
    """Write a bright ball in noise as a zarr array."""
    places = np.meshgrid(*(np.linspace(-1, 1, 64, dtype=np.float32),) * 3, indexing="ij")
    ball = 100 * (sum(place**2 for place in places) < 0.5)
    noisy = ball + 8 * np.random.default_rng(0).standard_normal(ball.shape)
    zarr.create_array(path, data=noisy.astype(np.float32), chunks=(32, 32, 32))
    return path


def denoise(source: Path, target: Path, workers: int, memory: str, **settings: str) -> None:
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=memory, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        noisy = da.from_zarr(source)
        nlmeans.denoise(noisy, **settings).to_zarr(target)
        removed = (noisy - da.from_zarr(target)).std().compute()
        print(f"{target.name}: {noisy.shape} in {noisy.npartitions} chunks, removed noise of deviation {removed:.1f}")


if __name__ == "__main__":
    main()
