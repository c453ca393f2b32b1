"""Numbers, words, radii and names are converted, or refused with what is possible."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import nlmeans
from nlmeans.noise.kinds import NOISES
from nlmeans.operator.backends import BACKENDS
from tests.nlmeans.cli.calls import call
from tests.nlmeans.scans import (
    contents,
)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("denoise good.nii.gz out.nii --method magic", "'magic' is not one of 'auto', "),
        ("denoise good.nii.gz out.nii --noise brown", "'brown' is not one of 'auto', 'gaussian', 'rician'"),
        ("denoise good.nii.gz out.nii --backend abacus", "'abacus' is not one of 'auto'"),
        ("denoise good.nii.gz out.nii --sigma much", "'much' is neither a number nor the word map"),
        ("denoise good.nii.gz out.nii --search-radius 3;3", "'3;3' is neither a number nor one number per axis"),
        ("denoise good.nii.gz", "Missing argument 'OUT'"),
        ("denoise good.nii.gz out.nii --sigmoid 3", "No such option.*--sigmoid"),
        ("demo --sample foot", "'foot' is not one of 'head'"),
    ],
)
def test_a_word_that_is_not_known_is_refused_with_those_that_are(
    words: str, message: str, wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(wrong)
    monkeypatch.chdir(wrong)
    result = call(*words.split())
    assert result.exit_code == 2
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    assert re.search(message, line)
    assert contents(wrong) == before


def test_a_method_that_does_not_exist_is_refused_with_all_that_do(source: Path, target: Path, twice: str) -> None:
    result = call("denoise", source, target, "--method", "magic")
    names = ", ".join(map(repr, ("auto", *nlmeans.METHODS)))
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: Invalid value for '--method': 'magic' is not one of {names}.\n")
    assert twice in names


def test_help_lists_all_choices() -> None:
    text = " ".join(call("denoise", "--help").stdout.split())
    for names in (("auto", *nlmeans.METHODS), ("auto", *BACKENDS)):
        assert f" One of {', '.join(names)}. " in text
    assert f"[{'|'.join(('auto', *NOISES))}]" in text
