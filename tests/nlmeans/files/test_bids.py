"""BIDS: names are taken apart and made, sidecars are inherited, and a wrong choice is refused with what there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nlmeans.files import bids
from nlmeans.files.bids import BidsImage


def image(name: str, root: Path = Path("study")) -> BidsImage:
    return BidsImage(root, root / name)


# ---------------------------------------------------------------- names


def test_a_name_is_taken_apart() -> None:
    found = image("sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz")
    assert found.entities == {"sub": "01", "ses": "a", "task": "rest"}
    assert found.suffix == "bold"


@pytest.mark.parametrize(
    ("name", "derivative"),
    [
        ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_desc-denoised_T1w.nii.gz"),
        ("sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_desc-denoised_T1w.nii.gz"),
        ("sub-01/anat/sub-01_desc-raw_T1w.nii.gz", "sub-01/anat/sub-01_desc-denoised_T1w.nii.gz"),
    ],
)
def test_a_derivative_has_one_description_before_the_suffix(name: str, derivative: str) -> None:
    assert image(name).derivative == Path(derivative)


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("sub-01_T1w", "MR"),
        ("sub-01_bold", "MR"),
        ("sub-01_part-mag_T2starw", "MR"),
        ("sub-01_part-real_T2starw", None),
        ("sub-01_UNIT1", None),
        ("sub-01_pet", "PT"),
        ("sub-01_ct", "CT"),
    ],
)
def test_the_suffix_says_what_made_an_image(name: str, modality: str | None) -> None:
    assert image(f"sub-01/anat/{name}.nii.gz").modality == modality


# ---------------------------------------------------------------- inheritance


def write(path: Path, **facts: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts))
    return path


def test_nearer_sidecars_override_those_farther_up(tmp_path: Path) -> None:
    write(tmp_path / "T1w.json", EchoTime=1, FlipAngle=9, Manufacturer="far")
    write(tmp_path / "sub-01" / "sub-01_T1w.json", EchoTime=2, FlipAngle=8)
    write(tmp_path / "sub-01" / "anat" / "sub-01_run-1_T1w.json", EchoTime=3)
    found = image("sub-01/anat/sub-01_run-1_T1w.nii.gz", tmp_path)
    assert found.metadata == {"EchoTime": 3, "FlipAngle": 8, "Manufacturer": "far"}


def test_sidecars_of_other_images_do_not_apply(tmp_path: Path) -> None:
    for name in ("T2w", "sub-02_T1w", "sub-01_run-2_T1w"):
        write(tmp_path / "sub-01" / "anat" / f"{name}.json", EchoTime=1)
    write(tmp_path.parent / "T1w.json", EchoTime=1)  # above the dataset
    assert image("sub-01/anat/sub-01_run-1_T1w.nii.gz", tmp_path).metadata == {}


def test_the_sidecar_of_a_derivative_names_its_source(tmp_path: Path) -> None:
    write(tmp_path / "T1w.json", EchoTime=1)
    about = image("sub-01/anat/sub-01_T1w.nii.gz", tmp_path).about_derivative
    assert about["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
    assert (about["EchoTime"], about["SkullStripped"]) == (1, False)
    assert "SkullStripped" not in image("sub-01/func/sub-01_bold.nii.gz", tmp_path).about_derivative


# ---------------------------------------------------------------- selection


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for name in (
        "sub-01/anat/sub-01_T1w",
        "sub-01/ses-a/anat/sub-01_ses-a_T2w",
        "sub-01/ses-a/func/sub-01_ses-a_bold",
        "sub-01/anat/sub-01_part-phase_T2starw",
        "sub-01/anat/sub-01_T1map",
        "sub-02/anat/sub-02_T1w",
    ):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def chosen(*arguments: object) -> list[str]:
    return [found.stem for found in bids.selected_images(*arguments)]  # type: ignore[arg-type]


def test_phase_images_and_maps_are_never_found(dataset: Path) -> None:
    found = [image.stem for image in bids.dataset_images(dataset)]
    assert found == ["sub-01_T1w", "sub-01_ses-a_T2w", "sub-01_ses-a_bold", "sub-02_T1w"]


def test_suffix_participant_and_session_narrow_the_choice(dataset: Path) -> None:
    assert chosen(dataset) == ["sub-01_T1w", "sub-01_ses-a_T2w", "sub-02_T1w"]
    assert chosen(dataset, ("bold",)) == ["sub-01_ses-a_bold"]
    assert chosen(dataset, (), ("sub-02",)) == chosen(dataset, (), ("02",)) == ["sub-02_T1w"]
    assert chosen(dataset, (), (), ("a",)) == ["sub-01_ses-a_T2w"]


def test_a_choice_that_matches_nothing_is_refused_with_what_there_is(dataset: Path) -> None:
    with pytest.raises(ValueError, match="no image with suffix pet; it has T1w, T2w, bold"):
        chosen(dataset, ("pet",))
    with pytest.raises(ValueError, match="no image with sub 03; it has 01, 02"):
        chosen(dataset, (), ("03",))
    with pytest.raises(ValueError, match="no such image with suffix bold; it has T1w, T2w, bold: choose one with"):
        chosen(dataset, ("bold",), ("02",))


# ---------------------------------------------------------------- documents


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read as JSON"), ("[1]", "must be a JSON object")])
def test_a_document_that_is_no_object_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sub-01_T1w.json").write_text(content)
    with pytest.raises((ValueError, TypeError), match=rf"sub-01_T1w\.json .*{message}"):
        bids.read_json(tmp_path / "sub-01_T1w.json")


def test_derivatives_describe_where_they_come_from(tmp_path: Path) -> None:
    write(tmp_path / bids.DESCRIPTION, Name="Toy", Authors=["A"], Funding=["B"])
    found = bids.derivative_description(tmp_path, tmp_path / "derivatives" / "nlmeans")
    assert (found["Name"], found["DatasetType"], found["Authors"]) == ("Toy, denoised", "derivative", ["A"])
    assert found["DatasetLinks"] == {"raw": "../.."}
    assert "Funding" not in found
