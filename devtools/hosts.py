"""Older versions of ComfyUI for the tests: each with its own few packages over the newest's.

An older host's environment lies inside the newest one's folder and sees that one's packages behind
its own, so torch is there once. Standard library only.
"""

from __future__ import annotations

import subprocess
import sys

from . import install
from .environment import SHIM, Environment, digest, ensure_environment, remove, setting_up
from .pip_runner import SetupError

RECIPE = "1"


def ensure_host(version: str) -> Environment:
    """The whole environment of a version, "oldest" and "newest" included; else SetupError."""
    version = {"oldest": install.OLDEST, "newest": install.NEWEST}.get(version, version)
    if version not in install.HOSTS:
        raise SetupError(
            f"ComfyUI {version} is not among the hosts that the tests know; choose oldest, newest "
            f"or one of {', '.join(install.HOSTS)}."
        )
    newest = ensure_environment()
    if version == install.NEWEST:
        return newest
    environment = Environment(newest.folder / "hosts" / version, base=newest)
    if not _is_whole(environment):
        with setting_up(environment):
            if not _is_whole(environment):  # else made by the set-up we waited for
                _make(environment, newest, install.HOSTS[version])
    install.place_shim(environment.site_packages, environment.host, SHIM, newest.site_packages)
    return environment


def _stamp(environment: Environment) -> str:
    return digest(install.HOSTS[environment.folder.name], RECIPE)


def _is_whole(environment: Environment) -> bool:
    whole = environment.is_whole()
    return whole and environment.stamp.read_text(encoding="utf-8") == _stamp(environment)


def _make(environment: Environment, newest: Environment, archive: str) -> None:
    if environment.folder.exists():
        remove(environment.folder)
    environment.folder.mkdir(parents=True)
    environment.log.unlink(missing_ok=True)
    install.say(f"Setting up ComfyUI {environment.folder.name} in {environment.folder} (once)")
    venv = environment.folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    install.download_host(newest.python, environment.host, archive, environment.log)
    install.install_differences(
        newest.python, environment.host, newest.host, environment.site_packages, environment.log
    )
    environment.stamp.write_text(_stamp(environment), encoding="utf-8")
