"""The file formats by their endings: which library each needs, and what it cannot hold.

This module names the modules of the formats and imports them when a file is read or written, so that formats can be
listed without any of their libraries.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlmeans.files.paths import check_regular, errors_naming, sha256

if TYPE_CHECKING:
    import numpy.typing as npt

    from nlmeans.files.formats.nifti import Scan


@dataclass(frozen=True)
class Format:
    """A file format. Its module has ``read_file(path)``, and ``write_file(image, path, name)`` if files can be written.

    Both deal in images of NIfTI, whose ``extra`` may keep what only the format itself can hold. `name` is what the log
    calls the file, which is written under a temporary path.
    """

    name: str
    endings: tuple[str, ...]
    """Of file names; empty for folders."""
    library: str
    """Package that reads it."""
    home: str
    """Module, below `nlmeans.files`."""
    extra: str | None = None
    """Extra of `nlmeans` that installs the library; None for what is always there, or in no extra."""
    limits: str = ""
    """What it cannot hold or do, in a few words."""
    writes: bool = True
    second: tuple[str, ...] = ()
    """Those of the endings whose files only accompany others."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Endings that are written as two files: that of the named file, that of the other."""
    packages: str = ""
    """What installs the library, if no extra does."""

    @property
    def available(self) -> bool:
        """Whether its library is installed."""
        return importlib.util.find_spec(self.library) is not None

    @property
    def remedy(self) -> str:
        """How to install its library."""
        return f"needs {self.library}: pip install {self.install}"

    @property
    def install(self) -> str:
        """What pip is told to install."""
        return self.packages or f'"nlmeans[{self.extra}]"'

    def needed(self, path: Path) -> contextlib.AbstractContextManager[None]:
        """Say what to install for `path` if an import inside the block fails."""
        purpose = "read or write it" if self.writes else "read it"
        return needs_packages(self.install, f"{path} is {self.name}; to {purpose}")

    def module(self, path: Path) -> Any:
        """Import its module.

        Raises:
            ValueError: the library is missing.
        """
        with self.needed(path):
            importlib.import_module(self.library)
            return importlib.import_module(f"nlmeans.files.{self.home}")


FORMATS = (
    Format("NIfTI", (".nii.gz", ".nii"), "nibabel", "formats.nifti"),
    Format(
        "NIfTI pair, Analyze",
        (".hdr", ".img"),
        "nibabel",
        "formats.nifti",
        limits="written as a NIfTI pair; Analyze itself has no orientation",
        second=(".img",),
        pairs=((".hdr", ".img"), (".img", ".hdr")),
    ),
    Format("DICOM", (), "highdicom", "formats.dicom.series", "dicom", "a folder; integers alone"),
    Format("OME-Zarr", (".zarr",), "zarr", "zarr.denoise", "zarr", "a folder; made of zarr images alone"),
    Format(
        "NRRD",
        (".nrrd", ".nhdr"),
        "SimpleITK",
        "formats.itk",
        "formats",
        pairs=((".nhdr", ".raw"),),
    ),
    Format(
        "MetaImage",
        (".mha", ".mhd"),
        "SimpleITK",
        "formats.itk",
        "formats",
        "no complex numbers",
        pairs=((".mhd", ".raw"),),
    ),
    Format(
        "FreeSurfer", (".mgz", ".mgh"), "nibabel", "formats.freesurfer", limits="neither float64 nor complex numbers"
    ),
    Format("MINC", (".mnc",), "nibabel", "formats.minc", limits="only read; MINC2 needs h5py", writes=False),
    Format(
        "TIFF, ImageJ, OME-TIFF",
        (".ome.tif", ".ome.tiff", ".tif", ".tiff"),
        "tifffile",
        "formats.tiff",
        "formats",
        "neither orientation nor position",
    ),
    Format("numpy", (".npy",), "numpy", "formats.npy", limits="no geometry"),
    *(
        Format(
            name,
            endings,
            f"bioio_{reader}",
            "formats.microscopy",
            limits="only read",
            writes=False,
            packages=f"bioio bioio-{reader}",
        )
        for name, endings, reader in (
            ("Zeiss CZI", (".czi",), "czi"),
            ("Leica LIF", (".lif",), "lif"),
            ("Nikon ND2", (".nd2",), "nd2"),
            ("DeltaVision", (".dv", ".r3d"), "dv"),
            ("SlideBook", (".sldy",), "sldy"),
        )
    ),
    Format(
        "PAR/REC, AFNI, ECAT",
        (".par", ".rec", ".head", ".brik", ".brik.gz", ".v"),
        "nibabel",
        "formats.nifti",
        limits="only read",
        writes=False,
        second=(".rec", ".brik", ".brik.gz"),
    ),
)
"""All formats, the most usual first."""

DICOM_NAMES = (".dcm", ".ima")
"""Endings of the names of DICOM files, where they have any."""

NIFTI, OTHERS_OF_NIBABEL = FORMATS[0], FORMATS[-1]

WRITTEN = tuple(ending for one in FORMATS if one.writes and one.endings != (".zarr",) for ending in one.endings)
"""Endings of the files that can be written."""

LISTED = tuple(
    ending for one in FORMATS if one.endings != (".zarr",) for ending in one.endings if ending not in one.second
)
"""Endings of the files that a folder stands for."""


@contextlib.contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Say which extra to install if an import inside the block fails.

    >>> with needs_extra("dicom", "in is a folder; to read the DICOM series in it"):
    ...     import no_such_package
    Traceback (most recent call last):
    ValueError: in is a folder; to read the DICOM series in it, install: pip install "nlmeans[dicom]"
    """
    with needs_packages(f'"nlmeans[{extra}]"', purpose):
        yield


@contextlib.contextmanager
def needs_packages(packages: str, purpose: str) -> Iterator[None]:
    """Say which packages to install if an import inside the block fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"{purpose}, install: pip install {packages}") from error


def format_of(path: Path | str) -> Format | None:
    """The format that the ending of a file name stands for; None if it stands for none.

    >>> format_of("scan.ome.tif").name, format_of("scan.txt")
    ('TIFF, ImageJ, OME-TIFF', None)
    """
    return next((one for one in FORMATS if ending_of(path, one.endings)), None)


def ending_of(path: Path | str, endings: Sequence[str]) -> str:
    """The ending of a file name that is one of these, whatever the case; empty if none is."""
    name = Path(path).name.lower()
    return next((ending for ending in endings if name.endswith(ending)), "")


def without_ending(name: str) -> str:
    """A file name without the ending of its format.

    >>> without_ending("scan.1.nii.gz"), without_ending("scan.ome.tif"), without_ending("scan.1")
    ('scan.1', 'scan', 'scan.1')
    """
    known = format_of(name)
    return name[: len(name) - len(ending_of(name, known.endings))] if known else name


def load_scan(path: Path, complex_too: bool = False) -> Scan:
    """Read an image file of any format, and check that it can be denoised.

    Args:
        path: the file.
        complex_too: accept complex numbers as well.

    Raises:
        OSError: there is no such file, or it is a folder.
        ValueError, TypeError: the format is not known or its library is missing; or the file is damaged, or not an
            image with such numbers.
    """
    from nlmeans.files.formats.nifti import scan_of

    check_regular(path)
    known = format_of(path)
    module = (known or OTHERS_OF_NIBABEL).module(path)
    try:
        with errors_naming(path):
            image = module.read_file(path)
    except ValueError as error:
        if known is None:
            raise ValueError(
                f"{path} is in no format that nlmeans knows by its ending or that nibabel recognises; convert it, or "
                f"give it the right ending: {', '.join(LISTED)}"
            ) from error
        raise
    return scan_of(path, image, complex_too)


def save_scan(scan: Scan, data: npt.NDArray[Any], path: Path, files: Sequence[Path], keep_type: bool = True) -> None:
    """Write values in the place of those of a scan, in the format of the ending of `path`.

    Args:
        scan: where geometry and header come from.
        data: values with the shape of the scan, or of one volume of its series.
        path: the file that the result is for.
        files: temporary files to write to, one for each of `files_of(path)`.
        keep_type: store the type of `scan`, as far as the format has it; otherwise float32 or complex64.
    """
    from nlmeans.files.formats.nifti import image_like, is_scaled

    is_nifti = (format_of(path) or NIFTI).home == NIFTI.home
    write_format(image_like(scan, data, keep_type and (is_nifti or not is_scaled(scan.image))), path, files)


def write_format(image: Any, path: Path, files: Sequence[Path]) -> None:
    """Write an image of NIfTI in the format of the ending of `path`, to temporary files as in `save_scan`."""
    module = (format_of(path) or NIFTI).module(path)
    if len(files) == 1:
        module.write_file(image, files[0], path)
        return
    with tempfile.TemporaryDirectory(prefix=files[0].name, dir=path.parent) as folder:
        names = files_of(path)
        module.write_file(image, Path(folder, names[0].name), path)
        for name, file in zip(names, files, strict=True):
            Path(folder, name.name).replace(file)


def files_of(path: Path) -> list[Path]:
    """The files that an image is written to: one, or a header and its voxels.

    >>> [file.name for file in files_of(Path("scan.mhd"))]
    ['scan.mhd', 'scan.raw']
    """
    known = format_of(path)
    other = next((second for first, second in known.pairs if ending_of(path, [first])), None) if known else None
    return [path] if other is None else [path, path.with_suffix(other)]


def hash_of(path: Path, places: Mapping[Path, Path] | None = None) -> str:
    """Hash an image: its file, or all files that it is written to.

    Args:
        path: the file that is named.
        places: where these files lie, if not yet under their names.
    """
    files = files_of(path) if path.suffix and not path.is_dir() else [path]
    lying = [file if places is None else places.get(file, file) for file in files]
    hashes = [sha256(file) for file in lying if file.exists()]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def check_written(path: Path) -> None:
    """Raise ``ValueError`` unless a file of this name can be written here."""
    known = format_of(path)
    if known is not None and not known.writes:
        raise ValueError(f"{path}: {known.name} can be read but not written; choose another ending, such as .nii.gz")
    if known is not None and ending_of(path, WRITTEN):
        known.module(path)
