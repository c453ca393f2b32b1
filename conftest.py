"""Settings for pytest."""

import gc
import importlib.util
import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Tests that run beside each other share the cores. With as many threads as cores in each, the small volumes of tests
# take more than twice the time. What depends on threads is tested with a number of threads of its own.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

collect_ignore = [  # have no doctests, and cannot be imported without triton
    "nlmeans/blur/gpu_kernel.py",
    "nlmeans/operator/gpu_kernel.py",
    "nlmeans/patches/bayes/gpu_kernel.py",
    "nlmeans/patches/dct/gpu_kernel.py",
    "nlmeans/patches/groups_gpu_kernel.py",
    "nlmeans/patches/low_rank/eigen_gpu_kernel.py",
]

for module, library in (
    ("files/formats/itk", "SimpleITK"),
    ("files/formats/tiff", "tifffile"),
    ("cli/nipype", "nipype"),
):
    if importlib.util.find_spec(library) is None:
        collect_ignore.append(f"nlmeans/{module}.py")

# No deadlines: the first use of a kernel compiles it. Few examples in the ordinary suite, which change only with the
# constants in the modules that are loaded; --hypothesis-profile=thorough draws hundreds anew.
CALM = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("suite", max_examples=10, derandomize=True, database=None, **CALM)
settings.register_profile("thorough", max_examples=300, print_blob=True, **CALM)
settings.load_profile("suite")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Hide what is imported from the garbage collector, which would go through all of it often."""
    gc.disable()
    found = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(10_000)
    return found


def pytest_unconfigure() -> None:
    gc.unfreeze()  # extension modules complain of what is left when Python ends


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What starts programs in processes of their own, whose libraries are imported already."""
    from tests.nlmeans.forks import Forks

    with Forks(tmp_path_factory.mktemp("forks")) as made:
        yield made


@pytest.fixture(scope="session")
def part_of_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of 24 of the 86 sagittal slices of the samples `head` and `head_clean`."""
    import nibabel

    from nlmeans.files import samples

    folder = tmp_path_factory.mktemp("part")
    for name in ("head.nii.gz", "head_clean.nii.gz"):
        nibabel.save(nibabel.load(samples.path(name)).slicer[31:55], folder / name)
    return folder


@pytest.fixture
def short_head(part_of_head: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sample `head` a quarter as long, for code that is about something else."""
    from nlmeans.files import samples

    whole = samples.path

    def path(name: str) -> Path:
        part = part_of_head / f"{name.removesuffix('.nii.gz')}.nii.gz"
        return part if part.is_file() else whole(name)

    monkeypatch.setattr(samples, "path", path)


@pytest.fixture
def plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw one plane of a scan, small and not laid out, which takes a quarter of the time, where nobody looks at it."""

    def save(path: Path, drawing: Any) -> None:
        drawing.set_layout_engine("none")
        drawing.savefig(path, format="png", dpi=30)

    monkeypatch.setattr("nlmeans.files.pictures.figure.PLANES", ("sagittal",))
    monkeypatch.setattr("nlmeans.files.pictures.figure.save_figure", save)


@pytest.fixture(scope="module")
def two_threads() -> Iterator[None]:
    """PyTorch with threads of its own, however many tests run beside each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """Take back what a test sets of loggers, as bundles of MONAI and ``--verbose`` do."""
    loggers = [logging.getLogger(name) for name in (None, "nlmeans", "nlmeans.kernels")]
    before = [(one, one.level, one.propagate, one.disabled, list(one.handlers)) for one in loggers]
    yield
    for one, level, propagate, disabled, handlers in before:
        one.setLevel(level)
        one.propagate, one.disabled = propagate, disabled
        for added in set(one.handlers) - set(handlers):
            one.removeHandler(added)
