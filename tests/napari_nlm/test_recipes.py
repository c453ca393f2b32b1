"""Text for other ways to do the same: run it, and compare with what the widget makes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from napari_nlm import sample_data
from napari_nlm.layer_source import AxisRoles
from napari_nlm.maps import COMPONENTS, MAP_NAMES, NOISE_MAP
from napari_nlm.pictures import REMOVED
from napari_nlm.recipes import recipe
from nlmeans import NoiseModel
from nlmeans.cli import main
from nlmeans.files.formats import nifti
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import decay, volume
from tests.nlmeans.scans import RAS, save, scan


def executed(bench: Bench, text: str) -> Any:
    names: dict[str, Any] = {"viewer": bench.viewer}
    exec(compile(text, "recipe", "exec"), names)
    return names["denoised"]


def series() -> Any:
    return np.stack([volume(8, 16, 18, seed=seed) * (1 + seed) for seed in range(2)])


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"h": 1.3, "search_radius": 2},
        {"sigma": 9.0, "noise": "rician"},
        {"noise": "poisson", "gain": 2.0},
        {"noise": "curve", "curve": "0:5,200:25"},
        {"noise": "curve", "h": 1.3},
    ],
    ids=str,
)
def test_python_for_a_volume(bench: Bench, choices: dict[str, Any]) -> None:
    bench.add(volume(), scale=(3, 1, 1), name="scan")
    bench.session.next_run.set(**choices)
    result = bench.run()
    plan = bench.session.next_run.denoising()
    assert plan is not None
    np.testing.assert_allclose(executed(bench, recipe("Python", plan, None)), result.data, atol=1e-3)


@pytest.mark.parametrize("choices", [{}, {"h": 1.3}, {"h": 1.3, "sigma": 9.0}], ids=str)
@pytest.mark.parametrize("every", [True, False])
def test_python_for_a_series(bench: Bench, choices: dict[str, Any], every: bool) -> None:
    bench.add(series(), name="scan")
    bench.session.next_run.set(**choices)
    result = bench.run(all_volumes=every)
    plan = bench.session.next_run.denoising()
    assert plan is not None
    found = executed(bench, recipe("Python", plan, None if every else bench.session.next_run.volume))
    np.testing.assert_allclose(found, result.data if every else result.data[0], atol=1e-3)


def test_python_for_a_series_with_a_volume_without_noise(bench: Bench) -> None:
    data = series()
    data[1] = 50
    bench.add(data, name="scan")
    bench.session.next_run.set(h=1.3)
    result = bench.run(all_volumes=True)
    denoising = bench.session.next_run.denoising()
    assert denoising is not None
    np.testing.assert_allclose(executed(bench, recipe("Python", denoising, None)), result.data, atol=1e-3)


def test_python_for_colours_and_masks(bench: Bench) -> None:
    data = np.stack([volume(32, 40, seed=seed) for seed in range(3)], -1).astype(np.uint8)
    inside = np.zeros((32, 40), int)
    inside[:16] = 1
    bench.viewer.add_labels(inside, name="inside")
    bench.add(data, rgb=True, name="colours")
    bench.session.chosen.set_mask(bench.viewer.layers["inside"])
    result = bench.run()
    plan = bench.session.next_run.denoising()
    assert plan is not None
    np.testing.assert_array_equal(executed(bench, recipe("Python", plan, None)), result.data)


def test_python_with_a_mask_of_its_own_for_every_volume(bench: Bench) -> None:
    inside = (series() > 100).astype(int)
    bench.viewer.add_labels(inside, name="inside")
    layer = bench.add(series(), name="scan")
    bench.session.chosen.choose(layer, AxisRoles((1, 2, 3), None, (0,)))
    bench.session.chosen.set_mask(bench.viewer.layers["inside"])
    bench.session.next_run.set(sigma=9.0)
    result = bench.run(all_volumes=True)
    plan = bench.session.next_run.denoising()
    assert plan is not None
    np.testing.assert_allclose(executed(bench, recipe("Python", plan, None)), result.data, atol=1e-3)


def of_the_head(bench: Bench) -> Any:
    ((data, looks, _),) = sample_data.thick()
    bench.session.next_run.set(noise="rician", search_radius=2, h=1.0)
    bench.viewer.add_image(data, **looks)
    bench.settle()
    result = bench.run()
    plan = bench.session.next_run.denoising()
    assert plan is not None
    return plan, result


def test_the_command_line(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan, result = of_the_head(bench)
    words = shlex.split(recipe("command line", plan, None))
    done = CliRunner().invoke(main, words[1:])
    assert done.exit_code == 0, done.output
    found = nifti.read_nifti("thick_denoised.nii.gz").data
    np.testing.assert_allclose(np.sort(found, None), np.sort(result.data, None), atol=2)


def test_monai(bench: Bench) -> None:
    pytest.importorskip("monai")
    transforms = pytest.importorskip("monai_transforms")
    if not hasattr(transforms, "NonLocalMeansd"):
        pytest.skip("this version of monai_transforms has no NonLocalMeansd")
    plan, result = of_the_head(bench)
    found = np.asarray(executed(bench, recipe("MONAI", plan, None)))
    np.testing.assert_allclose(np.sort(found, None), np.sort(result.data, None), atol=1)
    assert "napari" not in {name.split(".")[0] for name in vars(sys.modules["monai_transforms"])}


@pytest.mark.parametrize("kind", ["MONAI", "command line"])
def test_what_cannot_be_said_is_refused_with_a_way_that_can(bench: Bench, kind: str) -> None:
    bench.add(volume())
    plan = bench.session.next_run.denoising()
    assert plan is not None
    with pytest.raises(ValueError, match="copy it as Python"):
        recipe(kind, plan, None)


@pytest.mark.parametrize(
    "choices",
    [{"noise": "poisson", "sigma": 2.0, "h": 1.3}, {"sigma": 0.0, "h": 1.3}],
    ids=str,
)
def test_h_of_all_volumes_is_in_units_of_the_noise(bench: Bench, choices: dict[str, Any]) -> None:
    bench.add(series(), name="scan")
    bench.session.next_run.set(noise=choices.get("noise", "gaussian"))
    bench.session.next_run.set(**choices)
    result = bench.run(all_volumes=True)
    denoising = bench.session.next_run.denoising()
    assert denoising is not None
    found = executed(bench, recipe("Python", denoising, None))
    np.testing.assert_allclose(found, result.data, atol=1e-3)


FIELDS = {NOISE_MAP: "noise_map", REMOVED: "residual", COMPONENTS: "rank_map"}
"""What Python calls each map."""


def all_names(bench: Bench, text: str) -> dict[str, Any]:
    names: dict[str, Any] = {"viewer": bench.viewer}
    exec(compile(text, "recipe", "exec"), names)
    return names


def assert_maps(bench: Bench, names: dict[str, Any], wanted: Any = MAP_NAMES) -> None:
    for name in wanted:
        layer = next(layer for layer in bench.viewer.layers if layer.name.endswith(name))
        found = names[FIELDS[name]]
        np.testing.assert_allclose(found.reshape(layer.data.shape), layer.data, atol=2e-3)


@pytest.mark.parametrize("choices", [{}, {"h": 1.3}, {"sigma_varies": True}], ids=str)
def test_python_with_maps_of_volumes_one_by_one(bench: Bench, choices: dict[str, Any]) -> None:
    bench.add(series(), name="scan")
    bench.session.next_run.set(**choices)
    bench.session.next_run.set_maps([NOISE_MAP, REMOVED])
    bench.run(all_volumes=True)
    plan = bench.session.next_run.denoising()
    assert plan is not None
    text = recipe("Python", plan, None, maps=MAP_NAMES)
    assert "rank_map" not in text
    assert_maps(bench, all_names(bench, text), [NOISE_MAP, REMOVED])


@pytest.mark.parametrize("method", ["auto", "series"])
def test_python_of_a_series_names_the_method_the_axis_and_the_maps(bench: Bench, method: str) -> None:
    bench.session.next_run.set(method=method)
    bench.add(decay(), name="dwi")
    bench.session.next_run.set_maps(MAP_NAMES)
    result = bench.run()
    plan = bench.session.next_run.denoising()
    assert plan is not None
    text = recipe("Python", plan, None, maps=bench.session.next_run.maps)
    assert "nlmeans.denoise_with_maps(volume, " in text
    assert "method='series'" in text
    assert "series=0" in text
    assert "channels" not in text
    names = all_names(bench, text)
    np.testing.assert_allclose(names["denoised"], result.data, atol=1e-3)
    assert_maps(bench, names)


def test_python_of_several_series_loops_over_them(bench: Bench) -> None:
    layer = bench.add(np.stack([decay(), 2 * decay()]), name="dwi")
    bench.session.chosen.choose(layer, AxisRoles((2, 3, 4), 1, (0,)))
    bench.session.next_run.set(method="series", sigma=9.0)
    bench.session.next_run.set_maps(MAP_NAMES)
    result = bench.run(all_volumes=True)
    plan = bench.session.next_run.denoising()
    assert plan is not None
    names = all_names(bench, recipe("Python", plan, None, maps=MAP_NAMES))
    np.testing.assert_allclose(names["denoised"], result.data, atol=1e-3)
    assert_maps(bench, names)


def test_a_series_whose_noise_varies_is_repeated_without_one_number_for_it(bench: Bench) -> None:
    ramp = np.linspace(4, 16, 14, dtype=np.float32)
    noise = np.random.default_rng(0).standard_normal((10, 12, 13, 14)).astype(np.float32)
    bench.session.next_run.set(method="series")
    bench.add(100 + ramp * noise, name="dwi")
    result = bench.run()
    plan = bench.session.next_run.denoising()
    assert plan is not None
    text = recipe("Python", plan, None)
    assert "sigma" not in text
    np.testing.assert_allclose(executed(bench, text), result.data, atol=1e-2)


def dwi_of_a_file(bench: Bench, folder: Path) -> Any:
    """A series from a file, denoised with all maps."""
    data = np.moveaxis(decay(), 0, -1)
    path = save(scan(data, "float32", RAS), folder / "dwi.nii.gz")
    bench.session.next_run.set(method="series")
    bench.session.next_run.set_maps(MAP_NAMES)
    layer = bench.add(decay(), name="dwi", metadata={"nlmeans": {"path": str(path)}})
    bench.session.next_run.set(voxel_size=False, sigma=8.0)
    assert bench.run() is not None
    assert bench.session.chosen.is_chosen(layer)
    return bench.session.next_run.denoising()


def test_the_command_line_writes_the_same_maps(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(recipe("command line", dwi_of_a_file(bench, tmp_path), None, maps=MAP_NAMES))
    done = CliRunner().invoke(main, words[1:])
    assert done.exit_code == 0, done.output
    written = {name: nifti.read_nifti(f"dwi_{field}.nii.gz").data for name, field in FIELDS.items()}
    assert_maps(
        bench, {FIELDS[name]: np.moveaxis(data, -1, 0) if data.ndim == 4 else data for name, data in written.items()}
    )


def test_monai_stores_the_same_maps(bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip("monai")
    pytest.importorskip("monai_transforms")
    text = recipe("MONAI", dwi_of_a_file(bench, tmp_path), None, maps=MAP_NAMES)
    assert_maps(
        bench,
        {
            name: np.asarray(found)
            for name, found in all_names(bench, text).items()
            if "map" in name or name == "residual"
        },
    )


def test_noise_that_was_applied_is_repeated_by_python_and_refused_by_the_command_line(bench: Bench) -> None:
    lags = NoiseModel(sigma=6.0, correlation=[[[0.4, 1.0, 0.4]]]).correlation
    ((data, looks, _),) = sample_data.thick()
    bench.add(data, **looks)
    bench.session.next_run.set(noise="gaussian", sigma=40.0, correlation=lags)
    bench.settle()
    plan = bench.session.next_run.denoising()
    assert plan is not None
    np.testing.assert_allclose(executed(bench, recipe("Python", plan, None)), bench.run().data, atol=1)
    with pytest.raises(ValueError, match=r"no option for correlation=.* copy it as Python") as told:
        recipe("command line", plan, None)
    assert len(str(told.value)) < 200
