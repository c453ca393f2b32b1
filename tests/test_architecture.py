"""The engine stands alone, the doors do not know each other, and every import points down, nested ones included."""

from __future__ import annotations

import ast
import collections
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nlmeans
from tests.nlmeans.forks import Forks

ROOT = Path(__file__).parents[1]
PACKAGES = ("nlmeans", "monai_transforms", "napari_nlm")
WINDOWS = {"qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "magicgui", "napari", "vispy"}

FORBIDDEN = {
    "nlmeans": {"monai", "monai_transforms", "napari_nlm", *WINDOWS},
    "monai_transforms": {"napari_nlm", *WINDOWS},
    "napari_nlm": {"monai", "monai_transforms"},
}
"""Packages that a package must not import."""

MAY_IMPORT = {
    "core": set(),
    "kernels": {"core"},
    "operator": {"core", "kernels"},
    "noise": {"core", "kernels"},
    "blur": {"core", "kernels"},
    "patches": {"core", "kernels"},
    "methods": {"core", "operator", "patches"},
    "engine": {"core", "methods", "noise", "operator", "patches"},
    "api": {"core", "engine", "noise"},
    "files": {"api", "core", "engine", "methods", "noise"},
    "nn": {"core", "operator"},
    "cli": {"api", "core", "engine", "files", "methods", "noise", "operator"},
}
"""For each folder and module at the top of nlmeans/, the others that it may import."""

LARGEST_FOLDER = 14

REPEATED = {
    "log": "every module that logs has the package's logger",
    "run": "backends of the operator",
    "refusal": "backends of the operator",
    "bytes_per_voxel": "backends of the operator",
    "matcher": "patches are matched on a CPU, on a GPU, or by torch",
    "filter_volume": "groups are filtered on a CPU, on a GPU, or by torch",
    "filter_channel": "the sliding DCT on a CPU, on a GPU, or by torch",
    "serves": "compiled filters of patches",
    "trial": "filters of patches on a GPU",
    "blur": "the local blur on a CPU, on a GPU, or by torch",
    "read_file": "one per file format",
    "write_file": "one per file format",
    "derivatives": "the local blur on a CPU, on a GPU, or by torch",
}
"""Names that modules share because they do the same in several ways."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """Full names of everything that a module imports, at its top, inside functions, or for type checkers."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively, line {node.lineno}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def room(module: str) -> str:
    """The folder or module at the top of nlmeans/ that a module belongs to."""
    return module.split(".")[1]


def public_names(path: Path) -> Iterator[str]:
    """Functions, classes and constants that a module defines at its top."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@pytest.mark.parametrize("module", MODULES)
def test_no_package_imports_what_it_must_not_know(module: str) -> None:
    found = {name.split(".")[0] for name in imports(module)}
    assert not found & FORBIDDEN[module.split(".")[0]]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("nlmeans.")])
def test_imports_point_down(module: str) -> None:
    used = {room(name) for name in imports(module) if name.startswith("nlmeans.")} - {room(module)}
    assert used <= MAY_IMPORT[room(module)]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("nlmeans.")])
def test_the_engine_does_not_import_its_own_front(module: str) -> None:
    """Public names of ``nlmeans`` are for users; modules name the module that defines what they need."""
    assert "nlmeans" not in set(imports(module))


def test_folders_that_may_import_each_other_form_no_circle() -> None:
    graphlib.TopologicalSorter(MAY_IMPORT).prepare()


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph = {name: {found for found in imports(name) if found in MODULES} for name in MODULES if name != "nlmeans"}
    graphlib.TopologicalSorter(graph).prepare()


def test_no_folder_is_crowded() -> None:
    folders = {path.parent for name, path in MODULES.items() if name.startswith("nlmeans")}
    for folder in folders:
        assert len(list(folder.glob("*.py"))) <= LARGEST_FOLDER, folder
    top = [path for path in (ROOT / "nlmeans").iterdir() if path.name not in ("__pycache__", "sample_data")]
    assert len(top) <= LARGEST_FOLDER, sorted(path.name for path in top)


def test_a_name_means_one_thing() -> None:
    homes = collections.defaultdict(set)
    for module, path in MODULES.items():
        if path.name != "__init__.py":
            for name in public_names(path):
                homes[name].add(module)
    several = {name: modules for name, modules in homes.items() if len(modules) > 1 and name not in REPEATED}
    assert not several


@pytest.mark.parametrize("module", [name for name, path in MODULES.items() if path.name != "__init__.py"])
def test_every_module_has_a_test_of_its_name(module: str) -> None:
    *folders, name = module.split(".")
    assert ROOT.joinpath("tests", *folders, f"test_{name}.py").is_file()


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


def test_the_engine_works_where_monai_napari_and_qt_are_missing(forks: Forks) -> None:
    code, _, error = forks.python(ALONE).ended()
    assert code == 0, error


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import nlmeans", {"torch", "numba", "numpy", "matplotlib", "dask", "zarr", "pydicom", "nibabel"}),
        (
            "import nlmeans; nlmeans.denoise, nlmeans.blur, nlmeans.METHODS['bayes']",
            {"numba", "torch._dynamo", "triton", "matplotlib", "nibabel", "dask", "zarr", "pydicom"},
        ),
        ("import nlmeans; nlmeans.METHODS", {"torch", "numba", "numpy"}),
    ],
)
def test_importing_leaves_heavy_and_optional_packages_alone(code: str, heavy: set[str]) -> None:
    code = f"import sys; {code}; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_can_be_had(forks: Forks) -> None:
    code = "import nlmeans; print(*(name for name in nlmeans.__all__ if getattr(nlmeans, name) is not None))"
    _, names, error = forks.python(code).ended()
    assert set(names.split()) == set(nlmeans.__all__), error
    with pytest.raises(AttributeError, match="no attribute 'denoiser'"):
        _ = nlmeans.denoiser  # type: ignore[attr-defined]
