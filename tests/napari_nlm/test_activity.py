"""The bar in napari's activity dock."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("napari")

from napari.utils import progress

from napari_nlm.activity import Activity


def test_a_bar_whose_run_ends_while_napari_makes_it_does_not_stay() -> None:
    activity = Activity()
    changed = progress._all_instances.events.changed

    def over(event: Any) -> None:
        if event.added:
            activity.close()

    changed.connect(over)
    try:
        activity.open("Denoising scan")
    finally:
        changed.disconnect(over)
    assert not progress._all_instances
