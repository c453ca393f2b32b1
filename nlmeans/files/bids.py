"""Find the images of a BIDS dataset, and name their derivatives (https://bids-specification.readthedocs.io)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nlmeans.core import checks
from nlmeans.files.paths import one_line

DESCRIPTION = "dataset_description.json"

MAGNITUDE = (
    *("T1w", "T2w", "PDw", "T2starw", "FLAIR", "PDT2", "inplaneT1", "inplaneT2", "angio", "MEGRE", "MESE", "VFA"),
    *("IRT1", "dwi", "bold", "sbref", "cbv", "asl", "m0scan"),
)
"""Suffixes of MR magnitude images."""

OTHERS = ("UNIT1", "pet", "ct")
"""Suffixes of other images that contain noise."""

SUFFIXES = (*MAGNITUDE, *OTHERS)
"""Suffixes of all images that can be denoised, in contrast to maps, masks and phase images."""

USUAL = ("T1w", "T2w", "PDw", "T2starw", "FLAIR", "dwi")
"""Suffixes of the images that are denoised by default."""

LONGEST_SIDECAR = 16 * 2**20
"""Bytes."""


@dataclass(frozen=True)
class BidsImage:
    """An image of a BIDS dataset."""

    root: Path
    path: Path
    """A path inside `root`. Links are not resolved: in a DataLad dataset every image is a link."""

    @property
    def entities(self) -> dict[str, str]:
        """The entities in the file name: {"sub": "01"} for sub-01_T1w.nii.gz."""
        parts = self.stem.split("_")[:-1]
        return dict(part.partition("-")[::2] for part in parts)

    @property
    def suffix(self) -> str:
        """The last part of the file name: T1w for sub-01_T1w.nii.gz."""
        return self.stem.split("_")[-1]

    @property
    def stem(self) -> str:
        return stem(self.path)

    @property
    def relative(self) -> Path:
        return self.path.relative_to(self.root)

    @property
    def modality(self) -> str | None:
        """DICOM's code of what made the image. Of magnetic resonance, only magnitude images count."""
        if self.suffix in MAGNITUDE:
            return "MR" if self.entities.get("part", "mag") == "mag" else None
        return {"pet": "PT", "ct": "CT"}.get(self.suffix)

    @property
    def derivative(self) -> Path:
        """Path of the denoised image in the derivative dataset. Its name has ``desc-denoised`` before the suffix."""
        parts = [part for part in self.stem.split("_") if not part.startswith("desc-")]
        name = "_".join([*parts[:-1], "desc-denoised", parts[-1]])
        return self.relative.with_name(name + ".nii.gz")

    def associated(self, ending: str) -> list[Path]:
        """List the files with this ending that apply to the image, by BIDS' inheritance principle; the nearest last.

        Such a file lies in the folder of the image or in one above. It has the same suffix, and no entity that the
        image lacks.
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
        """The entries of all sidecars that apply. A nearer sidecar overrides one farther up."""
        facts: dict[str, Any] = {}
        for file in self.associated(".json"):
            facts |= read_json(file)
        return facts

    @property
    def about_derivative(self) -> dict[str, Any]:
        """Entries for the sidecar of the derivative: the metadata of the scan, and its source."""
        raw = {"SkullStripped": False} if self.path.parent.name == "anat" else {}
        sources = [f"bids:raw:{self.relative.as_posix()}"]
        return {**raw, **self.metadata, "Description": "Denoised by non-local means", "Sources": sources}


def stem(path: Path) -> str:
    """The file name without any ending.

    >>> stem(Path("sub-01_T1w.nii.gz"))
    'sub-01_T1w'
    """
    return path.name.partition(".")[0]


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        ValueError, TypeError: the file cannot be read, holds no JSON object, or is too long; the message names it.
    """
    try:
        if not file.is_file():
            raise ValueError("it is not a regular file")
        if file.stat().st_size > LONGEST_SIDECAR:
            raise ValueError(f"it is longer than {LONGEST_SIDECAR} bytes, the most that a sidecar may have")
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {one_line(error)}") from error
    return checks.json_object(str(file), text)


def is_dataset(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


def dataset_images(root: Path) -> Iterator[BidsImage]:
    """Find the images of all participants and sessions that can be denoised, sorted by path."""
    from nlmeans.files.formats import nifti  # imports nibabel

    for path in sorted(path for ending in nifti.ENDINGS for path in root.glob(f"sub-*/**/*{ending}")):
        image = BidsImage(root, path)
        if image.suffix in SUFFIXES and image.entities.get("part") != "phase":
            yield image


def selected_images(
    root: Path, suffixes: tuple[str, ...] = (), participants: tuple[str, ...] = (), sessions: tuple[str, ...] = ()
) -> list[BidsImage]:
    """Select images of a dataset by suffix, participant and session.

    Args:
        root: folder of the dataset.
        suffixes: such as ``bold``; none selects `USUAL`.
        participants: labels, with or without ``sub-``; none selects all.
        sessions: labels, with or without ``ses-``; none selects all.

    Raises:
        ValueError: the dataset has no image with one of these suffixes or labels, or no image is left.
    """
    found = list(dataset_images(root))
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
        has = ", ".join(sorted({image.suffix for image in found})) or "no known suffix"
        raise ValueError(
            f"{root} has no such image with suffix {', '.join(kept)}; it has {has}: choose one with --suffix"
        )
    return result


def labels(name: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """Labels without their ``sub-`` or ``ses-``.

    >>> labels("sub", ("sub-01", "02"))
    ('01', '02')
    """
    return tuple(label.removeprefix(f"{name}-") for label in given)


def derivative_description(root: Path, out: Path) -> dict[str, Any]:
    """Make the content of dataset_description.json for the derivatives of the dataset `root` in the folder `out`."""
    source = read_json(root / DESCRIPTION)
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
    """Path from the derivatives to their source, so that both can be moved together."""
    try:
        return Path(os.path.relpath(root.resolve(), out.resolve())).as_posix()
    except ValueError:  # on another drive
        return root.resolve().as_uri()
