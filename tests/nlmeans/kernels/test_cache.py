"""Compiled kernels are loaded from disk, unless the code that they were compiled from has changed."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nlmeans
from nlmeans.kernels import cache

KERNEL = """
from nlmeans.kernels import cache

def of(number):
    def plus(x):
        return x + number
    return cache.compiled(plus)
"""


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "kernels_of_a_test.py").write_text(KERNEL)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("kernels_of_a_test")
    del sys.modules["kernels_of_a_test"]


def hits(kernel: Any) -> int:
    return sum(kernel.stats.cache_hits.values())


def test_a_kernel_is_compiled_once_for_each_of_its_constants(kernels: Any) -> None:
    assert [kernels.of(number)(1) for number in (2, 3)] == [3, 4]
    again = [kernels.of(number) for number in (2, 3)]
    assert [kernel(1) for kernel in again] == [3, 4]
    assert [hits(kernel) for kernel in again] == [1, 1]


def test_that_the_first_run_compiles_is_said_once(kernels: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nlmeans.kernels")
    cache.say_compiling.cache_clear()
    for number in (5, 6):
        kernels.of(number)(1)
    assert caplog.messages == ["compiling kernels, once on this machine: this takes about ten seconds"]
    caplog.clear()
    cache.say_compiling.cache_clear()
    kernels.of(5)(1)
    assert not caplog.messages


def test_and_anew_where_any_file_of_kernels_has_changed(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.of(2)(1)
    monkeypatch.setattr(cache, "SOURCES", "others")
    changed = kernels.of(2)
    assert changed(1) == 3
    assert hits(changed) == 0


KERNEL_MAKERS = {
    "nlmeans.kernels.cache",
    "nlmeans.kernels.cache.compiled",
    "nlmeans.kernels.vector.vector_kernel",
    "nlmeans.kernels.vector.inlined_kernel",
    "nlmeans.kernels.vector.inner_kernel",
    "nlmeans.blur.cpu_kernel.blur_kernel",
}


def defines_kernels(file: Path) -> bool:
    """Whether a module imports numba, llvmlite, or a function that compiles kernels."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return bool(names & KERNEL_MAKERS) or any(name.split(".")[0] in ("numba", "llvmlite") for name in names)


def test_all_files_that_kernels_are_in_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [file for file in cache.PACKAGE.rglob("*.py") if defines_kernels(file)]
    found = {file.relative_to(cache.PACKAGE).with_suffix("").as_posix() for file in files}
    assert {
        "kernels/cache",
        "kernels/exponential",
        "kernels/matrix",
        "kernels/vector",
        "operator/cpu_kernel",
        "patches/bayes/cpu_kernel",
        "patches/dct/cpu_kernel",
        "patches/groups_cpu_kernel",
        "blur/cpu_kernel",
        "blur/full_cpu_kernel",
        "blur/separable_cpu_kernel",
    } <= found
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    for file in sorted(found):
        before = cache.kernel_fingerprint()
        copied = tmp_path / f"{file}.py"
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text("first")
        first = cache.kernel_fingerprint()
        copied.write_text("second")
        assert len({before, first, cache.kernel_fingerprint()}) == 3, file


@pytest.mark.skipif(os.name == "nt", reason="there are no locks")
def test_who_saves_waits_for_who_loads(kernels: Any, tmp_path: Path) -> None:
    kernel, result = kernels.of(2), []
    thread = threading.Thread(target=lambda: result.append(kernel(1)))
    with cache.locked(Path(kernel._cache.cache_path)):
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join()
    assert result == [3]


OTHER_WIDTH = """
import sys

import numba
import numpy as np
import torch
from llvmlite import binding

numba.njit(lambda x: x)(1)  # knows its processor by now
features = dict(binding.get_host_cpu_features())
wide = features.get("avx512f") or not features.get("avx")
binding.get_host_cpu_features = lambda: {"avx": True, "avx512f": not wide}

import nlmeans
from nlmeans.kernels import vector

assert vector.LANES == (8 if wide else 16)
noisy = np.load(sys.argv[1])
found = [nlmeans.denoise(noisy, 10.0, method=name) for name in ("classic", "bayes")]
np.save(sys.argv[2], np.stack(found))
"""


def test_vectors_of_the_other_width_give_the_same(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The kernels compiled for it stay for the next time, apart from the others, whose files would not differ."""
    noisy = torch.randn(17, 18, 19, generator=torch.Generator().manual_seed(0)).mul(10).add(100).numpy()
    np.save(tmp_path / "noisy.npy", noisy)
    files = [str(tmp_path / "noisy.npy"), str(tmp_path / "found.npy")]
    kept = request.config.cache.mkdir("other-width")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(kept)}
    subprocess.run([sys.executable, "-c", OTHER_WIDTH, *files], check=True, env=environment)
    expected = [nlmeans.denoise(noisy, 10.0, method=name) for name in ("classic", "bayes")]
    np.testing.assert_allclose(np.load(files[1]), np.stack(expected), atol=1e-3)
