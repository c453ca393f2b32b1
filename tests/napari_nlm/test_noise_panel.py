"""The panel that finds the noise, in a real window."""

from __future__ import annotations

import numpy as np
import pytest

import nlmeans
from napari_nlm.noise_panel import NoisePanel
from tests.napari_nlm.conftest import Dock
from tests.napari_nlm.images import SIGMA, volume


def test_the_noise_is_found_in_the_background_and_applied(dock: Dock) -> None:
    dock.viewer.add_image(volume(24, 28, 30), name="scan")
    dock.settle()
    panel = NoisePanel(dock.viewer)
    assert [panel.image.itemText(i) for i in range(panel.image.count())] == ["scan"]
    assert not panel.apply.isEnabled()
    panel.start.click()
    assert panel.said.text() == "looking …"
    dock.wait(lambda: panel.study is not None)
    assert "gaussian noise" in panel.said.text()
    assert panel.pictures.pixmap().width() > 300
    panel.apply.click()
    dock.settle()
    assert dock.session.next_run.parameters.noise == "gaussian"
    assert panel.study is not None
    assert dock.session.next_run.parameters.sigma == panel.study.model.sigma == pytest.approx(SIGMA, rel=0.25)
    panel.end_work()
    panel.lane.pool.shutdown(wait=True)


def test_without_an_image_it_says_what_to_do(dock: Dock) -> None:
    panel = NoisePanel(dock.viewer)
    panel.start.click()
    assert "Open Sample" in panel.said.text()
    panel.end_work()
    panel.lane.pool.shutdown(wait=True)


def test_the_image_of_the_denoising_widget_is_offered_first_and_no_result(dock: Dock) -> None:
    dock.viewer.add_image(volume(12, 20, 24), name="scan")
    dock.settle()
    dock.widget.on_run()
    dock.settle()
    panel = NoisePanel(dock.viewer)
    assert panel.image.count() == 2
    assert panel.image.currentText() == "scan"
    panel.end_work()
    panel.lane.pool.shutdown(wait=True)


def test_noise_that_neighbours_share_is_applied_and_gives_what_the_engine_gives(dock: Dock) -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((25, 32, 33)).astype("f4")
    clean = volume(24, 32, 32).astype("f4")
    data = clean + 12 * (noise[1:, :, 1:] + noise[:-1, :, 1:] + noise[1:, :, :-1] + noise[:-1, :, :-1])
    layer = dock.viewer.add_image(data, name="scan")
    dock.settle()
    panel = NoisePanel(dock.viewer)
    panel.start.click()
    dock.wait(lambda: panel.study is not None)
    assert panel.study is not None
    model = panel.study.model
    assert model.correlation is not None
    panel.apply.click()
    dock.settle()
    assert dock.session.next_run.parameters.correlation == model.correlation
    assert "as given; correlated between neighbours" in dock.widget.parameters.notes["sigma"].text()
    dock.widget.runs.button.click()
    dock.settle()
    expected = nlmeans.denoise(layer.data, noise=model, method="classic")
    np.testing.assert_allclose(dock.viewer.layers["scan denoised"].data, expected, atol=1e-3)
    dock.widget.parameters.fields["sigma"].editor.setValue(5.0)
    assert dock.session.next_run.parameters.correlation == "auto"
    panel.end_work()
    panel.lane.pool.shutdown(wait=True)


def test_noise_that_is_stronger_in_places_is_applied(dock: Dock) -> None:
    rng = np.random.default_rng(0)
    level = np.linspace(1, 5, 48, dtype="f4")[:, None, None]
    data = 100 + 4 * level * rng.standard_normal((48, 48, 48), dtype="f4")
    dock.viewer.add_image(data, name="scan")
    dock.settle()
    assert "uneven in space" in dock.widget.parameters.notes["sigma"].text()
    panel = NoisePanel(dock.viewer)
    panel.start.click()
    dock.wait(lambda: panel.study is not None)
    assert panel.study is not None
    assert panel.study.model.variation is not None
    panel.apply.click()
    dock.settle()
    assert dock.session.next_run.parameters.variation == panel.study.model.variation
    assert "as given; uneven in space" in dock.widget.parameters.notes["sigma"].text()
    assert "Removed" in dock.widget.preview.status.text()
    panel.end_work()
    panel.lane.pool.shutdown(wait=True)


def test_what_was_found_in_one_image_is_never_applied_to_another(dock: Dock) -> None:
    dock.viewer.add_image(volume(24, 28, 30), name="scan")
    dock.settle()
    panel = NoisePanel(dock.viewer)
    panel.start.click()
    dock.wait(lambda: panel.study is not None)
    dock.viewer.add_image(volume(20, 28, 30), name="other")
    dock.settle()
    assert panel.study is not None
    assert panel.image.currentText() == "scan"
    dock.viewer.layers.remove("scan")
    dock.settle()
    assert panel.image.currentText() == "other"
    assert panel.study is None
    assert panel.said.text() == ""
    assert not panel.apply.isEnabled()
    panel.end_work()
    panel.lane.pool.shutdown(wait=True)
