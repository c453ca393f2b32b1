"""Measure the responsiveness of the napari widget in a real window: preview, event loop during a run, and cancel.

xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/napari_latency.py
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["NAPARI_CONFIG"] = str(Path(tempfile.mkdtemp()) / "settings.yaml")  # keeps the user's own settings unchanged

import napari
import numpy as np
import torch
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

import nlmeans
from napari_nlm.preview_layers import Picture
from napari_nlm.widget import DenoiseWidget

RESULTS = Path(__file__).parent / "results" / "napari.md"

PATIENCE = 600
LOOP_STEP = 0.002
"""Requested seconds between two timer events."""


def wait(ready: Callable[[], bool] = lambda: True, seconds: float = 0.0) -> None:
    start = time.perf_counter()
    while not ready() or time.perf_counter() < start + seconds:
        if time.perf_counter() > start + PATIENCE:
            raise TimeoutError(f"the widget was not ready after {PATIENCE} s")
        QApplication.processEvents()
        time.sleep(0.0005)


def phantom(*shape: int) -> np.ndarray:
    clean = np.full(shape, 60.0, np.float32)
    clean[tuple(slice(n // 4, 3 * n // 4) for n in shape)] = 160
    return clean + 8 * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


class Window:
    def __init__(self, data: np.ndarray) -> None:
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1280, 800)
        self.viewer.add_image(data, contrast_limits=(0, 255), name="scan")
        self.widget = DenoiseWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name="Denoise")
        self.session = self.widget.session
        self.session.next_run.set(method="classic", device="cpu", h=None, search_radius=None)
        self.idle()

    def idle(self) -> None:
        wait(seconds=0.2)
        wait(lambda: not self.session.busy)
        wait(seconds=0.2)

    def move_slider(self, strength: float) -> tuple[float, float]:
        """Measure seconds until the canvas shows the first picture for a strength, and until it shows the exact one."""
        shown: list[bool] = []

        def on_picture(picture: Picture) -> None:
            shown.append(picture.draft)

        self.session.preview.shown.connect(on_picture)
        start = time.perf_counter()
        self.widget.parameters.fields["strength"].editor.setValue(strength)
        wait(lambda: bool(shown))
        self.viewer.screenshot(canvas_only=True, flash=False)  # paints and reads the pixels back
        first = exact = time.perf_counter() - start
        if shown[0]:
            wait(lambda: not shown[-1])
            self.viewer.screenshot(canvas_only=True, flash=False)
            exact = time.perf_counter() - start
        self.session.preview.shown.disconnect(on_picture)
        self.idle()
        return first, exact

    def close(self) -> None:
        self.session.close()
        for lane in self.session.lanes:
            lane.pool.shutdown(wait=True)
        self.viewer.close()
        wait(seconds=0.2)


def preview_times(method: str, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds from moving the strength to the repainted canvas: for the first picture, and for the exact one."""
    window = Window(phantom(64, 256, 256))
    window.session.next_run.set(method=method)
    window.idle()
    times = [window.move_slider(0.5 + 0.05 * number) for number in range(repeats + 1)][1:]  # the first compiles
    window.close()
    return [first for first, _ in times], [exact for _, exact in times]


def run_and_beats(edge: int, method: str) -> tuple[float, list[float]]:
    """Seconds of a full run, and the seconds between timer events while it runs."""
    window = Window(phantom(edge, edge, edge))
    window.session.next_run.set(method=method)
    window.idle()
    beats: list[float] = []
    timer = QTimer()
    timer.timeout.connect(lambda: beats.append(time.perf_counter()))
    timer.start(round(LOOP_STEP * 1000))
    start = time.perf_counter()
    window.widget.runs.button.click()
    wait(lambda: not window.session.runs.running)
    seconds = time.perf_counter() - start
    timer.stop()
    window.close()
    return seconds, np.diff([start, *beats]).tolist()


def cancel_times(edge: int, method: str) -> tuple[float, float]:
    """Seconds from the click on Cancel until the button says Denoise, and until the computation has ended."""
    window = Window(phantom(edge, edge, edge))
    window.session.set_live(False)
    window.session.next_run.set(method=method, search_radius=6)
    window.idle()
    window.widget.runs.button.click()
    wait(lambda: window.widget.runs.bar.value() > 0)
    wait(seconds=0.3)
    start = time.perf_counter()
    window.widget.runs.button.click()
    wait(lambda: window.widget.runs.button.text() == "Denoise")
    button = time.perf_counter() - start
    window.session.runs.lane.pool.submit(lambda: None).result(PATIENCE)
    work = time.perf_counter() - start
    wait(seconds=0.3)
    if len(window.viewer.layers) != 1:
        raise AssertionError("a layer appeared after the cancel")
    window.close()
    return button, work


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20, help="slider moves for fast methods")
    parser.add_argument("--slow-repeats", type=int, default=3, help="slider moves for methods that take seconds")
    parser.add_argument("--edge", type=int, default=256, help="edge in voxels of the volume for the run and the cancel")
    arguments = parser.parse_args()
    run_and_beats(32, "classic")  # compiles
    lines = [
        "# napari: responsiveness of the widget",
        "",
        f"{platform.system()}, {torch.get_num_threads()} threads, CPU only, software OpenGL under Xvfb; napari "
        f"{napari.__version__}, torch {torch.__version__}, nlmeans {nlmeans.__version__}. Made by "
        "`python benchmarks/napari_latency.py`, which uses the real widget in a real window. All code is compiled "
        "before.",
        "",
        "Milliseconds from moving the slider of the strength until the repainted canvas is read back, for a 256 × 256 "
        "slice of 64 × 256 × 256 voxels:",
        "",
        "| method | picture | median | smallest | largest | moves |",
        "|---|---|---|---|---|---|",
    ]
    for method, repeats in (("classic", arguments.repeats), ("bayes", arguments.slow_repeats)):
        first, exact = preview_times(method, repeats)
        drafts = [("draft by classic", first), ("exact, middle 128 × 128", exact)]
        rows = [("exact", exact)] if first == exact else drafts
        for name, times in rows:
            numbers = (milliseconds(f(times)) for f in (statistics.median, min, max))
            lines.append(f"| {method} | {name} | {' | '.join(numbers)} | {len(times)} |")
    lines += [
        "",
        f"Duration of a run on {arguments.edge}³ voxels, and the gaps between timer events during it "
        f"({milliseconds(LOOP_STEP)} ms requested):",
        "",
        "| method | run (s) | median gap (ms) | 99 % (ms) | largest (ms) |",
        "|---|---|---|---|---|",
    ]
    seconds, gaps = run_and_beats(arguments.edge, "classic")
    shares = [float(np.percentile(gaps, share)) for share in (50, 99, 100)]
    lines.append(f"| classic | {seconds:.1f} | {' | '.join(map(milliseconds, shares))} |")
    lines += [
        "",
        f"Milliseconds from the click on Cancel at {arguments.edge}³ (no layer appears):",
        "",
        "| method | until the button says Denoise | until the computation has ended |",
        "|---|---|---|",
    ]
    for method in ("classic", "bayes"):
        lines.append(f"| {method} | {' | '.join(map(milliseconds, cancel_times(arguments.edge, method)))} |")
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
