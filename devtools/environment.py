"""The development environment: where it lies, whether it is whole, and how it is brought about.

Everything lies in one cache folder outside the clone, one environment per set of pins. A stamp,
written last, tells a whole environment; without it the folder is made anew, so that an
interrupted set-up heals itself. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import install
from .host_shim import machine_has_accelerator
from .pip_runner import SetupError

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIREMENTS = REPOSITORY / "requirements-dev.txt"
SHIM = REPOSITORY / "devtools" / "host_shim.py"
CACHE_VARIABLE = "P2P_DEV_CACHE"
GIGABYTES = {False: 4, True: 14}  # needed for a CPU and for an accelerated environment


def cache_folder() -> Path:
    """The user's cache folder for this project, as the platform has it."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().resolve()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "comfyui-p2p-dev"


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the host beside it, in one folder.

    base: the environment whose packages this one uses beside its own; its folder lies in there.
    """

    folder: Path
    base: Environment | None = None

    @property
    def python(self) -> Path:
        windows = sys.platform == "win32"
        return self.folder / "venv" / ("Scripts/python.exe" if windows else "bin/python")

    @property
    def host(self) -> Path:
        return self.folder / "ComfyUI"

    @property
    def site_packages(self) -> Path:
        version = ".".join(map(str, sys.version_info[:2]))
        inside = "Lib" if sys.platform == "win32" else f"lib/python{version}"
        return self.folder / "venv" / inside / "site-packages"

    @property
    def stamp(self) -> Path:
        return self.folder / "complete"

    @property
    def log(self) -> Path:
        return self.folder.parent / f"{self.folder.name}.log"

    def is_whole(self) -> bool:
        """Whether set-up came to its end and nothing large has gone missing since."""
        torch = (self.base or self).site_packages / "torch"
        parts = (self.stamp, self.python, self.host / "main.py", torch)
        return all(part.exists() for part in parts)

    def has_tools(self) -> bool:
        return self.stamp.read_text(encoding="utf-8") == digest(REQUIREMENTS.read_bytes())


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def current_environment() -> Environment:
    """The environment of this checkout's pins, for this Python, machine and accelerator."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    machine = sys.platform, platform.machine(), machine_has_accelerator()
    return Environment(cache_folder() / f"py{version}-{digest(machine, install.PINS)}")


def ensure_environment() -> Environment:
    """The whole environment: at once when it is there, else made or completed, with progress."""
    environment = current_environment()
    if not (environment.is_whole() and environment.has_tools()):
        with setting_up(environment):
            set_up(environment)
    install.place_shim(environment.site_packages, environment.host, SHIM)
    return environment


def set_up(environment: Environment) -> None:
    """Make the environment, or only renew its tools; the stamp goes first and comes last."""
    if environment.is_whole():
        if not environment.has_tools():  # else made by the set-up we waited for
            renew_tools(environment)
        return
    if environment.folder.exists():
        install.say("Removing an environment that is incomplete …")
        remove(environment.folder)
    make(environment)
    install.install_tools(environment.python, REQUIREMENTS, environment.log)
    environment.stamp.write_text(digest(REQUIREMENTS.read_bytes()), encoding="utf-8")


def renew_tools(environment: Environment) -> None:
    """The tools' versions have changed; when they cannot be had, the old ones stay in use."""
    stamp = environment.stamp.read_text(encoding="utf-8")
    environment.stamp.unlink()
    try:
        install.install_tools(environment.python, REQUIREMENTS, environment.log)
        stamp = digest(REQUIREMENTS.read_bytes())
    finally:  # only a kill leaves no stamp
        environment.stamp.write_text(stamp, encoding="utf-8")


def make(environment: Environment) -> None:
    accelerated = machine_has_accelerator()
    environment.folder.mkdir(parents=True)
    free = shutil.disk_usage(environment.folder).free / 1e9
    if free < GIGABYTES[accelerated]:
        raise SetupError(
            f"The disk of {environment.folder} is too full ({free:.1f} GB free, about "
            f"{GIGABYTES[accelerated]} GB needed); free some space, or choose another folder "
            f"with {CACHE_VARIABLE}."
        )
    install.say(f"Setting up the development environment in {environment.folder} (once)")
    environment.log.unlink(missing_ok=True)
    start = time.monotonic()
    install.create_venv(environment.folder / "venv", environment.python, environment.log)
    install.say("[2/5] ComfyUI")
    install.download_host(environment.python, environment.host, install.ARCHIVE, environment.log)
    install.install_torch(environment.python, accelerated, environment.log)
    install.install_host_packages(environment.python, environment.host, environment.log)
    install.disarm_torchaudio(environment.site_packages)
    install.say(f"ComfyUI and torch are in place after {time.monotonic() - start:.0f} s")


def remove(folder: Path) -> None:
    """Delete a folder; the stamp first, so that an interruption leaves nothing half whole."""
    (folder / "complete").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise SetupError(
            f"{folder} is incomplete and cannot be removed; is something still running from it?"
        )


@contextmanager
def setting_up(environment: Environment) -> Iterator[None]:
    """One set-up at a time; a disk that cannot be written is told in a sentence."""
    try:
        with only_one_setup(environment.folder.parent):
            yield
    except OSError as error:
        raise SetupError(
            f"The environment in {environment.folder} cannot be written ({error}); free the "
            f"disk, or choose another folder with {CACHE_VARIABLE}."
        ) from error


@contextmanager
def only_one_setup(folder: Path) -> Iterator[None]:
    """A lock that the operating system gives back even when the process is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        waiting = False
        while not try_lock(file):
            if not waiting:
                install.say("Another set-up is running; waiting for it …")
            waiting = True
            time.sleep(1)
        yield


def try_lock(file) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
