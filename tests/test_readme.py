"""What the README and the pages show works: their Python runs, their commands exist, and their figures are measured."""

from __future__ import annotations

import contextlib
import logging
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from nlmeans import METHODS, save_image
from nlmeans.cli import main
from nlmeans.files import samples
from nlmeans.operator.backends import BACKENDS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]

NOT_RUN = ("setup", "test", "napari", "example", "own machine")
"""Marks of blocks whose commands install, open a window or take minutes. Others call `nlmeans`, which is run here."""


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """The code blocks of a page: the mark in a comment before, if there is one, and the code."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"(?:<!-- ([\w ]+) -->\n)?```{language}\n(.*?)```", text, flags=re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(page: Path) -> Iterator[tuple[str, ...]]:
    """The arguments of every call of `nlmeans` in a page."""
    for mark, block in blocks(page, "bash"):
        for words in (shlex.split(line, comments=True) for line in block.splitlines()):
            if mark not in NOT_RUN:
                assert Path(words[0]).name == "nlmeans", f"mark this block in {name_of(page)} as one of {NOT_RUN}"
                yield tuple(words[1:])


@pytest.fixture
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def with_the_usual_methods_and_backends() -> Iterator[None]:
    """Afterwards, whatever a page adds to them; and the usual log."""
    log = logging.getLogger("nlmeans")
    kept, level = [(registry, dict(registry)) for registry in (METHODS, BACKENDS)], log.level
    yield
    log.setLevel(level)
    for registry, entries in kept:
        registry.clear()
        registry.update(entries)  # type: ignore[arg-type]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
@pytest.mark.usefixtures("in_an_empty_folder", "with_the_usual_methods_and_backends", "short_head")
def test_python_blocks_run_one_after_the_other(page: Path) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for _, block in blocks(page, "python"):
        exec(compile(block, name_of(page), "exec"), names)


def test_the_page_about_large_volumes_shows_arrays_in_memory_and_of_dask() -> None:
    assert len(blocks(ROOT / "docs" / "large-volumes.md", "python")) >= 2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the files that commands in the pages read."""
    folder = tmp_path_factory.mktemp("files")
    with contextlib.chdir(folder):
        put_files()
    return folder


def put_files() -> None:
    for name in ("your_scan.nii.gz", "scans/one/scan.nii.gz", "my_dataset/sub-01/anat/sub-01_T1w.nii.gz"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(samples.path("slice"), name)
    Path("my_dataset/dataset_description.json").write_text('{"Name": "a scan", "BIDSVersion": "1.10.0"}')
    scan = nibabel.load(samples.path("slice"))
    image = np.asarray(scan.dataobj)
    nibabel.Nifti1Image((image > 200).astype(np.uint8), scan.affine).to_filename("brain.nii.gz")
    small = np.asarray(nibabel.load(samples.path("head")).dataobj)[30:54, 30:54, 30:46]
    nibabel.Nifti1Image(np.stack([small] * 3, -1), np.eye(4)).to_filename("series.nii.gz")
    weighted = np.stack([small * 0.8**n for n in range(9)], -1)
    nibabel.Nifti1Image(weighted.astype("f4"), np.eye(4)).to_filename("dwi.nii.gz")
    nibabel.Nifti1Image(small, np.eye(4)).to_filename("counts.nii.gz")
    for name in ("in.nrrd", "in.mha", "in.mgz", "stack.tif"):
        save_image(nibabel.Nifti1Image(small, np.eye(4)), name)
    write_series = runpy.run_path(str(ROOT / "tests" / "nlmeans" / "series.py"))["write_series"]
    write_series(Path("folder"), small)


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands(page)))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.usefixtures("in_an_empty_folder", "short_head", "plain_pictures")
def test_commands_run(command: tuple[str, ...], files: Path) -> None:
    shutil.copytree(files, ".", dirs_exist_ok=True)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    for file in LEAVES.get(" ".join(command), ()):
        assert Path(file).is_file(), file


LEAVES = {
    "denoise your_scan.nii.gz denoised.nii.gz --report denoised.png": (
        "denoised.nii.gz",
        "denoised.json",
        "denoised.png",
    ),
    "denoise in.mha out.mgz --noise-map noise.nrrd": ("out.mgz", "out.json", "noise.nrrd"),
    "denoise folder derived": ("derived.json",),
    "batch scans/**/*.nii.gz --out many --workers 2": ("many/scan_denoised.nii.gz", "many/report.html"),
    "bids my_dataset derivatives participant --participant-label 01": (
        "derivatives/sub-01/anat/sub-01_desc-denoised_T1w.nii.gz",
    ),
    "batch my_dataset": ("my_dataset/derivatives/nlmeans/sub-01/anat/sub-01_desc-denoised_T1w.nii.gz",),
}
"""What the pages say of the files that a command makes."""


def test_what_commands_leave_is_said_of_commands_that_are_there() -> None:
    assert set(LEAVES) <= {" ".join(command) for command in COMMANDS}


def test_every_method_and_backend_has_a_row() -> None:
    rows = {page: re.findall(r"^\| `(\w+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE) for page in PAGES}
    assert {"auto", *METHODS} <= set(rows[README])
    assert set(BACKENDS) <= set(rows[ROOT / "docs" / "how-it-works.md"])
    about = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    assert set(METHODS) <= set(re.findall(r"^`(\w+)`$", about, re.MULTILINE))


def test_figures_in_the_readme_are_those_measured_last() -> None:
    text = README.read_text(encoding="utf-8")
    with_figures = runpy.run_path(str(ROOT / "docs" / "results.py"))["with_figures"]
    assert text == with_figures(text), "run: python docs/results.py"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pictures_and_pages_that_are_linked_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
