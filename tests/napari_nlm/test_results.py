"""Result layers: where they lie, how they look, and what they record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image

import nlmeans
from napari_nlm.marks import PROVENANCE_KEY
from napari_nlm.pictures import REMOVED
from napari_nlm.results import is_result, proposed_file
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import SIGMA, series, volume


def test_the_result_lies_and_looks_as_its_source(bench: Bench) -> None:
    place = {
        "scale": (3.0, 1.0, 1.5),
        "translate": (1.0, 2.0, 3.0),
        "rotate": 20,
        "affine": np.diag([1, 2, 1, 1.0]),
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("slice", "row", "column"),
        "contrast_limits": (20, 180),
        "colormap": "magma",
        "metadata": {"patient": "phantom"},
    }
    source = bench.add(volume(), **place)
    result = bench.run()
    ours, theirs = (layer.as_layer_data_tuple()[1] for layer in (result, source))
    for name in ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels", "contrast_limits"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert result.colormap.name == "magma"
    assert result.metadata["patient"] == "phantom"
    assert result.metadata[PROVENANCE_KEY]["settings"]["method"] == "classic"
    assert result.metadata[PROVENANCE_KEY]["sigma"] == [pytest.approx(SIGMA, rel=0.3)]
    assert PROVENANCE_KEY not in source.metadata


def test_a_second_run_updates_its_own_layer(bench: Bench) -> None:
    bench.add(volume())
    first = bench.run()
    before = first.data
    bench.session.next_run.set(h=2.0)
    second = bench.run()
    assert second is first
    assert not np.array_equal(first.data, before)
    assert len([layer for layer in bench.viewer.layers if "denoised" in layer.name and layer.visible]) == 1


def test_a_result_that_was_deleted_is_made_anew(bench: Bench) -> None:
    bench.add(volume())
    bench.viewer.layers.remove(bench.run())
    assert bench.run() in bench.viewer.layers


def test_the_current_volume_alone_lies_where_it_belongs(bench: Bench) -> None:
    bench.add(series(), scale=(2, 3, 1, 1))
    bench.viewer.dims.set_current_step(0, 2)
    result = bench.run(all_volumes=False)
    assert result.data.shape == (1, 10, 16, 18)
    assert result.translate[0] == 4
    np.testing.assert_allclose(result.data[0], nlmeans.denoise(series()[2], method="classic", spacing=(3, 1, 1)))


def test_the_removed_noise_as_a_layer(bench: Bench) -> None:
    source = bench.add(volume())
    bench.session.next_run.set_maps([REMOVED])
    result = bench.run()
    removed = next(layer for layer in bench.viewer.layers if layer.name.endswith("removed noise"))
    np.testing.assert_allclose(removed.data, source.data - result.data, atol=1e-4)
    assert removed.contrast_limits[0] == -removed.contrast_limits[1]
    assert not removed.visible


def test_a_box_is_cut_from_a_result_that_holds_it(bench: Bench) -> None:
    bench.add(series())
    bench.viewer.dims.set_current_step(0, 1)
    result = bench.run(all_volumes=False)
    kept = next(iter(bench.session.results.results.values()))
    assert kept.start == (1, 0, 0, 0)
    part = kept.cut((slice(1, 2), slice(2, 4), slice(0, 3), slice(0, 3)))
    np.testing.assert_array_equal(part, result.data[:, 2:4, :3, :3])
    assert kept.cut((slice(0, 2), slice(2, 4), slice(0, 3), slice(0, 3))) is None


def test_results_are_known_and_forgotten(bench: Bench) -> None:
    source = bench.add(volume())
    results = bench.session.results
    assert results.layer_for(source) is None
    layer = bench.run()
    assert results.layer_for(source) is layer
    assert is_result(layer)
    assert not is_result(source)
    bench.viewer.layers.remove(source)
    bench.settle()
    assert results.layer_for(source) is None


def test_the_file_that_is_proposed_lies_next_to_the_source() -> None:
    layer = Image(volume(), name="my scan")
    assert proposed_file(layer) == Path.home() / "my_scan.nii.gz"
    layer.metadata[PROVENANCE_KEY] = {"path": str(Path("data") / "scan.nii.gz")}
    assert proposed_file(layer) == Path("data") / "scan_denoised.nii.gz"
    layer.metadata[PROVENANCE_KEY]["map"] = "noise map"
    assert proposed_file(layer) == Path("data") / "scan_noise_map.nii.gz"


def test_the_record_of_all_volumes_has_the_sigma_of_each(bench: Bench) -> None:
    bench.add(series())
    record = bench.run(all_volumes=True).metadata[PROVENANCE_KEY]
    assert record["sigma"] == [pytest.approx(nlmeans.estimate_sigma(one)) for one in series()]
    assert record["volume"] is None
    assert record["settings"]["h"] > 0
