"""Measure the responsiveness of the napari widget in a real window: preview, run, cancel, and a whole journey.

xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/napari_latency.py
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["NAPARI_CONFIG"] = str(Path(tempfile.mkdtemp()) / "settings.yaml")  # keeps the user's own settings unchanged

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

RESULTS = Path(__file__).parent / "results" / "napari.md"

PATIENCE = 600
LOOP_STEP = 0.002
"""Requested seconds between two timer events."""

LIMIT = 0.1
"""Gaps above this, in seconds, are listed with the step in which they were."""

Gap = tuple[float, float, str]


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


# ---------------------------------------------------------------- a whole journey


class Beats:
    """Timer events: seconds since the one before, seconds that the window's thread computed meanwhile, and the step."""

    def __init__(self) -> None:
        self.step = ""
        self.gaps: list[Gap] = []
        self.last, self.computed = time.perf_counter(), time.thread_time()
        self.timer = QTimer()
        self.timer.timeout.connect(self.on_beat)

    def on_beat(self) -> None:
        now, computed = time.perf_counter(), time.thread_time()
        self.gaps.append((now - self.last, computed - self.computed, self.step))
        self.last, self.computed = now, computed

    @contextmanager
    def during(self, step: str) -> Iterator[None]:
        """Name what the user does, which may block, and wait a little afterwards."""
        self.step = step
        yield
        wait(seconds=0.3)


def adding_alone(viewer: napari.Viewer, edge: int) -> Gap:
    """The longest gap while napari adds a volume to a window without layers, without any of our widgets."""
    beats = Beats()
    beats.timer.start(round(LOOP_STEP * 1000))
    with beats.during("add a volume"):
        viewer.add_image(phantom(edge, edge, edge), name="another", units="mm")
    beats.timer.stop()
    viewer.layers.clear()
    wait(seconds=1)
    return max(beats.gaps)


def journey(edge: int) -> tuple[list[Gap], Gap]:
    """The gaps between timer events, from opening the dock to closing it, and the longest when napari adds a volume.

    The process has not imported torch yet. napari itself has shown an image before, so that its own first layer does
    not count.
    """
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 800)
    viewer.add_image(phantom(8, 64, 64), name="another", units="mm")
    wait(seconds=2)
    viewer.layers.clear()
    wait(seconds=1)
    alone = adding_alone(viewer, edge)
    beats = Beats()
    beats.timer.start(round(LOOP_STEP * 1000))
    with beats.during("open the dock"):
        _, dock = viewer.window.add_plugin_dock_widget("nlmeans", "Denoise by non-local means")
        wait(lambda: dock.inner is not None)
    from napari_nlm.pictures import COMPARE_MODES

    widget = dock.inner
    session = widget.session

    def idle() -> bool:
        return not session.busy

    with beats.during("choose the sample"):
        viewer.open_sample("nlmeans", "head")
        wait(idle)
    with beats.during("choose a volume of 3D"):
        viewer.add_image(phantom(edge, edge, edge), contrast_limits=(0, 255), name="scan", units="mm")
        wait(idle)
    with beats.during("move the strength"):
        for strength in np.linspace(0.5, 2.0, 20):
            widget.parameters.fields["strength"].editor.setValue(float(strength))
            wait(seconds=0.05)
        wait(idle)
    with beats.during("go through slices"):
        for number in range(edge // 4, 3 * edge // 4, edge // 16):
            viewer.dims.set_current_step(0, number)
            wait(seconds=0.1)
        wait(idle)
    for mode in ("split", "side by side", "removed noise", "denoised"):
        with beats.during(f"compare: {mode}"):
            widget.preview.modes.button(COMPARE_MODES.index(mode)).click()
            wait(idle)
    with beats.during("run"):
        widget.runs.button.click()
        wait(lambda: not session.runs.running)
        wait(idle)
    with beats.during("find the noise"):
        _, noise = viewer.window.add_plugin_dock_widget("nlmeans", "Estimate the noise")
        wait(lambda: noise.inner is not None)
        noise.inner.start.click()
        wait(lambda: noise.inner.study is not None)
    with beats.during("close both docks"):
        viewer.window.remove_dock_widget(noise)
        viewer.window.remove_dock_widget(dock)
        wait(seconds=0.5)
    beats.timer.stop()
    viewer.close()
    wait(seconds=0.2)
    return beats.gaps, alone


# ---------------------------------------------------------------- one thing at a time


class Window:
    def __init__(self, data: np.ndarray) -> None:
        from napari_nlm.widget import DenoiseWidget

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
        connection = self.session.preview.shown.connect(lambda picture: shown.append(picture.draft))
        start = time.perf_counter()
        self.widget.parameters.fields["strength"].editor.setValue(strength)
        wait(lambda: bool(shown))
        self.viewer.screenshot(canvas_only=True, flash=False)  # paints and reads the pixels back
        first = exact = time.perf_counter() - start
        if shown[0]:
            wait(lambda: not shown[-1])
            self.viewer.screenshot(canvas_only=True, flash=False)
            exact = time.perf_counter() - start
        self.session.preview.shown.disconnect(connection)
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


# ---------------------------------------------------------------- the table


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f}"


def journey_lines(gaps: list[Gap], alone: Gap, edge: int) -> list[str]:
    """The table of the gaps in a journey, and where the long ones were."""
    seconds = [gap for gap, _, _ in gaps]
    shares = [float(np.percentile(seconds, share)) for share in (50, 99, 99.9, 100)]
    long = sorted((gap for gap in gaps if gap[0] > LIMIT), reverse=True)
    listed = "; ".join(f"{step}: {milliseconds(gap)} ({milliseconds(own)})" for gap, own, step in long)
    return [
        "A journey in a fresh window: open the dock, which imports torch, choose the sample head, then a volume of "
        f"{edge}³ voxels, move the strength, go through slices, compare in every way, run `auto`, find the noise, "
        f"close. Gaps between timer events ({milliseconds(LOOP_STEP)} ms requested), in milliseconds:",
        "",
        "| events | median | 99 % | 99.9 % | largest | longer than 100 ms |",
        "|---|---|---|---|---|---|",
        f"| {len(gaps)} | {' | '.join(map(milliseconds, shares))} | {len(long)} |",
        "",
        f"Those longer than 100 ms, and in brackets how long the window's own thread computed: {listed or 'none'}. "
        f"When napari alone adds a volume to this window, without any of our widgets, its longest gap is "
        f"{milliseconds(alone[0])} ({milliseconds(alone[1])}).",
        "",
    ]


def preview_lines(repeats: int, slow_repeats: int) -> list[str]:
    """The table of the seconds from the slider to the canvas."""
    lines = [
        "Milliseconds from moving the slider of the strength until the repainted canvas is read back, for a 256 × 256 "
        "slice of 64 × 256 × 256 voxels:",
        "",
        "| method | picture | median | smallest | largest | moves |",
        "|---|---|---|---|---|---|",
    ]
    for method, moves in (("classic", repeats), ("bayes", slow_repeats)):
        first, exact = preview_times(method, moves)
        drafts = [("draft by classic", first), ("exact, middle 128 × 128", exact)]
        rows = [("exact", exact)] if first == exact else drafts
        for name, times in rows:
            numbers = (milliseconds(f(times)) for f in (statistics.median, min, max))
            lines.append(f"| {method} | {name} | {' | '.join(numbers)} | {len(times)} |")
    return [*lines, ""]


def cancel_lines(edge: int) -> list[str]:
    """The table of the seconds after a click on Cancel."""
    lines = [
        f"Milliseconds from the click on Cancel at {edge}³ (no layer appears):",
        "",
        "| method | until the button says Denoise | until the computation has ended |",
        "|---|---|---|",
    ]
    for method in ("classic", "bayes"):
        lines.append(f"| {method} | {' | '.join(map(milliseconds, cancel_times(edge, method)))} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20, help="slider moves for fast methods")
    parser.add_argument("--slow-repeats", type=int, default=3, help="slider moves for methods that take seconds")
    parser.add_argument("--edge", type=int, default=256, help="edge in voxels of the volume for the cancel")
    parser.add_argument("--journey-edge", type=int, default=96, help="edge in voxels of the volume of the journey")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table")
    arguments = parser.parse_args()
    gaps, alone = journey(arguments.journey_edge)  # first, as it imports torch
    import torch

    import nlmeans

    lines = [
        "# napari: responsiveness of the widget",
        "",
        f"{platform.system()}, {torch.get_num_threads()} threads, CPU only, software OpenGL under Xvfb; napari "
        f"{napari.__version__}, torch {torch.__version__}, nlmeans {nlmeans.__version__}. Made by "
        "`python benchmarks/napari_latency.py`, which uses the real widget in a real window. All kernels are compiled "
        "before: run it twice on a new machine.",
        "",
        *preview_lines(arguments.repeats, arguments.slow_repeats),
        *journey_lines(gaps, alone, arguments.journey_edge),
        *cancel_lines(arguments.edge),
    ]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
