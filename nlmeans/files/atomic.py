"""Write files and folders completely or not at all, however the run ends."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from nlmeans.files import lock


@contextlib.contextmanager
def written_together(*paths: Path, folders: Collection[Path] = (), overwrite: bool = True) -> Iterator[list[Path]]:
    """Yield temporary paths to write to, and rename all of them at the end, or none if anything fails.

    Runs that write the same path take turns. Each first removes what a killed run left.

    If the process is killed while it renames, the first file is the old one or the new one, complete. The other files
    are then either missing or from the same run as the first, because they describe it.

    Args:
        paths: files to write.
        folders: those of `paths` that become folders; their temporary paths are empty folders.
        overwrite: replace what exists.

    Yields:
        One temporary path for each of `paths`, next to it and with the same ending.

    Raises:
        FileExistsError: `overwrite` is False, and one of `paths` exists by the time of renaming.
        OSError: writing failed, for instance because the disk is full. Nothing was changed.
    """
    try:
        with contextlib.ExitStack() as stack:
            for path in sorted(paths):
                if stack.enter_context(lock.held(path.with_name(f"{temporary_prefix(path)}.lock"), path)):
                    clear_leftovers(path)
            temporary = []
            for path in paths:
                temporary.append(temporary_path(path, path in folders))
                stack.callback(remove, temporary[-1])
            yield temporary
            for source in temporary:
                source.chmod((0o777 if source.is_dir() else 0o666) & ~current_umask())
                sync(source, *source.rglob("*"))
            if not overwrite:
                for path in paths:
                    if path.is_file() or (path.is_dir() and any(path.iterdir())):
                        raise FileExistsError(f"{path} was made by another run meanwhile; it stays as it is")
            put_in_place(temporary, paths)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(f"{paths[0]} cannot be written: {error.strerror or error}; {remedy(error)}") from error


def temporary_prefix(path: Path) -> str:
    """Start of the names of all temporary files for `path`. It is short even if the name of `path` is long."""
    return f".nlmeans-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}"


def clear_leftovers(path: Path) -> None:
    """Remove temporary files for `path` that a killed run left. The caller must hold the lock of `path`."""
    remove(*path.parent.glob(f"{temporary_prefix(path)}-*"))


def temporary_path(path: Path, folder: bool) -> Path:
    """Make an empty file or folder next to `path`. Its name has the ending of `path`, which chooses the format."""
    prefix = f"{temporary_prefix(path)}-"
    if folder:
        return Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=path.parent))
    double = path.suffix == ".gz" or path.suffixes[-2:-1] == [".ome"]
    ending = "".join(path.suffixes[-2:]) if double else path.suffix
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=f".partial{ending}", dir=path.parent)
    os.close(handle)
    return Path(name)


def sync(*paths: Path) -> None:
    """Wait until files, and the names listed in folders, are on the disk.

    Errors of writing then show before anything is renamed, and a power cut cannot leave a renamed file empty. Windows
    and some network file systems cannot do this for folders.
    """
    for path in paths:
        if os.name == "nt" and path.is_dir():
            continue
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
                raise
        finally:
            os.close(descriptor)


def put_in_place(temporary: Sequence[Path], paths: Sequence[Path]) -> None:
    """Rename all temporary paths, or none.

    The first path is replaced in one step. The others are moved away before it and appear after it, so that none of
    them ever lies next to a first file from another run.
    """
    kept: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        for path in reversed(paths):
            if os.path.lexists(path):
                kept.append((path, path.with_name(f"{temporary_prefix(path)}-{os.getpid()}.old")))
                set_aside(*kept[-1], stay=path == paths[0])
        for source, path in zip(temporary, paths, strict=True):
            placed.append(path)
            source.replace(path)
    except BaseException:
        remove(*set(placed) - {path for path, _ in kept})
        for path, old in kept:
            if os.path.lexists(old):
                if path.is_dir():
                    remove(path)
                old.replace(path)
                remove(old)  # renaming does nothing if both names belong to the same file
        raise
    remove(*(old for _, old in kept))


def set_aside(path: Path, old: Path, stay: bool) -> None:
    """Rename `path` to `old`. With `stay`, give a file a second name instead, if the file system supports links."""
    if stay and path.is_file() and not path.is_symlink():
        with contextlib.suppress(OSError):
            os.link(path, old)
            return
    path.rename(old)


def remove(*paths: Path) -> None:
    """Remove files and folders. What does not exist or cannot be removed is skipped."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def remedy(error: OSError) -> str:
    """What the user can do about an error of writing."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "nothing was changed: make room there, or choose another folder"
    if error.errno == errno.ENOENT:
        return "its folder is no longer there: make it again, or choose another"
    return "nothing was changed: choose another folder"


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
