"""The logic of the module for 3D Slicer, with the real command line and real NRRD files, without Slicer."""

from __future__ import annotations

import ast
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nlmeans import METHODS
from nlmeans.noise.kinds import NOISES

MODULE = Path(__file__).parents[2] / "slicer" / "NonLocalMeans"
sys.path.insert(0, str(MODULE))

from NonLocalMeansLib import runs  # noqa: E402
from NonLocalMeansLib.runs import Choices, Run, RunError  # noqa: E402

from tests.slicer.volumes import write  # noqa: E402

sitk = pytest.importorskip("SimpleITK")

PROGRAM = [sys.executable, "-m", "nlmeans.cli"]
SOURCES = [MODULE / "NonLocalMeans.py", *sorted((MODULE / "NonLocalMeansLib").glob("*.py"))]


@pytest.fixture
def run() -> Iterator[Run]:
    with Run(PROGRAM, Choices("classic", "gaussian", sigma=8.0), os.environ) as run:
        yield run
    assert not run.running
    assert not run.folder.exists()


def test_a_volume_is_denoised_with_its_geometry_and_type(run: Run) -> None:
    before = write(run.source)
    run.start()
    result = sitk.ReadImage(str(run.result()))
    after = sitk.GetArrayFromImage(result)
    assert (after.dtype, after.shape) == (before.dtype, before.shape)
    assert after[:, :, :6].std() < 0.5 * before[:, :, :6].std()
    source = sitk.ReadImage(str(run.source))
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(result, name)() == pytest.approx(getattr(source, name)())
    assert run.progress == 1
    assert any("sigma 8" in line for line in run.summary)


def test_the_fraction_done_is_read_from_the_bar(run: Run) -> None:
    write(run.source)
    run.start()
    assert run.process is not None
    run.process.wait()
    for reader in run.readers:
        reader.join()
    assert run.progress == 1
    assert not any("%|" in line for line in run.messages)


def test_a_run_can_be_cancelled(run: Run) -> None:
    run.choices = Choices("best", strength=1.0)
    write(run.source, 96)
    run.start()
    assert run.running
    time.sleep(0.5)
    run.cancel()
    with pytest.raises(RunError, match="cancelled"):
        run.result()
    assert not run.running
    assert not run.target.exists()


def test_leaving_ends_the_process() -> None:
    with Run(PROGRAM, Choices("best")) as run:
        write(run.source, 96)
        run.start()
    assert run.process is not None
    assert run.process.returncode is not None


def test_an_error_of_the_command_is_raised_with_its_message(run: Run) -> None:
    run.source.write_bytes(b"not a volume")
    run.start()
    with pytest.raises(RunError, match=r"volume\.nrrd") as raised:
        run.result()
    assert not str(raised.value).startswith("Error")


def test_a_program_that_is_not_there_is_named() -> None:
    with Run(["/nowhere/nlmeans"], Choices()) as run, pytest.raises(RunError, match="'/nowhere/nlmeans' cannot"):
        run.start()


def test_the_choices_are_those_of_the_command_line() -> None:
    assert set(runs.METHODS) == {"auto", *METHODS}
    assert set(runs.NOISES) == {"auto", *NOISES}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_module_can_be_read_by_the_python_of_older_slicers(source: Path) -> None:
    ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_the_build_installs_every_file() -> None:
    listed = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", "NonLocalMeans")
    files = {path.relative_to(MODULE).as_posix() for path in [*SOURCES, *(MODULE / "Resources").rglob("*.png")]}
    assert files == set(re.findall(r"^  (\S+/\S+|\S+\.py)$", listed, re.MULTILINE))
