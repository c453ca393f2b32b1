"""What a BIDS dataset holds, and what its derivatives are called (bids-specification.readthedocs.io)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nlmeans.core import checks
from nlmeans.files import nifti

DESCRIPTION = "dataset_description.json"

MAGNITUDE = (
    *("T1w", "T2w", "PDw", "T2starw", "FLAIR", "PDT2", "inplaneT1", "inplaneT2", "angio", "MEGRE", "MESE", "VFA"),
    *("IRT1", "dwi", "bold", "sbref", "cbv", "asl", "m0scan"),
)
"""Suffixes of MR magnitude images, whose noise is Rician."""

OTHERS = ("UNIT1", "pet", "ct")

SUFFIXES = (*MAGNITUDE, *OTHERS)
"""Of images with noise in them; not of maps, masks and phases."""

USUAL = ("T1w", "T2w", "PDw", "T2starw", "FLAIR", "dwi")
"""What is denoised if nothing is said."""


@dataclass(frozen=True)
class Image:
    """An image of a BIDS dataset."""

    root: Path
    path: Path
    """Inside `root`, without links resolved: in a DataLad dataset every image is one."""

    @property
    def entities(self) -> dict[str, str]:
        parts = self.stem.split("_")[:-1]
        return dict(part.partition("-")[::2] for part in parts)

    @property
    def suffix(self) -> str:
        return self.stem.split("_")[-1]

    @property
    def stem(self) -> str:
        return stem(self.path)

    @property
    def relative(self) -> Path:
        return self.path.relative_to(self.root)

    @property
    def noise(self) -> str:
        """The usual kind of noise in such an image."""
        magnitude = self.suffix in MAGNITUDE and self.entities.get("part", "mag") == "mag"
        return "rician" if magnitude else "gaussian"

    @property
    def derivative(self) -> Path:
        """The name of what is made of it, inside the derivative dataset: ``desc-denoised`` before the suffix."""
        parts = [part for part in self.stem.split("_") if not part.startswith("desc-")]
        name = "_".join([*parts[:-1], "desc-denoised", parts[-1]])
        return self.relative.with_name(name + ".nii.gz")

    def beside(self, ending: str) -> list[Path]:
        """Files that say something of this image, the nearest last: the inheritance principle of BIDS.

        Such a file lies in the same folder or one above it, has the same suffix, and no entity that the image lacks.
        """
        found: list[Path] = []
        mine = set(self.stem.split("_")[:-1])
        for folder in reversed([self.path.parent, *self.path.parent.parents]):
            if folder == self.root or self.root in folder.parents:
                matching = [
                    file
                    for file in folder.glob(f"*{self.suffix}{ending}")
                    if stem(file).split("_")[-1] == self.suffix and set(stem(file).split("_")[:-1]) <= mine
                ]
                found += sorted(matching, key=lambda file: len(file.name))
        return found

    @property
    def metadata(self) -> dict[str, Any]:
        """What its sidecars say, of which nearer ones overrule those farther up."""
        facts: dict[str, Any] = {}
        for file in self.beside(".json"):
            facts |= read_object(file)
        return facts

    @property
    def about_derivative(self) -> dict[str, Any]:
        """What the sidecar of the derivative says: what the scanner did holds on, and where it comes from."""
        raw = {"SkullStripped": False} if self.path.parent.name == "anat" else {}
        sources = [f"bids:raw:{self.relative.as_posix()}"]
        return {**raw, **self.metadata, "Description": "Denoised by non-local means", "Sources": sources}


def stem(path: Path) -> str:
    return path.name.partition(".")[0]


def read_object(file: Path) -> dict[str, Any]:
    """Raises ``ValueError`` or ``TypeError`` with the name of a file that is no JSON object, or far too long."""
    try:
        if not file.is_file():
            raise ValueError("it is no regular file")
        if file.stat().st_size > LONGEST_SIDECAR:
            raise ValueError(f"it is longer than the {LONGEST_SIDECAR} bytes that a sidecar may have")
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    return checks.json_object(str(file), text)


LONGEST_SIDECAR = 16 * 2**20


def is_dataset(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


def images(root: Path) -> Iterator[Image]:
    """The images of all participants and sessions that are intensities with noise, in the order of their names."""
    for path in sorted(path for ending in nifti.ENDINGS for path in root.glob(f"sub-*/**/*{ending}")):
        image = Image(root, path)
        if image.suffix in SUFFIXES and image.entities.get("part") != "phase":
            yield image


def selected(
    root: Path, suffixes: tuple[str, ...] = (), participants: tuple[str, ...] = (), sessions: tuple[str, ...] = ()
) -> list[Image]:
    """The images of a dataset with these suffixes, labels of participants, and labels of sessions.

    Raises:
        ValueError: a suffix or a label that the dataset does not have.
    """
    found = list(images(root))
    asked = {
        "suffix": ([image.suffix for image in found], suffixes),
        "sub": ([image.entities.get("sub", "") for image in found], labels("sub", participants)),
        "ses": ([image.entities.get("ses", "") for image in found], labels("ses", sessions)),
    }
    for name, (there, wanted) in asked.items():
        for word in wanted:
            if word not in there:
                raise ValueError(f"{root} has no image with {name} {word}; it has {', '.join(sorted(set(there)))}")
    kept = suffixes or USUAL
    result = [
        image
        for index, image in enumerate(found)
        if image.suffix in kept
        and all(there[index] in wanted for name, (there, wanted) in asked.items() if wanted and name != "suffix")
    ]
    if not result:
        has = ", ".join(sorted({image.suffix for image in found})) or "none that is known"
        raise ValueError(f"{root} has no such image with suffix {', '.join(kept)}; it has {has}: choose with --suffix")
    return result


def labels(name: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """Labels with or without their ``sub-`` or ``ses-``."""
    return tuple(label.removeprefix(f"{name}-") for label in given)


def description(root: Path, out: Path) -> dict[str, Any]:
    """What dataset_description.json of the derivatives says."""
    source = read_object(root / DESCRIPTION)
    facts = {
        "Name": f"{source.get('Name', root.resolve().name)}, denoised",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": "nlmeans", "Version": version("nlmeans"), "Description": "Denoising by non-local means"}
        ],
        "SourceDatasets": [{"URL": relative_url(root, out)}],
        "DatasetLinks": {"raw": relative_url(root, out)},
    }
    return facts | {name: source[name] for name in ("License", "Authors", "DatasetDOI") if name in source}


def relative_url(root: Path, out: Path) -> str:
    """Where the source lies as seen from the derivatives, so that both can be moved together."""
    try:
        return Path(os.path.relpath(root.resolve(), out.resolve())).as_posix()
    except ValueError:  # on another drive
        return root.resolve().as_uri()
