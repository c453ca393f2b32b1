"""``nlmeans info`` names what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import nlmeans
from nlmeans.operator.backends import BACKENDS
from tests.nlmeans.cli.calls import SAME, call
from tests.nlmeans.scans import (
    NIFTI,
    values,
)


def test_info_names_what_is_there() -> None:
    result = call("info")
    assert result.exit_code == 0
    for word in (nlmeans.__version__, torch.__version__, "Python 3.", "device   cpu: "):
        assert word in result.stdout
    for name in BACKENDS:
        assert f"\nbackend  {name}: " in result.stdout
    for name in nlmeans.METHODS:
        assert f"\nmethod   {name}: " in result.stdout


def test_a_method_registered_later_denoises_and_has_its_line_in_info(source: Path, target: Path, twice: str) -> None:
    result = call("denoise", source, target, "--method", twice, "--search-radius", 1, "--device", "cpu", "--sigma", 8)
    assert result.stdout == f"{target}: twice, gaussian noise, sigma 8\n", result.stderr
    spacing = [float(size) for size in NIFTI.load(source).header.get_zooms()]
    expected = nlmeans.denoise(values(source), 8, spacing=spacing, **SAME)
    np.testing.assert_array_equal(values(target), expected)
    assert "\nmethod   twice: the method classic by another name\n" in call("info").stdout
