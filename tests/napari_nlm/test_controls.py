"""Input fields."""

from __future__ import annotations

import pytest

from napari_nlm.controls import Choice, Line, Number, Switch, field_for
from napari_nlm.parameters import CONTROLS, Parameters


def test_every_field_says_what_it_is_and_shows_its_value(qapp: object) -> None:
    kinds = {"noise": Choice, "voxel_size": Switch, "h": Number, "sigma": Number, "device": Choice, "curve": Line}
    for name, control in CONTROLS.items():
        if control.group == "applied":
            continue
        field = field_for(control, getattr(Parameters(), name))
        assert isinstance(field, kinds.get(name, object))
        assert control.label
        assert control.tip
        field.show_value(getattr(Parameters(), name), automatic="0:3,9:8" if name == "curve" else 1)
        assert field.value() == getattr(Parameters(), name)


@pytest.mark.usefixtures("qapp")
def test_the_methods_are_those_when_the_field_is_built(another_method: str) -> None:
    field = field_for(CONTROLS["method"], "auto")
    assert isinstance(field, Choice)
    assert field.box.findText(another_method) >= 0
    assert f"{another_method}: classic by another name" in field.toolTip()


@pytest.mark.usefixtures("qapp")
def test_a_number_can_be_left_to_the_engine_again() -> None:
    field = field_for(CONTROLS["h"], None)
    assert isinstance(field, Number)
    heard: list[object] = []
    field.changed.connect(heard.append)
    field.show_value(None, automatic=0.8)
    assert field.value() is None
    assert field.editor.value() == pytest.approx(0.8)
    assert heard == []
    field.editor.setValue(1.5)
    field.auto.click()
    assert heard == [1.5, None]


@pytest.mark.usefixtures("qapp")
@pytest.mark.parametrize("name", ["sigma", "memory"])
def test_a_number_that_is_not_known_yet_is_no_number(name: str) -> None:
    field = field_for(CONTROLS[name], None)
    assert isinstance(field, Number)
    heard: list[object] = []
    field.changed.connect(heard.append)
    field.show_value(None, automatic=7.0)
    field.show_value(None)
    assert field.editor.text() == "…"
    field.auto.click()
    assert field.auto.isChecked()
    assert field.value() is None
    assert set(heard) <= {None}
    field.editor.setValue(2.5)
    assert heard[-1] == 2.5
    field.show_value(None)
    assert field.editor.text() == "…"


@pytest.mark.usefixtures("qapp")
def test_a_slider_waits_for_the_number_that_it_begins_with() -> None:
    field = field_for(CONTROLS["h"], None)
    assert isinstance(field, Number)
    for known in (None, 0.8, None):
        field.show_value(None, automatic=known)
        assert field.editor.isEnabled() == (known is not None)


@pytest.mark.usefixtures("qapp")
def test_devices_are_listed_by_title_and_give_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "H100")
    field = field_for(CONTROLS["device"], None)
    assert isinstance(field, Choice)
    assert [field.box.itemText(i) for i in range(field.box.count())] == ["auto", "cpu", "cuda:0 (H100)"]
    field.box.setCurrentIndex(2)
    assert field.value() == "cuda:0"
    field.show_value(None)
    assert field.value() is None


@pytest.mark.usefixtures("qapp")
def test_a_line_of_text_is_told_once_it_is_written_and_an_empty_one_leaves_it_to_the_engine() -> None:
    field = field_for(CONTROLS["curve"], None)
    assert isinstance(field, Line)
    heard: list[str | None] = []
    field.changed.connect(heard.append)
    assert field.editor.placeholderText() == ""
    field.show_value(None, "0:3,9:8")
    assert (field.value(), field.editor.placeholderText()) == (None, "0:3,9:8")
    field.show_value(None)
    assert field.editor.placeholderText() == "found in the image"
    for text in (" 0:3,500:8 ", "0:3,500:8", ""):
        field.editor.setText(text)
        field.editor.editingFinished.emit()
    assert heard == ["0:3,500:8", None]
