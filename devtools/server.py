"""Starts the real ComfyUI with this clone in it. Standard library only."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

from .environment import REPOSITORY, Environment

PACK_NAME = "comfyui-p2p"
FOLDERS = ("custom_nodes", "input", "output", "temp", "user", "models/checkpoints")


def prepare_base_folder(base: Path) -> Path:
    """A folder for ComfyUI's models, inputs, outputs and settings, with the clone as a pack."""
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    link_folder(REPOSITORY, base / "custom_nodes" / PACK_NAME)
    return base


def link_folder(target: Path, link: Path) -> None:
    """Point link to the target folder; on Windows a junction, which needs no special rights."""
    if link.exists() and link.resolve() == target:
        return
    if sys.platform == "win32":
        import _winapi

        if os.path.lexists(link):
            link.rmdir()
        _winapi.CreateJunction(str(target), str(link))
    else:
        link.unlink(missing_ok=True)
        link.symlink_to(target, target_is_directory=True)


def link_file(target: Path, link: Path) -> None:
    """The file under another name; a copy where the system allows no link."""
    try:
        link.symlink_to(target)
    except OSError:
        try:
            os.link(target, link)
        except OSError:
            shutil.copyfile(target, link)


def server_command(
    environment: Environment, base: Path, port: int, more: list[str] | None = None
) -> list[str]:
    """What starts ComfyUI on the base folder."""
    database = (base / "user" / "comfyui.db").as_posix()
    return [
        str(environment.python),
        str(environment.host / "main.py"),
        *("--port", str(port), "--base-directory", str(base)),
        *("--database-url", f"sqlite:///{database}", "--disable-auto-launch"),
        *(more or []),
    ]


def free_port() -> int:
    """A port of this machine that nothing listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
