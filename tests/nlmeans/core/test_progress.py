"""Reports of progress, and cancelling."""

from __future__ import annotations

import pytest

from nlmeans import Cancelled
from nlmeans.core.progress import cancellable, part, reporting


def test_parts_of_parts_fill_their_share() -> None:
    seen: list[float] = []
    second_half = part(seen.append, 0.5, 1.0)
    first_fifth = part(second_half, 0.0, 0.2)
    first_fifth(0.0)
    first_fifth(1.0)
    second_half(1.0)
    assert seen == pytest.approx([0.5, 0.6, 1.0])


@pytest.mark.parametrize("answer", [None, True, 0, "", []])
def test_only_false_cancels(answer: object) -> None:
    cancellable(lambda fraction: answer)(0.5)


def test_cancelling_says_how_far_it_came() -> None:
    with pytest.raises(Cancelled, match="cancelled by the progress callback at 25%"):
        cancellable(lambda fraction: False)(0.25)


def test_rounding_never_passes_the_end() -> None:
    seen: list[float] = []
    cancellable(seen.append)(1 + 1e-12)
    assert seen == [1.0]


@pytest.mark.parametrize("silence", [None, False])
def test_nothing_is_shown_unless_asked_for(silence: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(silence, "denoising") as report:
        report(0.5)
    assert capsys.readouterr() == ("", "")


def test_a_bar_fills_up_even_if_a_report_is_repeated_or_late(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(True, "denoising") as report:
        for fraction in (0.0, 0.5, 0.5, 0.4, 1.0, 1.0 + 1e-9):
            report(fraction)
    assert "denoising 100%" in capsys.readouterr().err


@pytest.mark.parametrize("progress", [3, "yes", [print]])
def test_what_cannot_be_called_is_refused(progress: object) -> None:
    refused = pytest.raises(TypeError, match=r"progress=.* must be None, True for a bar, or a function")
    with refused, reporting(progress, "denoising"):  # type: ignore[arg-type]
        pass
