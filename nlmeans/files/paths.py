"""Checks of input and output paths before any work, and hashes of files."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line, or the name of its type if it has no message.

    >>> one_line(ValueError("first line\\n  second line")), one_line(MemoryError())
    ('first line second line', 'MemoryError')
    """
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Turn every error inside the block into one that names the file: readers of damaged files raise anything."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"{path} does not fit into free memory: {error}") from error
    except Exception as error:
        if isinstance(error, ValueError | TypeError | OSError) and str(error).startswith(str(path)):
            raise
        if isinstance(error, FileNotFoundError) and error.filename and path.exists():
            raise FileNotFoundError(
                f"{path} needs the file {Path(error.filename).name}, which is not there; put both into one folder"
            ) from error
        raise ValueError(
            f"{path} cannot be read; it may be damaged or not an image: {' '.join(str(error).split())}"
        ) from error


def check_exists(*sources: Path | None) -> None:
    """Raise ``FileNotFoundError`` if there is nothing at one of the paths; None stands for no path."""
    for source in sources:
        if source is not None and not source.exists():
            raise FileNotFoundError(f"{source}: no such file or folder")


def check_regular(path: Path) -> None:
    """Raise an error unless the path is that of a regular file: reading a pipe or a device may never end."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name the file in it")
    check_exists(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file; copy its content to one and name that")


def existing(source: str) -> Iterator[Path]:
    """Iterate over the path, or over those that match it as a pattern such as ``scans/**/*.nii.gz``.

    Raises:
        FileNotFoundError: there are none.
    """
    path = Path(source)
    found = iter([path]) if path.exists() else Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))
    first = next(found, None)
    if first is None:
        raise FileNotFoundError(f"{source}: no such file, folder or match")
    yield first
    yield from found


def check_folder(path: Path) -> None:
    """Raise ``OSError`` if `path` cannot be created because its folder does not exist or may not be written to."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder for {path.name}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} may not be written to; choose another folder for {path.name}")


def check_output_file(path: Path, overwrite: bool, endings: Sequence[str]) -> None:
    """Raise an error if the output file cannot be written.

    Args:
        path: the file to write.
        overwrite: whether it may exist already.
        endings: the name must end in one of these.

    Raises:
        ValueError: the name has another ending.
        OSError: the folder does not exist or may not be written to; `path` is a folder, or exists without `overwrite`.
    """
    if not path.name.endswith(tuple(endings)):
        raise ValueError(f"{path} must end in {' or '.join(endings)}")
    check_folder(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; choose another name")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or add --overwrite")


def real_path(path: Path) -> Path:
    """Follow all links in a path.

    `Path.resolve` is not used because it raises RuntimeError for a link that leads to itself.
    """
    return Path(os.path.realpath(path))


def apart(one: Path, other: Path) -> bool:
    """Whether two paths differ and neither lies inside the other.

    >>> apart(Path("scans/a"), Path("scans/b")), apart(Path("scans"), Path("scans/b"))
    (True, False)
    """
    here, there = real_path(one), real_path(other)
    return here != there and here not in there.parents and there not in here.parents


def is_zarr(path: Path) -> bool:
    """Whether a path is the folder of a zarr group or array."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def sha256(path: Path) -> str:
    """Hash a file. The hash of a folder is that of the hashes of its files, sorted by path."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
