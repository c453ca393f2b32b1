"""Small cohorts of scans, and how to denoise them by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from nlmeans import cli
from nlmeans.files import bids
from tests.nlmeans.scans import RAS, noisy, save, scan

SHAPE = (10, 11, 12)
QUICK = ("--method", "classic", "--search-radius", "1", "--device", "cpu", "--threads", "1")


def run(*words: object) -> Result:
    """Run `nlmeans batch`."""
    return CliRunner().invoke(cli.main, ["batch", *map(str, words), *QUICK])


def image(path: Path, shape: tuple[int, ...] = SHAPE, seed: int = 0, **sidecar: Any) -> Path:
    """Write a scan and, if there is anything to say in it, its sidecar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if sidecar:
        path.with_name(bids.stem(path) + ".json").write_text(json.dumps(sidecar))
    return save(scan(noisy(*shape, seed=seed), "i2", RAS), path)


def write_dataset(root: Path, participants: int) -> Path:
    """Write a BIDS dataset with one T1w image for each participant."""
    root.mkdir()
    (root / bids.DESCRIPTION).write_text(json.dumps({"Name": "Toy", "BIDSVersion": "1.9.0", "License": "CC0"}))
    (root / "T1w.json").write_text(json.dumps({"MagneticFieldStrength": 3, "EchoTime": 0.003}))
    for number in range(1, participants + 1):
        image(root / f"sub-{number:02}" / "anat" / f"sub-{number:02}_T1w.nii.gz", seed=number, EchoTime=0.004)
    return root
