"""Cohorts: scans are denoised, failures named, finished scans skipped, and nothing is written outside OUT."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import nlmeans
from nlmeans import NoiseModel, cli
from nlmeans.files import batch, bids, samples
from tests.nlmeans.cohorts import QUICK, SHAPE, image, run, write_dataset
from tests.nlmeans.scans import RAS, contents, noisy, save, scan, values

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T1w images of five participants. Two are damaged: one is cut short, one contains infinite values."""
    root = write_dataset(tmp_path_factory.mktemp("five") / "study", 5)
    short = root / "sub-03" / "anat" / "sub-03_T1w.nii.gz"
    short.write_bytes(short.read_bytes()[:900])
    hole = noisy(*SHAPE)
    hole[3, 3, 3] = np.inf
    save(scan(hole, "f4", RAS), root / "sub-04" / "anat" / "sub-04_T1w.nii.gz")
    return root


@pytest.fixture(scope="module")
def by_workers(dataset: Path) -> dict[int, Result]:
    """What the command said with one worker and with two. Results lie beside the dataset in folders `1` and `2`."""
    before = contents(dataset)
    said = {
        workers: run(dataset, "--out", dataset.parent / str(workers), "--workers", workers, "--memory", "1GB")
        for workers in (1, 2)
    }
    assert contents(dataset) == before
    return said


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two T1w images of two participants."""
    return write_dataset(tmp_path / "study", 2)


@pytest.fixture(scope="module")
def denoised_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dataset(tmp_path_factory.mktemp("denoised") / "study", 2)
    assert run(root).exit_code == 0
    return root


@pytest.fixture
def finished(denoised_once: Path, tmp_path: Path) -> Path:
    """A dataset like `small` with its results in the usual place."""
    return shutil.copytree(denoised_once, tmp_path / "study")


# ---------------------------------------------------------------- a BIDS dataset


@pytest.mark.parametrize("workers", [1, 2])
def test_of_five_scans_two_damaged_three_are_denoised_and_two_named(
    workers: int, by_workers: dict[int, Result], dataset: Path
) -> None:
    result, out = by_workers[workers], dataset.parent / str(workers)
    assert result.exit_code == 1
    assert len(list(out.glob("sub-*/anat/*_desc-denoised_T1w.nii.gz"))) == 3
    named = [line for line in result.stderr.splitlines() if line.startswith("Failed: ")]
    assert len(named) == 2
    assert "sub-03/anat/sub-03_T1w.nii.gz: " in named[0]
    assert "cannot be read; it may be damaged" in named[0]
    assert "sub-04/anat/sub-04_T1w.nii.gz: " in named[1]
    assert "contains infinite" in named[1]
    page = (out / "report.html").read_text()
    assert "5 scans: 3 denoised, 2 failed" in page
    assert "contains infinite" in page
    assert "3 denoised, 2 failed" in result.stdout
    assert not [file for file in out.rglob(".*") if file.name != ".bidsignore"]


def test_each_result_is_that_of_denoise(finished: Path, tmp_path: Path) -> None:
    source = finished / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    single = ("denoise", source, tmp_path / "one.nii.gz", *QUICK[:-2], "--modality", "MR")
    assert CliRunner().invoke(cli.main, list(map(str, single))).exit_code == 0
    result = finished / "derivatives/nlmeans/sub-01/anat/sub-01_desc-denoised_T1w.nii.gz"
    np.testing.assert_array_equal(values(result), values(tmp_path / "one.nii.gz"))


def test_the_sidecar_says_where_from_how_and_what_the_scanner_said(finished: Path) -> None:
    out = finished / "derivatives" / "nlmeans"
    record = bids.read_json(out / "sub-02" / "anat" / "sub-02_desc-denoised_T1w.json")
    assert record["Sources"] == ["bids:raw:sub-02/anat/sub-02_T1w.nii.gz"]
    assert (record["MagneticFieldStrength"], record["EchoTime"]) == (3, 0.004)
    assert record["SkullStripped"] is False
    assert record["settings"]["modality"] == "MR"
    assert record["noise"]["kind"] == "gaussian"
    assert "too few intensities" in record["noise"]["evidence"][0]
    assert record["quality"]["snr"] == pytest.approx(record["quality"]["signal"] / record["noise"]["sigma"])
    about = bids.read_json(out / bids.DESCRIPTION)
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "nlmeans"
    assert about["DatasetLinks"] == {"raw": "../.."}
    assert about["License"] == "CC0"


def test_diffusion_keeps_its_directions_though_they_lie_higher_up(small: Path) -> None:
    image(small / "sub-01" / "dwi" / "sub-01_dwi.nii.gz", (*SHAPE, 3))
    (small / "sub-01" / "dwi" / "sub-01_dwi.bvec").write_text("1 0 0\n0 1 0\n0 0 1\n")
    (small / "dwi.bval").write_text("0 1000 1000\n")
    assert run(small, "--participant", "01").exit_code == 0
    folder = small / "derivatives" / "nlmeans" / "sub-01" / "dwi"
    assert (folder / "sub-01_desc-denoised_dwi.bvec").read_text().startswith("1 0 0")
    assert (folder / "sub-01_desc-denoised_dwi.bval").read_text() == "0 1000 1000\n"
    assert values(folder / "sub-01_desc-denoised_dwi.nii.gz").shape == (*SHAPE, 3)
    assert len(bids.read_json(folder / "sub-01_desc-denoised_dwi.json")["quality"]["snr"]) == 3


@pytest.fixture
def many(small: Path) -> Path:
    for name in (
        "ses-a/anat/sub-01_ses-a_T2w",
        "ses-a/anat/sub-01_ses-a_UNIT1",
        "ses-a/anat/sub-01_ses-a_T1map",
        "ses-a/anat/sub-01_ses-a_part-phase_T2starw",
        "ses-a/anat/sub-01_ses-a_part-real_T2starw",
        "ses-a/func/sub-01_ses-a_task-rest_bold",
        "ses-a/pet/sub-01_ses-a_pet",
    ):
        image(small / "sub-01" / f"{name}.nii.gz")
    return small


def planned(*words: object) -> dict[str, str]:
    result = run(*words, "--dry-run")
    assert result.exit_code == 0, result.stderr
    lines = [line.split(" -> ") for line in result.stdout.splitlines()]
    return {bids.stem(Path(source)): rest.rsplit(", ", 1)[1] for source, rest in lines}


def test_usual_images_are_chosen_with_what_made_them(many: Path) -> None:
    before = contents(many)
    assert planned(many) == {
        "sub-01_T1w": "MR",
        "sub-02_T1w": "MR",
        "sub-01_ses-a_T2w": "MR",
        "sub-01_ses-a_part-real_T2starw": "any modality",
    }
    assert contents(many) == before


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ("--suffix bold --suffix pet", {"sub-01_ses-a_task-rest_bold": "MR", "sub-01_ses-a_pet": "PT"}),
        ("--suffix UNIT1 --modality MR", {"sub-01_ses-a_UNIT1": "MR"}),
        ("--participant sub-02", {"sub-02_T1w": "MR"}),
        ("--session a --suffix T2w", {"sub-01_ses-a_T2w": "MR"}),
    ],
)
def test_images_are_chosen_by_suffix_participant_and_session(words: str, chosen: dict[str, str], many: Path) -> None:
    assert planned(many, *words.split()) == chosen


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--suffix T9w", "has no image with suffix T9w; it has T1w, "),
        ("--participant 99", "has no image with sub 99; it has 01, 02"),
        ("--sigma -3", "sigma=-3.0 must not be negative"),
        ("--gain 2", "they need noise='poisson'"),
    ],
)
def test_what_is_wrong_for_all_is_said_before_any_work(words: str, message: str, small: Path) -> None:
    image(small / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz")
    before = contents(small)
    result = run(small, *words.split())
    assert result.exit_code == 1
    assert message in result.stderr
    assert contents(small) == before


# ---------------------------------------------------------------- a second run


def times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.rglob("*.nii.gz")}


def test_a_second_run_skips_what_is_finished(finished: Path) -> None:
    before = times(finished / "derivatives")
    result = run(finished, "--workers", 1, "--memory", "500MB")
    assert "2 finished before" in result.stdout
    assert times(finished / "derivatives") == before
    assert "2 finished before" in (finished / "derivatives/nlmeans/report.html").read_text()


@pytest.mark.parametrize("change", ["settings", "scan", "result", "picture", "record"])
def test_a_second_run_does_again_what_changed(change: str, finished: Path) -> None:
    out = finished / "derivatives" / "nlmeans"
    options: tuple[object, ...] = ()
    if change == "settings":
        options = ("--sigma", 7)
    elif change == "scan":
        image(finished / "sub-01" / "anat" / "sub-01_T1w.nii.gz", seed=99)
    elif change == "record":
        (out / "sub-01" / "anat" / "sub-01_desc-denoised_T1w.json").write_text("{")
    else:
        name = "figures/*01*.png" if change == "picture" else "sub-01/anat/*.nii.gz"
        next(out.glob(name)).unlink()
    result = run(finished, *options)
    assert result.exit_code == 0
    assert ("2 denoised" if change == "settings" else "1 denoised, 1 finished before") in result.stdout


def test_a_scan_that_fails_now_says_that_an_old_result_is_there(finished: Path) -> None:
    source = finished / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    source.write_bytes(source.read_bytes()[:900])
    assert "the result of an earlier run is still there" in run(finished).stderr


def test_directions_that_changed_are_taken_anew(small: Path) -> None:
    image(small / "sub-01" / "dwi" / "sub-01_dwi.nii.gz", (*SHAPE, 3))
    (small / "dwi.bval").write_text("0 1000 1000\n")
    run(small, "--suffix", "dwi")
    (small / "dwi.bval").write_text("0 1000 2000\n")
    assert "1 denoised" in run(small, "--suffix", "dwi").stdout
    copy = small / "derivatives/nlmeans/sub-01/dwi/sub-01_desc-denoised_dwi.bval"
    assert copy.read_text() == "0 1000 2000\n"


def test_a_damaged_sidecar_fails_its_own_scan_alone(small: Path) -> None:
    (small / "sub-01" / "anat" / "sub-01_T1w.json").write_text("{")
    result = run(small)
    assert "1 denoised, 1 failed" in result.stdout
    assert "sub-01_T1w.json cannot be read" in result.stderr


# ---------------------------------------------------------------- files, patterns, folders


def test_files_patterns_and_folders_keep_their_folders(tmp_path: Path) -> None:
    for name in ("a/one.nii", "a/deep/two.nii.gz", "b/three.nii.gz"):
        image(tmp_path / "in" / name)
    out = tmp_path / "in" / "out"
    words = (tmp_path / "in" / "a", tmp_path / "in" / "*" / "three*", tmp_path / "in" / "a" / "one.nii")
    for ending in ("3 denoised", "3 finished before"):
        result = run(*words, "--out", out)
        assert result.exit_code == 0, result.stderr
        assert ending in result.stdout
    found = {file.relative_to(out).as_posix() for file in out.rglob("*.nii.gz")}
    assert found == {"a/one_denoised.nii.gz", "a/deep/two_denoised.nii.gz", "b/three_denoised.nii.gz"}
    assert not (out / bids.DESCRIPTION).exists()
    assert "3 scans" in run(tmp_path / "in", "--out", out).stdout


def test_folders_of_dicom_are_scans(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    from tests.nlmeans.series import write_series

    for name in ("p1", "p2"):
        write_series(tmp_path / "in" / name, noisy(*SHAPE).clip(0).astype("i2"))
    result = run(tmp_path / "in" / "p*", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert {file.name for file in (tmp_path / "out").glob("*.nii.gz")} == {"p1_denoised.nii.gz", "p2_denoised.nii.gz"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("in/one.nii", "--out is missing"),
        ("in/none*.nii --out out", "no such file, folder or match"),
        ("in/one.nii --out out --suffix T1w", "select images of a BIDS dataset, which"),
        ("in/one.nii in/one.nii.gz --out out", "would both become"),
        ("study in/one.nii --out out", "is a BIDS dataset; give it alone"),
        ("in/one.nii --out study", "is a dataset that nlmeans did not make"),
    ],
)
def test_a_mistake_gives_one_line_and_leaves_nothing(
    words: str, message: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    image(Path("in/one.nii"))
    image(Path("in/one.nii.gz"))
    before = contents(Path())
    result = run(*words.split())
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert message in line
    assert contents(Path()) == before


# ---------------------------------------------------------------- nothing outside the output folder


@pytest.mark.parametrize("link", ["sub-01", "sub-01/anat", "figures", "sub-01/anat/sub-01_desc-denoised_T1w.nii.gz"])
def test_a_link_that_leads_out_of_the_output_folder_is_refused(link: str, small: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = small / "derivatives" / "nlmeans" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere / "file" if link.endswith("gz") else elsewhere)
    result = run(small)
    assert result.exit_code == 1
    assert "leads out of" in result.stderr
    assert not list(elsewhere.iterdir())


def test_a_noise_model_is_refused_because_scans_differ(small: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"noise=gaussian noise, sigma 3 is the model of one scan; give the kind"):
        batch.cohort([str(small)], tmp_path / "out", noise=NoiseModel(sigma=3))


def test_sources_that_lie_above_each_other_stay_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "up" / "one.nii.gz")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    image(tmp_path / "here" / "two.nii.gz")
    assert run("../up/../up/one.nii.gz", "two.nii.gz", "--out", "out").exit_code == 0
    found = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*_denoised.nii.gz")}
    assert found == {"here/out/up/one_denoised.nii.gz", "here/out/here/two_denoised.nii.gz"}
    assert {file.name for file in (tmp_path / "up").iterdir()} == {"one.nii.gz"}


def test_images_that_are_links_are_read_as_in_datalad(small: Path, tmp_path: Path) -> None:
    source = small / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    source.rename(tmp_path / "annexed")
    (tmp_path / "annexed").rename(tmp_path / "annexed.nii.gz")
    source.symlink_to(tmp_path / "annexed.nii.gz")
    assert run(small).exit_code == 0
    assert (small / "derivatives/nlmeans/sub-01/anat/sub-01_desc-denoised_T1w.nii.gz").is_file()


# ---------------------------------------------------------------- workers


def test_a_worker_that_dies_is_replaced_and_its_scan_named(tmp_path: Path) -> None:
    jobs = []
    for name in ("a", "deadly", "b", "c"):
        source = image(tmp_path / f"{name}.nii.gz")
        options = {"noise": "gaussian", "method": "classic", "search_radius": 1.0}
        kind = {"deadly": Deadly, "c": batch.Job}.get(name, Quick)
        jobs.append(kind(name, source, tmp_path / "out" / f"{name}.nii.gz", tmp_path / "out" / f"{name}.png", options))
    told: list[float] = []
    outcomes = batch.run_jobs(jobs, 2, 1, told.append)
    assert [outcome.state for outcome in outcomes] == ["denoised", "failed", "denoised", "denoised"]
    assert "the process died" in outcomes[1].reason
    assert told == [0.25, 0.5, 0.75, 1]
    assert jobs[-1].target.is_file()


class Quick(batch.Job):
    """A scan that nothing is done with."""

    def run(self) -> str:
        return ""


class Deadly(batch.Job):
    """A scan that kills its process, as the system does when memory runs out."""

    def run(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


@pytest.mark.usefixtures("by_workers")
def test_workers_give_the_same_results_as_one_process(dataset: Path) -> None:
    assert contents(dataset.parent / "1") == contents(dataset.parent / "2") != {}


def test_a_folder_stands_for_files_of_all_formats_and_results_keep_theirs(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    image = nlmeans.load_image(samples.path("slice"))
    (tmp_path / "in").mkdir()
    for name in ("a.nrrd", "b.mhd", "c.mgz", "d.nii"):
        nlmeans.save_image(image, tmp_path / "in" / name)
    jobs, _, _ = batch.cohort([str(tmp_path / "in")], tmp_path / "out")
    assert [job.target.name for job in jobs] == [
        "a_denoised.nrrd",
        "b_denoised.mhd",
        "c_denoised.mgz",
        "d_denoised.nii.gz",
    ]
    assert [job.record.name for job in jobs][1] == "b_denoised.json"


def test_a_change_of_either_file_of_a_pair_is_noticed(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    nlmeans.save_image(nlmeans.load_image(samples.path("slice")), tmp_path / "a.mhd")
    options = {"sigma": 60.0, "method": "classic", "device": "cpu"}
    (job,), _, _ = batch.cohort([str(tmp_path / "a.mhd")], tmp_path / "out", **options)
    assert not job.finished()
    job.run()
    assert job.finished()
    for path in (tmp_path / "a.raw", tmp_path / "out" / "a_denoised.raw"):
        before = path.read_bytes()
        path.write_bytes(bytes(9) + before[9:])
        assert not job.finished()
        path.write_bytes(before)
    assert job.finished()


# ---------------------------------------------------------------- maps


def test_maps_lie_beside_the_derivatives_of_a_dataset_under_names_of_their_own(finished: Path) -> None:
    assert run(finished, "--maps").exit_code == 0  # again, as the maps are not there
    anat = finished / "derivatives" / "nlmeans" / "sub-01" / "anat"
    source, result, removed, noise = (
        values(path)
        for path in (
            finished / "sub-01" / "anat" / "sub-01_T1w.nii.gz",
            *(anat / f"sub-01_desc-{label}_T1w.nii.gz" for label in ("denoised", "residual", "noisemap")),
        )
    )
    np.testing.assert_allclose(removed, source.astype(float) - result, atol=1e-3)
    record = bids.read_json(anat / "sub-01_desc-denoised_T1w.json")
    np.testing.assert_allclose(noise, record["noise"]["sigma"], rtol=1e-5)
    about = bids.read_json(anat / "sub-01_desc-residual_T1w.json")
    assert about["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
    assert about["Description"].startswith("What denoising removed")
    assert "2 finished before" in run(finished, "--maps").stdout
    (anat / "sub-01_desc-noisemap_T1w.nii.gz").unlink()
    assert "1 denoised" in run(finished, "--maps").stdout


def test_maps_of_files_have_the_format_of_their_scan(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    (tmp_path / "in").mkdir()
    nlmeans.save_image(scan(noisy(*SHAPE), "f4", RAS), tmp_path / "in" / "a.nrrd")
    assert run(tmp_path / "in", "--out", tmp_path / "out", "--maps").exit_code == 0
    found = {path.name for path in (tmp_path / "out").glob("*.nrrd")}
    assert found == {"a_denoised.nrrd", "a_noisemap.nrrd", "a_residual.nrrd"}
