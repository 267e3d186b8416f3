"""Files that are whole or not there, and a lock that dies with its process."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

UNFINISHED = ".unfinished"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(Exception):
    """Nothing more can be written; what was finished before is whole."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one run in a folder at a time; ValueError for the second one."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise ValueError(
            f"Another run is writing into {folder}. Wait for it, or choose another folder."
        ) from error


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under another name and rename it once it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with unfinished.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if error.errno in FULL:
            raise DiskFull(f"{path} cannot be written: {error.strerror}.") from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """A whole file of these bytes."""
    write_whole(path, lambda file: file.write(content))


def remove_unfinished(folder: Path) -> None:
    """What a killed run left behind."""
    for path in folder.rglob(f"*{UNFINISHED}"):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    """The rename itself reaches the disk, where folders can be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
