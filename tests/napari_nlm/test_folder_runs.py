"""All images of a folder, denoised from the widget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlmeans
from napari_nlm.folder_runs import arguments_of_all, denoise_folder
from napari_nlm.parameters import Parameters
from nlmeans import Cancelled
from nlmeans.core.progress import silent
from tests.napari_nlm.conftest import Bench
from tests.nlmeans.scans import RAS, noisy, save, scan, values

PLAIN = Parameters(method="classic", sigma=3.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "scans"
    made.mkdir()
    for name in ("a", "b"):
        save(scan(noisy(12, 14, 16), "int16", RAS), made / f"{name}.nii.gz")
    (made / "broken.nii.gz").write_bytes(b"no image")
    return made


@pytest.mark.usefixtures("plain_pictures")
def test_each_image_has_its_own_noise_and_what_fails_is_named(folder: Path) -> None:
    out, told = folder.with_name("out"), list[float]()
    result = denoise_folder(folder, out, PLAIN, told.append)
    assert result.text.startswith("2 denoised")
    (failure,) = result.failures
    assert failure.startswith("broken.nii.gz: ")
    expected = nlmeans.denoise(nlmeans.load_image(folder / "a.nii.gz"), method="classic")
    np.testing.assert_allclose(values(out / "a_denoised.nii.gz"), np.asarray(expected.dataobj), atol=1)
    assert (out / "report.html").is_file()
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    assert "2 finished before" in denoise_folder(folder, out, PLAIN, silent).text


@pytest.mark.usefixtures("plain_pictures")
def test_a_cancelled_run_keeps_what_is_done_and_nothing_half_done(folder: Path) -> None:
    out = folder.with_name("out")

    def stop(fraction: float) -> None:
        if fraction > 0.4:
            raise Cancelled

    with pytest.raises(Cancelled):
        denoise_folder(folder, out, PLAIN, stop)
    assert [path.name for path in out.rglob("*.nii.gz")] == ["a_denoised.nii.gz"]
    assert not list(out.rglob("*.partial*"))


@pytest.mark.usefixtures("plain_pictures")
def test_the_widget_runs_a_folder_and_says_what_became_of_it(bench: Bench, folder: Path) -> None:
    done: list[Any] = []
    bench.session.runs.folder_done.connect(done.append)
    bench.session.runs.start_folder(folder, folder.with_name("out"))
    assert bench.session.runs.busy
    assert bench.session.runs.title == "the images in scans"
    bench.settle()
    assert not bench.session.runs.busy
    assert len(done[0].failures) == 1
    assert not bench.errors
    bench.session.next_run.set(h=0.7)
    bench.session.runs.start_folder(folder, folder.with_name("out"))
    bench.settle()
    assert not bench.session.runs.busy
    assert "set it to auto" in str(bench.errors[-1])


def test_choices_become_arguments_and_those_of_one_image_are_left_out_or_refused() -> None:
    chosen = Parameters(method="classic", strength=1.5, sigma=3.0, modality="CT", dtype="float32", voxel_size=False)
    assert arguments_of_all(chosen) == {
        "method": "classic",
        "strength": 1.5,
        "modality": "CT",
        "as_float": True,
        "voxel_radii": True,
    }
    assert arguments_of_all(Parameters(sigma_varies=True))["sigma"] == "map"
    with pytest.raises(ValueError, match="set it to auto"):
        arguments_of_all(Parameters(h=0.7))
