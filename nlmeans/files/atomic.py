"""Files and folders that are there whole or not at all, whatever ends the run that writes them."""

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


def check_folder(path: Path) -> None:
    """Refuse, before any work, to make `path` where nothing could be written after it."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder for {path.name}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent}: this folder may not be written to; choose another for {path.name}")


@contextlib.contextmanager
def written_together(*paths: Path, folders: Collection[Path] = (), overwrite: bool = True) -> Iterator[list[Path]]:
    """Temporary names beside `paths`, to write to; all take their place at the end, or none if anything fails.

    Those of `paths` that are in `folders` are empty folders to write into. Runs that write the same path take turns,
    and what a killed one has left is removed. The first of `paths`, a file, is always there whole, if it was; the
    others, which say something of it, are never there from another run than it, also when the process is killed.

    Raises:
        FileExistsError: without `overwrite`, one of `paths` is there by now.
        OSError: the disk is full, the folder gone, and so on; all is as it was before.
    """
    try:
        with contextlib.ExitStack() as stack:
            for path in sorted(paths):
                if stack.enter_context(lock.held(path.with_name(f"{hidden(path)}.lock"), path)):
                    clear(path)
            temporary = []
            for path in paths:
                temporary.append(made(path, path in folders))
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


def hidden(path: Path) -> str:
    """How the names of all begin that lies beside `path` only while it is written; short, however long its own is."""
    return f".nlmeans-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}"


def clear(path: Path) -> None:
    """Remove what a killed run has left beside `path`; for who alone writes it."""
    remove(*path.parent.glob(f"{hidden(path)}-*"))


def made(path: Path, folder: bool) -> Path:
    """An empty file or folder that can become `path`, with the ending that chooses the format."""
    if folder:
        return Path(tempfile.mkdtemp(prefix=f"{hidden(path)}-", suffix=".partial", dir=path.parent))
    ending = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    handle, name = tempfile.mkstemp(prefix=f"{hidden(path)}-", suffix=f".partial{ending}", dir=path.parent)
    os.close(handle)
    return Path(name)


def sync(*paths: Path) -> None:
    """Return once files, and what folders say of the names in them, are on the disk.

    So that an error shows now, and no loss of power makes an empty file of a renamed one. Windows and some network file
    systems cannot be told so of folders.
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
    """Rename all or none.

    The first path is replaced in one step. The others are moved away before and appear after it, so that at no moment
    one of them lies beside a first that it does not belong to.
    """
    kept: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        for path in reversed(paths):
            if os.path.lexists(path):
                kept.append((path, path.with_name(f"{hidden(path)}-{os.getpid()}.old")))
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
                remove(old)  # a second name of the same file is not renamed
        raise
    remove(*(old for _, old in kept))


def set_aside(path: Path, old: Path, stay: bool) -> None:
    """Give what is at `path` another name; with `stay`, of a file and where links are possible, a second one."""
    if stay and path.is_file() and not path.is_symlink():
        with contextlib.suppress(OSError):
            os.link(path, old)
            return
    path.rename(old)


def remove(*paths: Path) -> None:
    """Files and folders, if they are there."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def remedy(error: OSError) -> str:
    """What to do about an error of writing."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "nothing was changed: make room there, or choose another folder"
    if error.errno == errno.ENOENT:
        return "its folder is no longer there: make it again, or choose another"
    return "nothing was changed: choose another folder"


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
