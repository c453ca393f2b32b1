"""The panel that finds the noise of a layer, shows it, and states it for the next run."""

from __future__ import annotations

from typing import Any

from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_nlm.docked import DockedWidget
from napari_nlm.errors import message
from napari_nlm.jobs import Lane
from napari_nlm.layer_source import LayerSource, unwrapped
from napari_nlm.mailbox import Mailbox
from napari_nlm.noise_study import NoiseStudy, Pixels, regions_for, study_noise
from napari_nlm.panels import fill
from napari_nlm.parameters import CONTROLS, MODALITIES, Parameters
from napari_nlm.session import Session, sessions_of

PICTURE_WIDTH = 320
"""Pixels."""

MARGINS = 48
"""Pixels beside the pictures: margins, and the bar that scrolls them."""


class NoisePanel(DockedWidget):
    """Find the noise of an image layer in the background, draw it, and apply it in the denoising widget."""

    tab = "Noise"

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.mailbox = Mailbox()
        self.lane = Lane("nlmeans noise", self.mailbox.deliver)
        self.study: NoiseStudy | None = None
        self.studied: Any = None
        """The image that the study is of, or that is being looked at."""
        self.image, self.region, self.kind, self.modality = QComboBox(), QComboBox(), QComboBox(), QComboBox()
        fill(self.kind, [(name, name) for name in CONTROLS["noise"].options], "auto")
        fill(self.modality, [("anything", None), *((title, code) for code, title in MODALITIES.items())], None)
        self.start, self.apply = QPushButton("Find the noise"), QPushButton("Apply")
        self.said, self.pictures = QLabel(), QLabel()
        self.said.setWordWrap(True)
        self.apply.setToolTip("State this noise for the next run of this image, whatever its region.")
        self.region.setToolTip("Where to look: the selected label of a labels layer, or the drawn shapes.")
        form, column = QFormLayout(), QVBoxLayout(self)
        rows = (("Image", self.image), ("Region", self.region), ("Noise", self.kind), ("Image is", self.modality))
        for title, box in rows:
            form.addRow(title, box)
        inside, scroll = QWidget(), QScrollArea()
        below = QVBoxLayout(inside)
        for label in (self.said, self.pictures):
            below.addWidget(label)
        below.addStretch(1)
        scroll.setWidgetResizable(True)
        scroll.setWidget(inside)
        scroll.setMinimumWidth(PICTURE_WIDTH + MARGINS)
        column.addLayout(form)
        for widget in (self.start, scroll, self.apply):
            column.addWidget(widget, int(widget is scroll))
        self.start.clicked.connect(self.on_start)
        self.apply.clicked.connect(self.on_apply)
        self.image.activated.connect(lambda _: self.show_layers())
        for event in (napari_viewer.layers.events.inserted, napari_viewer.layers.events.removed):
            event.connect(self.show_layers)
        self.destroyed.connect(lambda: self.lane.close())
        self.show_layers()
        self.show_study(None)

    def end_work(self) -> None:
        self.lane.close()
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            event.disconnect(self.show_layers)

    def show_layers(self, event: Any = None) -> None:
        """The images, and the layers that can say where to look in the chosen one."""
        from napari.layers import Image

        from napari_nlm.preview_layers import is_preview

        layers = [layer for layer in map(unwrapped, self.viewer.layers) if not is_preview(layer)]
        images = [layer for layer in layers if isinstance(layer, Image)]
        fill(self.image, [(layer.name, layer) for layer in images], self.image.currentData())
        if self.image.currentIndex() < 0 and images:
            self.image.setCurrentIndex(images.index(self.likely_image(images)))
        image = self.image.currentData()
        regions = [] if image is None else regions_for(layers, image)
        everywhere: list[tuple[str, Any]] = [("everywhere", None)]
        fill(self.region, everywhere + [(layer.name, layer) for layer in regions], self.region.currentData())
        self.region.setCurrentIndex(max(self.region.currentIndex(), 0))
        if self.studied is not None and self.studied is not image:
            self.forget()

    def forget(self) -> None:
        """Take back what was found in another image, so that nobody applies it to this one."""
        self.lane.cancel()
        self.studied = None
        self.show_study(None)

    def likely_image(self, images: list[Any]) -> Any:
        """The image of the denoising widget, else the selected one, else the topmost that is no result."""
        from napari_nlm.results import is_map, is_result

        chosen = None if self.session is None else self.session.chosen.source
        found = [layer for layer in images if not is_result(layer) and not is_map(layer)]
        active = unwrapped(self.viewer.layers.selection.active)
        wanted = [chosen and chosen.layer, active, *reversed(found), *images]
        return next(layer for layer in wanted if layer in (found or images))

    @property
    def session(self) -> Session | None:
        """The denoising widget of this viewer, if it is open."""
        return next(iter(sessions_of(self.viewer)), None)

    def on_start(self) -> None:
        image = self.image.currentData()
        if image is None:
            self.said.setText("There is no image: open one, or a sample with File > Open Sample > Non-local means")
            return
        source, region = LayerSource.of(image), self.region.currentData()
        volume = source.volume_at(self.viewer.dims.point)
        parameters = Parameters(noise=self.kind.currentData(), modality=self.modality.currentData())
        picture = None if self.session is None else self.session.preview.picture
        self.show_study(None)
        self.studied = image
        self.said.setText("looking …")
        self.lane.submit(
            lambda job: study_noise(source, volume, region, parameters, picture), self.show_study, self.on_failed
        )

    def on_failed(self, error: Exception) -> None:
        self.said.setText(message(error) or f"{type(error).__name__}: {error}")

    def show_study(self, study: NoiseStudy | None) -> None:
        self.study = study
        self.apply.setEnabled(study is not None)
        self.said.setText("" if study is None else study.text)
        self.pictures.setPixmap(QPixmap() if study is None else stacked([pixmap(one) for one in study.pictures]))

    def on_apply(self) -> None:
        """State the noise in the denoising widget, for the image in which it was found."""
        session = self.session
        if session is None or self.study is None:
            self.said.setText("Open Layers > Filter > Denoise by non-local means first, then apply")
            return
        if not session.chosen.is_chosen(self.image.currentData()):
            session.chosen.choose(self.image.currentData())
        session.next_run.set(**self.study.parameters)
        session.numbers_changed.emit()


def pixmap(pixels: Pixels) -> QPixmap:
    """A picture for Qt."""
    height, width = pixels.shape[:2]
    image = QImage(pixels.tobytes(), width, height, 4 * width, QImage.Format.Format_RGBA8888)
    return QPixmap.fromImage(image).scaledToWidth(PICTURE_WIDTH, Qt.TransformationMode.SmoothTransformation)


def stacked(pictures: list[QPixmap]) -> QPixmap:
    """Several pictures of the same width, one below the other."""
    from qtpy.QtGui import QPainter

    if not pictures:
        return QPixmap()
    whole = QPixmap(PICTURE_WIDTH, sum(one.height() for one in pictures))
    painter, top = QPainter(whole), 0
    for one in pictures:
        painter.drawPixmap(0, top, one)
        top += one.height()
    painter.end()
    return whole
