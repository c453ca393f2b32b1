"""The MONAI bundle: its metadata follow MONAI's rules, and its configurations run as they are."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import shlex
import sys
import tomllib
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, run, verify_metadata
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImaged,
    ScaleIntensityd,
    SpatialPadd,
)
from packaging.requirements import Requirement
from packaging.version import Version

import nlmeans
from monai_transforms import NonLocalMeansd

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "bundle"
CONFIGS = BUNDLE / "configs"
INFERENCE = str(CONFIGS / "inference.json")
AFFINE = np.array([[0, -1.5, 0, 10], [2.0, 0, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])
"""Turned, with voxels of 2 × 1.5 × 3 mm."""

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI says it of every file

TEXT = {"type": "string", "minLength": 1}
TENSOR = {
    "type": "object",
    "required": [
        *("type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def")
    ],
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": TEXT,
        "modality": TEXT,
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}, "minItems": 1, "maxItems": 3},
        "dtype": TEXT,
        "value_range": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "patternProperties": {"^[0-9]+$": TEXT}, "additionalProperties": False},
    },
}
TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": TENSOR}
SCHEMA = {
    "type": "object",
    "required": [
        *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
        *("task", "description", "authors", "copyright", "network_data_format"),
    ],
    "properties": {
        "schema": {"type": "string", "pattern": "^https://.*json$"},
        **dict.fromkeys(("version", "monai_version", "pytorch_version", "numpy_version"), TEXT),
        **dict.fromkeys(("task", "description", "authors", "copyright"), TEXT),
        "changelog": {"type": "object", "additionalProperties": TEXT},
        "required_packages_version": {"type": "object", "additionalProperties": TEXT},
        "references": {"type": "array", "items": TEXT},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {"inputs": TENSORS, "outputs": TENSORS},
        },
    },
}
"""The rules of MONAI's bundle specification for metadata.json, with the present name of the packages' versions.

MONAI's own schema would have to be downloaded.
"""


@pytest.fixture
def metadata() -> Any:
    return json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two noisy scans, and a file that is not one."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed, name in enumerate(("one.nii.gz", "two.nii")):
        noise = np.random.default_rng(seed).standard_normal((16, 14, 12))
        signal = np.where(np.arange(16)[:, None, None] < 8, 100, 300)
        nibabel.Nifti1Image((signal + 8 * noise).astype(np.int16), AFFINE).to_filename(folder / name)
    (folder / "notes.txt").write_text("not a scan")
    return folder


def test_metadata_follow_the_specification(metadata: Any, tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")  # comes with napari
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    stored = {"filepath": schema, "hash_val": hashlib.md5(schema.read_bytes()).hexdigest()}  # nothing is downloaded
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), **stored)
    broken = tmp_path / "metadata.json"
    del metadata["network_data_format"]["outputs"]["pred"]["dtype"]
    broken.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(broken), **stored)


def test_metadata_name_the_versions_that_the_package_was_tested_with(metadata: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["monai"], *(text for text in extras["test"] if "triton" not in text)]
    lowest = {found.name: next(iter(found.specifier)).version for found in map(Requirement, texts) if found.specifier}
    stated = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **{name: metadata["required_packages_version"][name] for name in ("nibabel", "fire")},
    }
    assert {name: Version(text) for name, text in stated.items()} == {name: Version(lowest[name]) for name in stated}
    assert metadata["version"] == metadata["required_packages_version"]["nlmeans"] == project["version"]
    assert metadata["version"] in metadata["changelog"]


def test_the_licence_is_that_of_the_package() -> None:
    assert (BUNDLE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_a_folder_is_denoised_as_by_the_engine(folder: Path, tmp_path: Path) -> None:
    run(config_file=INFERENCE, dataset_dir=str(folder), output_dir=str(tmp_path / "out"), sigma=8.0, method="classic")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["one_denoised.nii.gz", "two_denoised.nii.gz"]
    for source, name in zip(("one.nii.gz", "two.nii"), written, strict=True):
        scan, result = nibabel.load(folder / source), nibabel.load(tmp_path / "out" / name)
        np.testing.assert_allclose(result.affine, AFFINE, atol=1e-5)
        wanted = nlmeans.denoise(scan.get_fdata(dtype=np.float32), 8.0, method="classic", spacing=(2, 1.5, 3))
        np.testing.assert_allclose(result.get_fdata(), wanted, rtol=1e-5)
        assert not np.allclose(result.get_fdata(), scan.get_fdata(), atol=1)


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What calls MONAI's command line in the folder of the bundle, as its page says."""

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *map(str, arguments)])
        monkeypatch.chdir(BUNDLE)
        runpy.run_module("monai.bundle", run_name="__main__")

    return call


needs_fire = pytest.mark.skipif(find_spec("fire") is None, reason="MONAI's command line needs fire")


def of_page(*changes: object) -> list[object]:
    """The arguments that the page gives, and others."""
    page = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    (call,) = re.findall(r"python -m monai.bundle run (.*?--output_dir \S+)", page, re.DOTALL)
    words = shlex.split(call.replace("\\\n", " "))
    return [*words[: words.index("--dataset_dir")], *changes]


@needs_fire
def test_the_command_of_the_page_denoises_a_folder(
    folder: Path, tmp_path: Path, command_line: Callable[..., None]
) -> None:
    command_line(
        *of_page("--dataset_dir", folder, "--output_dir", tmp_path / "out"),
        *("--pattern", "one*", "--method", "classic", "--sigma", 8.0, "--denoise#search_radius", 1),
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one_denoised.nii.gz"]
    scan, result = (nibabel.load(path) for path in (folder / "one.nii.gz", tmp_path / "out" / "one_denoised.nii.gz"))
    options = {"method": "classic", "search_radius": 1, "spacing": (2, 1.5, 3)}
    np.testing.assert_allclose(
        result.get_fdata(), nlmeans.denoise(scan.get_fdata(dtype=np.float32), 8.0, **options), rtol=1e-5
    )


@needs_fire
def test_an_error_of_the_command_ends_with_its_reason(tmp_path: Path, command_line: Callable[..., None]) -> None:
    with pytest.raises(RuntimeError) as raised:
        command_line(*of_page("--dataset_dir", tmp_path, "--output_dir", tmp_path / "out"))
    assert "no such file" in "".join(traceback.format_exception(raised.value))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as raised:
        run(config_file=INFERENCE, dataset_dir=str(tmp_path), output_dir=str(tmp_path / "out"))
    assert f"{tmp_path}/*.nii*: no such file" in str(raised.value.__cause__)
    assert not (tmp_path / "out").exists()


def test_another_bundle_denoises_after_its_second_transform(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    steps = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "ScaleIntensityd", "keys": "image"},
    ]
    other.write_text(json.dumps({"preprocessing": {"_target_": "Compose", "transforms": steps}}))
    parser = ConfigParser()
    parser.read_config([str(other), str(CONFIGS / "preprocess.json")])
    parser["denoise#method"] = "classic"
    item = {"image": str(folder / "one.nii.gz")}
    by_hand = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            NonLocalMeansd("image", method="classic", spacing="affine"),
            ScaleIntensityd("image"),
        ]
    )
    found, wanted = parser.get_parsed_content("preprocessing")(item)["image"], by_hand(item)["image"]
    assert torch.equal(found.as_tensor(), wanted.as_tensor())


def test_a_result_is_inverted_and_saved_on_the_grid_of_the_file(folder: Path, tmp_path: Path) -> None:
    """Transforms after the denoising are inverted; the denoising, which has no inverse, is not in the way."""
    start = [LoadImaged("image"), EnsureChannelFirstd("image"), NonLocalMeansd("image", method="classic")]
    before = Compose([*start, Orientationd("image", axcodes="LPS", labels=None), SpatialPadd("image", (24, 24, 24))])
    item = {"image": str(folder / "one.nii.gz")}
    data = before(item)
    assert data["image"].shape == (1, 24, 24, 24)
    data["pred"] = data["image"].clone()
    invert = Invertd("pred", transform=before, orig_keys="image", nearest_interp=False)
    save = SaveImaged("pred", output_dir=tmp_path, output_postfix="", separate_folder=False, print_log=False)
    save(invert(data))
    result = nibabel.load(tmp_path / "one.nii.gz")
    np.testing.assert_allclose(result.affine, AFFINE, atol=1e-5)
    np.testing.assert_array_equal(result.get_fdata(dtype=np.float32), Compose(start)(item)["image"][0].numpy())
