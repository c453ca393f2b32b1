"""What `pip install nlmeans` alone must give. To be run in an empty folder outside the repository."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nibabel
import numpy as np

import nlmeans
from nlmeans.files import samples

OPTIONAL = ("monai", "pytorch-ignite", "napari", "magicgui", "qtpy", "pyqt6", "pydicom", "highdicom", "dask", "zarr")


def run(*words: str, expect: int = 0) -> str:
    """What the command line says."""
    command = Path(sys.executable).with_name("nlmeans.exe" if sys.platform == "win32" else "nlmeans")
    done = subprocess.run([command, *words], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == expect, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


site = Path(nlmeans.__file__).parents[1]
assert site.name == "site-packages", f"{site}: not the installed package"
installed = {distribution.name.lower() for distribution in metadata.distributions()}
assert not installed & set(OPTIONAL), f"a bare installation brings {installed & set(OPTIONAL)}"

about = metadata.distribution("nlmeans")
assert about.metadata["License-Expression"] == "Apache-2.0"
assert any(file.name == "LICENSE" for file in about.files or ()), "the licence is not in the wheel"
packages = {file.parts[0] for file in about.files or () if file.suffix == ".py"}
assert packages == {"nlmeans", "monai_transforms", "napari_nlm"}, packages
for package in packages:
    assert (site / package / "py.typed").is_file(), f"{package} has no py.typed"
(plugin,) = (entry for entry in about.entry_points if entry.group == "napari.manifest")
module, _, manifest = plugin.value.partition(":")
assert (site / module / manifest).is_file(), f"{plugin.value}: no such file"

for name, facts in samples.truth().items():
    noisy, clean = (np.asarray(nibabel.load(samples.path(file)).dataobj) for file in (name, facts["clean"]))
    assert noisy.shape == clean.shape
scan, clean = (np.asarray(nibabel.load(samples.path(name)).dataobj) for name in ("slice", "slice_clean"))
denoised = nlmeans.denoise(scan, noise="rician")
assert denoised.dtype == scan.dtype
assert np.abs(denoised - clean).mean() < np.abs(scan - clean).mean()

assert nlmeans.__version__ in run("--version")
assert "cpu: fused kernel" in run("info")
assert "sigma" in run("noise", str(samples.path("slice")), "--noise", "rician")
assert "gain" in run("demo")
for file in ("head_denoised.nii.gz", "head_denoised.json", "head.png"):
    assert Path("nlmeans-demo", file).is_file(), file
Path("series").mkdir()
Path("series", "1.dcm").write_bytes(bytes(128) + b"DICM")
assert "nlmeans[dicom]" in run("denoise", "series", "out.nii.gz", expect=1), "DICOM's error does not name the remedy"
assert not Path("out.nii.gz").exists()
print(f"nlmeans {about.version} works by itself: {len(installed)} distributions")
