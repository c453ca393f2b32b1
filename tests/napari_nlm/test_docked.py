"""Widgets of the plugin share one place of the window."""

from __future__ import annotations

from typing import Any

from napari_nlm.docked import dock_of
from napari_nlm.noise_panel import NoisePanel
from tests.napari_nlm.conftest import Dock


def test_two_widgets_of_the_plugin_are_tabs_and_the_new_one_is_in_front(dock: Dock) -> None:
    window = dock.viewer.__wrapped__.window
    panel = NoisePanel(dock.viewer)
    holder = window.add_dock_widget(panel, name="Noise")
    dock.settle()
    assert dock_of(panel) is holder
    assert window._qt_window.tabifiedDockWidgets(holder) == [dock.holder]
    assert not panel.visibleRegion().isEmpty()
    assert dock.widget.visibleRegion().isEmpty()
    assert holder.height() > 0.6 * window._qt_window.height()
    window.remove_dock_widget(holder)
    dock.settle()
    assert not dock.widget.visibleRegion().isEmpty()


def test_a_dock_on_another_side_stays_where_it_was_put(dock: Dock) -> None:
    window: Any = dock.viewer.__wrapped__.window
    holder = window.add_dock_widget(NoisePanel(dock.viewer), name="Noise", area="left")
    dock.settle()
    assert window._qt_window.tabifiedDockWidgets(holder) == []
    window.remove_dock_widget(holder)
    dock.settle()


def test_tabs_have_short_titles(dock: Dock) -> None:
    window = dock.viewer.__wrapped__.window
    panel = NoisePanel(dock.viewer)
    holder = window.add_dock_widget(panel, name="Estimate the noise (nlmeans)")
    dock.settle()
    assert (dock.holder.windowTitle(), holder.windowTitle()) == ("Denoise", "Noise")
    window.remove_dock_widget(holder)
    dock.settle()
