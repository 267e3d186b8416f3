"""Where the versions of ComfyUI that the pack runs on differ; nothing else asks for a version."""

from __future__ import annotations

from pathlib import Path


def is_within_directory(folder: str, path: str) -> bool:
    """Whether a path lies in a folder once links are followed; a path that is none does not.

    Newer hosts have it in folder_paths.
    """
    try:
        return Path(path).resolve().is_relative_to(Path(folder).resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a null character
        return False
