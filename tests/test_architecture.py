"""The engine stands alone, the doors do not know each other, and imports point down only."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("nlmeans", "monai_transforms", "napari_nlm")
WINDOWS = {"qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "magicgui", "napari", "vispy"}

FORBIDDEN = {
    "nlmeans": {"monai", "monai_transforms", "napari_nlm", *WINDOWS},
    "monai_transforms": {"napari_nlm", *WINDOWS},
    "napari_nlm": {"monai", "monai_transforms"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imports(module: str, everywhere: bool = True) -> Iterator[str]:
    """Full names of what a module imports, at its top or, if `everywhere`, inside functions too."""
    tree = ast.parse(MODULES[module].read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively, line {node.lineno}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


@pytest.mark.parametrize("module", MODULES)
def test_no_package_imports_what_it_must_not_know(module: str) -> None:
    found = {name.split(".")[0] for name in imports(module)}
    assert not found & FORBIDDEN[module.split(".")[0]]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("nlmeans.backends")])
def test_backends_know_nothing_above_them(module: str) -> None:
    ours = {name for name in imports(module) if name.split(".")[0] in PACKAGES}
    assert all(name == "nlmeans.progress" or name.startswith("nlmeans.backends") for name in ours)


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph = {name: {found for found in imports(name, everywhere=False) if found in MODULES} for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


ALONE = f"""
import importlib.abc
import sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FORBIDDEN["nlmeans"]!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())

import numpy as np
import nlmeans

noisy = 100 + 5 * np.random.default_rng(0).standard_normal((12, 12, 12))
assert nlmeans.denoise(noisy).std() < noisy.std()
"""


def test_the_engine_works_where_monai_napari_and_qt_are_missing() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_engine_leaves_heavy_and_optional_packages_alone() -> None:
    heavy = {"torch._dynamo", "triton", "matplotlib", "dask", "zarr", "pydicom"}
    code = f"import sys, nlmeans; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
