"""The panel of the maps: what is chosen, and what there is not."""

from __future__ import annotations

import pytest

from napari_nlm.map_panel import MAP_TIPS, MapPanel
from napari_nlm.maps import COMPONENTS, MAP_NAMES, NOISE_MAP

pytestmark = pytest.mark.usefixtures("qapp")


def test_there_is_a_box_with_a_tip_for_every_map() -> None:
    panel = MapPanel()
    assert tuple(panel.boxes) == MAP_NAMES
    assert MAP_TIPS.keys() == set(MAP_NAMES)
    assert panel.chosen == frozenset()


def test_a_click_is_told_and_can_be_taken_back() -> None:
    panel = MapPanel()
    heard: list[frozenset[str]] = []
    panel.changed.connect(lambda: heard.append(panel.chosen))
    panel.boxes[NOISE_MAP].click()
    assert heard == [{NOISE_MAP}]
    panel.clear()
    assert panel.chosen == frozenset()


def test_a_map_that_there_is_not_is_grey_and_says_why() -> None:
    panel = MapPanel()
    panel.boxes[COMPONENTS].click()
    panel.show_missing({COMPONENTS: "only a series has them"})
    assert not panel.boxes[COMPONENTS].isEnabled()
    assert "only a series has them" in panel.boxes[COMPONENTS].toolTip()
    assert panel.boxes[NOISE_MAP].isEnabled()
    panel.show_missing({})
    assert panel.boxes[COMPONENTS].isEnabled()
    assert panel.chosen == {COMPONENTS}
