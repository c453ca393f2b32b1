"""Make the pictures of napari for the README and the documentation, from a real window.

xvfb-run -a -s "-screen 0 1600x1000x24" python docs/screenshots.py
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["NAPARI_CONFIG"] = str(Path(tempfile.mkdtemp()) / "settings.yaml")  # leave the user's own settings alone

import napari
from napari._qt.dialogs.qt_notification import NapariQtNotification
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_nlm.pictures import COMPARE_MODES

FOLDER = Path(__file__).parent
SIZE = (1280, 800)
COLOURS = 200
"""Colours in a picture: the grey values, and the few colours of the window."""


def wait(ready: Callable[[], bool] = lambda: True, seconds: float = 0.5) -> None:
    """Process Qt events until `ready` returns True, and for at least `seconds`."""
    start = time.monotonic()
    while not ready() or time.monotonic() < start + seconds:
        QApplication.processEvents()
        time.sleep(0.01)


def save(viewer: napari.Viewer, name: str) -> None:
    """Save a screenshot of the whole window as a PNG with few colours."""
    wait()
    pixels = viewer.screenshot(canvas_only=False, flash=False)
    picture = Image.fromarray(pixels[..., :3]).quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(FOLDER / name, optimize=True)
    print(f"{name}: {picture.size[0]} × {picture.size[1]}, {(FOLDER / name).stat().st_size / 1000:.0f} kB")


def main() -> None:
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    viewer.open_sample("nlmeans", "head")
    source = viewer.layers["head"]
    source.interpolation2d = "spline36"
    _, dock = viewer.window.add_plugin_dock_widget("nlmeans", "Denoise by non-local means")
    wait(lambda: dock.inner is not None)
    widget = dock.inner
    session, panel = widget.session, widget.preview
    widget.on_reset()
    session.next_run.set(method="classic")
    widget.show_numbers()
    viewer.dims.set_current_step(0, 38)
    viewer.scene.camera.zoom *= 1.12

    def done() -> bool:
        return not session.busy

    wait(done, 2)
    panel.modes.button(COMPARE_MODES.index("split")).click()
    wait(done)
    save(viewer, "napari-split.png")

    panel.modes.button(COMPARE_MODES.index("side by side")).click()
    wait(done)
    save(viewer, "napari-side-by-side.png")

    panel.modes.button(COMPARE_MODES.index("denoised")).click()
    _, noise = viewer.window.add_plugin_dock_widget("nlmeans", "Estimate the noise")
    wait(lambda: done() and noise.inner is not None)
    noise.inner.start.click()
    wait(lambda: noise.inner.study is not None)
    save(viewer, "napari-noise.png")
    viewer.window.remove_dock_widget(noise)
    widget.on_run()
    wait(done, 2)
    viewer.dims.ndisplay = 3
    for layer in viewer.layers:
        layer.rendering, layer.iso_threshold = "iso", 330.0
        layer.interpolation3d = "linear"
    viewer.canvas.grid.shape, viewer.canvas.grid.enabled = (1, -1), True
    viewer.reset_view()
    viewer.scene.camera.angles = (28, 0, 88)
    for notice in QApplication.allWidgets():
        if isinstance(notice, NapariQtNotification):
            notice.close()
    wait(done, 2)
    save(viewer, "napari-3d.png")
    viewer.close()


if __name__ == "__main__":
    main()
