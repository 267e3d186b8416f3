"""Where inversion files lie in the host's folders, and what they may be called."""

from __future__ import annotations

import os
import time
import unicodedata
from functools import lru_cache
from pathlib import Path

import folder_paths

from ..compat import is_within_directory

FORMAT, SUFFIX = "p2p-inversion", ".safetensors"
READ_AHEAD = 4096  # bytes of a file in which its format must be named, to be listed
LONGEST_PART = 200  # bytes of a name; file systems take 255, and number and suffix come behind
RESERVED = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{i}" for port in ("COM", "LPT") for i in range(10)),
}


def listed_files() -> list[str]:
    """The inversions in the host's input folder and, as "name [output]", in its output folder."""
    second = int(time.monotonic())
    inputs = _found(folder_paths.get_input_directory(), second)
    outputs = _found(folder_paths.get_output_directory(), second)
    return [*inputs, *(f"{name} [output]" for name in outputs)]


def missing(file: str) -> str | None:
    """What is wrong with a file's name or place; None if there is such a file."""
    try:
        path = place(file)
    except ValueError as error:
        return str(error)
    if os.path.isdir(path):
        return f"{file!r} is a folder. Choose a file that P2P Save Inversion wrote."
    if not os.path.isfile(path):
        return (
            f"There is no file {file!r} in ComfyUI's input folder (for a file of the output "
            "folder, write its name with ' [output]' behind it). Reload the page's node "
            "definitions and choose one from the list."
        )
    return None


def file_state(file: str) -> str:
    """A text that changes when the file does."""
    if missing(file):
        return "missing"
    state = os.stat(place(file))
    return f"{state.st_mtime_ns} {state.st_size}"


def place(file: str) -> str:
    """Where a file lies; ValueError if that is outside the host's folders."""
    name, folder = folder_paths.annotated_filepath(file)
    folder = folder or folder_paths.get_input_directory()
    path = os.path.abspath(os.path.join(folder, name))
    if not is_within_directory(folder, path):
        raise ValueError(
            f"The file {file!r} is outside ComfyUI's input and output folders. Copy it into the "
            "input folder."
        )
    return path


@lru_cache(maxsize=2)
def _found(folder: str, second: int) -> tuple[str, ...]:
    """The inversions in a folder; the host asks ten times a prompt, and folders can be large."""
    paths = (
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.endswith(SUFFIX)
    )
    return tuple(sorted(p.relative_to(folder).as_posix() for p in paths if _names_format(p)))


def _names_format(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return f'"{FORMAT}"'.encode() in file.read(READ_AHEAD)
    except OSError:
        return False


def checked_name(name: str) -> str:
    """The name without blanks around it; ValueError if it cannot be used on every system."""
    name = name.strip()
    if why := _flaw(name):
        raise ValueError(
            f"The name {name!r} cannot be used for a file: {why}. Write a name such as 'cat', or "
            "'p2p/cat' for a folder inside ComfyUI's output folder."
        )
    return name


def _flaw(name: str) -> str | None:
    parts = name.split("/")
    for character in name:
        if character in '\\:*?"<>|' or unicodedata.category(character) in ("Cc", "Cs"):
            return f"it contains the character {character!r}"
    if not name:
        return "it is empty"
    if ".." in parts or name.startswith("/"):
        return "it leads out of the output folder"
    for part in parts:
        if not part or part[-1] in ". " or len(part.encode()) > LONGEST_PART:
            return "a part of it is empty, too long, or ends with a dot or a blank"
        if part.split(".")[0].rstrip().upper() in RESERVED:
            return f"{part!r} is a device on Windows"
    output = folder_paths.get_output_directory()
    if not is_within_directory(output, os.path.join(output, *parts[:-1])):
        return "it leads out of the output folder"
    return None
