"""What is saved lies on the original: same grid, header, affine, qform and sform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from napari.layers import Image

import nlmeans
from napari_nlm import sample_data
from napari_nlm.maps import MAP_NAMES, NOISE_MAP
from napari_nlm.marks import PROVENANCE_KEY
from napari_nlm.nifti import find_turn, write_layer
from napari_nlm.pictures import REMOVED
from nlmeans.files import samples
from nlmeans.files.formats import nifti
from tests.napari_nlm.conftest import Bench
from tests.nlmeans.scans import LPS, NIFTI, OBLIQUE, RAS, SAGITTAL, header_on_disk, noisy, save, scan, values

PIR = np.array([[0.0, 0, 4, -9], [-2, 0, 0, 11], [0, -3, 0, 13], [0, 0, 0, 1]])
AFFINES = {"RAS": RAS, "LPS": LPS, "sagittal": SAGITTAL, "PIR": PIR, "oblique": OBLIQUE}
SHAPE = (12, 14, 16)

LayerData = tuple[Any, dict[str, Any]]


def raw(path: Path) -> LayerData:
    """A layer as a plain reader makes it: the array of the file."""
    return values(path), {}


def turned(path: Path) -> LayerData:
    """A layer as other readers make it: the last axis first."""
    return values(path).T, {"scale": (2.0,) * values(path).ndim}


def common(path: Path) -> LayerData:
    """napari-nifti: to superior, anterior and right, time behind, the header in the metadata."""
    reader = pytest.importorskip("napari_nifti._reader")
    ((data, looks, _),) = reader.napari_get_reader(str(path))(str(path))
    return data, looks


READERS = {"raw": raw, "turned": turned, "common": common}


def opened(bench: Bench, path: Path, reader: str) -> Any:
    """A layer as napari makes it of a file."""
    data, looks = READERS[reader](path)
    layer = Image.create(data, looks, "image")
    from napari.layers._source import layer_source

    with layer_source(path=str(path), reader_plugin=reader):
        layer = Image.create(data, {**looks, "name": path.name.split(".")[0]}, "image")
    bench.viewer.add_layer(layer)
    bench.settle()
    return layer


def saved(layer: Any, path: Path) -> Path:
    data, meta, _ = layer.as_layer_data_tuple()
    return Path(write_layer(str(path), data, meta)[0])


def assert_like(path: Path, original: Path) -> None:
    ours, theirs = header_on_disk(path), header_on_disk(original)
    assert ours == theirs
    np.testing.assert_array_equal(NIFTI.load(path).affine, NIFTI.load(original).affine)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("affine", AFFINES)
def test_a_volume_comes_back_on_its_grid(bench: Bench, tmp_path: Path, affine: str, reader: str) -> None:
    original = save(scan(noisy(*SHAPE), "int16", AFFINES[affine]), tmp_path / "scan.nii.gz")
    opened(bench, original, reader)
    bench.session.next_run.set(voxel_size=False)
    target = saved(bench.run(), tmp_path / "denoised.nii.gz")
    assert_like(target, original)
    np.testing.assert_allclose(values(target), nlmeans.denoise(values(original), method="classic"), atol=1)


@pytest.mark.parametrize("reader", READERS)
def test_a_volume_with_nan_outside_comes_back_on_its_grid(bench: Bench, tmp_path: Path, reader: str) -> None:
    data = noisy(*SHAPE).astype("f4")
    data[:, :3] = np.nan
    original = save(scan(data, affine=SAGITTAL), tmp_path / "scan.nii.gz")
    opened(bench, original, reader)
    target = saved(bench.run(), tmp_path / "denoised.nii.gz")
    assert_like(target, original)
    np.testing.assert_array_equal(np.isnan(values(target)), np.isnan(data))


@pytest.mark.parametrize("reader", READERS)
def test_a_series_comes_back_on_its_grid(bench: Bench, tmp_path: Path, reader: str) -> None:
    original = save(scan(noisy(*SHAPE, 3), "int16", SAGITTAL), tmp_path / "scan.nii.gz")
    layer = opened(bench, original, reader)
    if reader == "raw":
        from napari_nlm.layer_source import AxisRoles

        bench.session.chosen.choose(layer, AxisRoles((0, 1, 2), None, (3,)))
    result = bench.run(all_volumes=True)
    assert_like(saved(result, tmp_path / "denoised.nii.gz"), original)


@pytest.mark.parametrize("reader", READERS)
def test_maps_of_a_series_lie_on_its_grid(bench: Bench, tmp_path: Path, reader: str) -> None:
    clean, noise = noisy(*SHAPE).astype(float), np.random.default_rng(0).standard_normal((*SHAPE, 8))
    decay = clean[..., None] * np.exp(-np.arange(8) / 4)
    original = save(scan((decay + 5 * noise).astype(np.int16), "int16", OBLIQUE), tmp_path / "dwi.nii.gz")
    layer = opened(bench, original, reader)
    if reader == "raw":
        from napari_nlm.layer_source import AxisRoles

        bench.session.chosen.choose(layer, AxisRoles((0, 1, 2), None, (3,)))
    bench.session.next_run.set(method="series", sigma=5.0, voxel_size=False)
    bench.session.next_run.set_maps(MAP_NAMES)
    denoised = values(saved(bench.run(), tmp_path / "denoised.nii.gz"))
    for name in MAP_NAMES:
        layer = next(one for one in bench.viewer.layers if one.name.endswith(name))
        target = saved(layer, tmp_path / f"{name.replace(' ', '_')}.nii.gz")
        np.testing.assert_array_equal(NIFTI.load(target).affine, NIFTI.load(original).affine)
        assert NIFTI.load(target).get_data_dtype() == np.float32
        found = values(target)
        if name == REMOVED:
            np.testing.assert_allclose(found, values(original) - denoised, atol=1e-4)
        else:
            assert found.shape == SHAPE
            wanted = nlmeans.denoise_with_maps(values(original), 5.0, method="series", series=3)
            field = wanted.noise_map if name == NOISE_MAP else wanted.rank_map
            assert abs(float(found.mean()) - float(np.mean(field))) < 0.1  # patches begin at another side


def test_a_map_of_one_volume_of_a_series_keeps_its_place(bench: Bench, tmp_path: Path) -> None:
    original = save(scan(noisy(*SHAPE, 3), "int16", OBLIQUE), tmp_path / "scan.nii.gz")
    opened(bench, original, "turned")
    bench.viewer.dims.set_current_step(0, 2)
    bench.session.next_run.set_maps([REMOVED])
    denoised = values(saved(bench.run(all_volumes=False), tmp_path / "denoised.nii.gz"))
    layer = next(one for one in bench.viewer.layers if one.name.endswith("removed noise [2]"))
    removed = values(saved(layer, tmp_path / "removed.nii.gz"))
    np.testing.assert_allclose(removed, values(original)[..., 2] - denoised, atol=1e-4)


def test_one_volume_of_a_series_keeps_the_place_of_the_series(bench: Bench, tmp_path: Path) -> None:
    original = save(scan(noisy(*SHAPE, 3), "int16", OBLIQUE), tmp_path / "scan.nii.gz")
    opened(bench, original, "turned")
    bench.viewer.dims.set_current_step(0, 2)
    result = bench.run(all_volumes=False)
    target = saved(result, tmp_path / "denoised.nii.gz")
    assert NIFTI.load(target).shape == SHAPE
    np.testing.assert_array_equal(NIFTI.load(target).affine, NIFTI.load(original).affine)
    wanted = nlmeans.denoise(values(original)[..., 2], method="classic", spacing=bench.session.chosen.source.spacing)  # type: ignore[union-attr]
    np.testing.assert_allclose(values(target), wanted, atol=1)


def test_scaled_integers_stay_as_they_were_stored(bench: Bench, tmp_path: Path) -> None:
    original = save(scan(noisy(*SHAPE), "int16", OBLIQUE, scaling=(0.5, 3)), tmp_path / "scan.nii.gz")
    opened(bench, original, "turned")
    assert_like(saved(bench.run(), tmp_path / "denoised.nii.gz"), original)


def test_a_slice_comes_back_on_its_grid(bench: Bench, tmp_path: Path) -> None:
    original = save(scan(noisy(24, 28), "int16", RAS), tmp_path / "scan.nii")
    opened(bench, original, "turned")
    assert_like(saved(bench.run(), tmp_path / "denoised.nii"), original)


def test_floating_point_if_it_was_asked_for(bench: Bench, tmp_path: Path) -> None:
    original = save(scan(noisy(*SHAPE), "int16", OBLIQUE), tmp_path / "scan.nii.gz")
    opened(bench, original, "turned")
    bench.session.next_run.set(dtype="float32")
    target = saved(bench.run(), tmp_path / "denoised.nii.gz")
    assert NIFTI.load(target).get_data_dtype() == np.float32
    np.testing.assert_array_equal(NIFTI.load(target).affine, NIFTI.load(original).affine)


@pytest.mark.parametrize("affine", ["RAS", "LPS", "oblique"])
def test_the_header_in_the_metadata_does_where_the_file_is_gone(bench: Bench, tmp_path: Path, affine: str) -> None:
    original = save(scan(noisy(*SHAPE), "int16", AFFINES[affine]), tmp_path / "scan.nii.gz")
    opened(bench, original, "common")
    kept = original.rename(tmp_path / "moved.nii.gz")
    assert_like(saved(bench.run(), tmp_path / "denoised.nii.gz"), kept)


@pytest.mark.parametrize("affine", ["sagittal", "PIR"])
def test_a_header_that_does_not_tell_the_order_of_axes_is_not_guessed_from(
    bench: Bench, tmp_path: Path, affine: str
) -> None:
    original = save(scan(noisy(12, 12, 12), "int16", AFFINES[affine]), tmp_path / "scan.nii.gz")
    opened(bench, original, "common")
    original.rename(tmp_path / "moved.nii.gz")
    with pytest.raises(ValueError, match="put it back"):
        saved(bench.run(), tmp_path / "denoised.nii.gz")


def test_the_record_beside_it_says_how_it_was_made(bench: Bench, tmp_path: Path) -> None:
    original = save(scan(noisy(*SHAPE), "int16", RAS), tmp_path / "scan.nii.gz")
    opened(bench, original, "turned")
    saved(bench.run(), tmp_path / "denoised.nii.gz")
    record = json.loads((tmp_path / "denoised.json").read_text())
    assert record["settings"]["method"] == "classic"
    assert record["path"] == str(original)


def test_the_original_is_never_overwritten(bench: Bench, tmp_path: Path) -> None:
    original = save(scan(noisy(*SHAPE), "int16", RAS), tmp_path / "scan.nii.gz")
    opened(bench, original, "turned")
    result = bench.run()
    before = original.read_bytes()
    with pytest.raises(ValueError, match="never overwritten"):
        saved(result, original)
    assert original.read_bytes() == before


def test_a_file_that_has_changed_since_is_not_taken_for_the_source(bench: Bench, tmp_path: Path) -> None:
    original = save(scan(noisy(*SHAPE), "int16", RAS), tmp_path / "scan.nii.gz")
    opened(bench, original, "turned")
    result = bench.run()
    save(scan(np.random.default_rng(1).uniform(0, 255, SHAPE), "int16", RAS), original)
    with pytest.raises(ValueError, match="open it again"):
        saved(result, tmp_path / "denoised.nii.gz")
    assert not (tmp_path / "denoised.nii.gz").exists()


def test_a_layer_without_a_file_keeps_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("napari_nlm.nifti.show_warning", said.append)
    data = noisy(*SHAPE).astype(np.float32)
    layer = Image(data, scale=(3, 2, 1), translate=(30, 20, 10))
    target = saved(layer, tmp_path / "layer.nii.gz")
    assert "No NIfTI header" in said[0]
    image = NIFTI.load(target)
    np.testing.assert_array_equal(np.asarray(image.dataobj), data.T)
    np.testing.assert_array_equal(image.affine, [[1, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])


def test_colours_are_refused(tmp_path: Path) -> None:
    layer = Image(np.zeros((8, 8, 3), np.uint8), rgb=True)
    with pytest.raises(ValueError, match="TIFF"):
        saved(layer, tmp_path / "layer.nii.gz")


def test_the_sample_is_saved_like_its_file(bench: Bench, tmp_path: Path) -> None:
    ((data, looks, _),) = sample_data.head()
    bench.viewer.add_image(data, **looks)
    bench.settle()
    result = bench.run()
    assert_like(saved(result, tmp_path / "denoised.nii.gz"), Path(result.metadata[PROVENANCE_KEY]["path"]))


def test_every_turn_is_found_from_the_values_alone() -> None:
    grid: npt.NDArray[Any] = nifti.read_nifti(samples.path("thick")).data
    for axes in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        for flips in ((1, 1, 1), (-1, 1, -1), (1, -1, 1)):
            layer = grid.transpose(axes)[tuple(slice(None, None, flip) for flip in flips)]
            np.testing.assert_array_equal(find_turn(layer, grid, layer), grid)
