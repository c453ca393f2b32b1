"""The dock opened, used and closed many times: no layers, threads or files stay, and no memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")

from tests.napari_nlm.conftest import Dock
from tests.soak import assert_nothing_stays, rounds


def test_open_denoise_close(viewer: Any, qapp: Any, request: pytest.FixtureRequest) -> None:
    def run(index: int) -> None:
        dock = Dock(viewer, qapp)
        data = np.random.default_rng(index).normal(100, 10, (12, 40, 41 + index % 3)).astype(np.float32)
        viewer.add_image(data, name="noisy")
        dock.settle()
        made: list[Any] = []
        dock.session.finished.connect(made.append)
        dock.session.start()
        dock.wait(lambda: bool(made))
        dock.settle()
        assert len(viewer.layers) >= 2
        dock.close()
        viewer.layers.clear()
        dock.wait(seconds=0.05)
        assert len(viewer.layers) == 0

    assert_nothing_stays(run, rounds(request, 2, 10), rounds(request, 3, 40))
