"""The panel that says which maps a run adds as layers."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_nlm.maps import COMPONENTS, MAP_NAMES, NOISE_MAP
from napari_nlm.pictures import REMOVED

MAP_TIPS = {
    NOISE_MAP: "Standard deviation of the noise at every voxel, in image units.",
    REMOVED: "Image minus result, in image units. You should see no anatomy in it.",
    COMPONENTS: "How many components of a series the method series kept around every voxel.",
}


class MapPanel(QWidget):
    """Which maps a run adds as layers. Emits `changed` when the user changes it."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 2, 4, 2)
        column.setSpacing(3)
        self.boxes = {name: QCheckBox(name.capitalize()) for name in MAP_NAMES}
        for box in self.boxes.values():
            box.toggled.connect(self.changed.emit)
            column.addWidget(box)
        self.show_missing({})

    @property
    def chosen(self) -> frozenset[str]:
        return frozenset(name for name, box in self.boxes.items() if box.isChecked())

    def clear(self) -> None:
        for box in self.boxes.values():
            box.setChecked(False)

    def show_missing(self, reasons: Mapping[str, str]) -> None:
        """Grey the maps that the next run does not have; `reasons` says by name why."""
        for name, box in self.boxes.items():
            why = reasons.get(name, "")
            box.setEnabled(not why)
            box.setToolTip(f"Not here: {why}." if why else f"{MAP_TIPS[name]} The layer is hidden at first.")
