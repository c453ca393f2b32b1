"""The panel that finds the noise, in a real window."""

from __future__ import annotations

import pytest

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
