"""Lives in the development environment, started by a .pth file: makes the host usable there.

1. The host's modules win over equally named ones of the working directory: `import nodes`
   is ComfyUI's, although this repository has a package of that name.
2. Outside its own main program the host does not read its command line, so without an
   accelerator it must be told to use the CPU.
3. A CUDA build of torchvision beside a CPU build of torch cannot register its operators;
   with their schemas declared first, it imports.

Standard library only, and nothing heavy happens before one of these modules is imported.
"""

from __future__ import annotations

import shutil
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

HOST = Path(sys.prefix).parent / "ComfyUI"
NOT_THE_HOSTS = {"tests"}  # the host has a package of this name too
TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library = None  # holds the declared operators, which live as long as it


def machine_has_accelerator() -> bool:
    """Whether torch has something better than the CPU here: NVIDIA, or Apple silicon."""
    if sys.platform == "darwin":
        import platform

        return platform.machine() == "arm64"
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()


def built_for_cuda(package: str) -> bool:
    """Whether an installed package of the torch family is a CUDA build, without importing it."""
    spec = PathFinder.find_spec(package)
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.exists() and "+cu" in version.read_text(encoding="utf-8")


class CpuArguments(SourceFileLoader):
    """Loads the host's `comfy.cli_args` and sets its --cpu flag."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.args.cpu = True


class HostFinder:
    """A meta path finder that stands before the one for `sys.path`."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name == "comfy.cli_args" and not machine_has_accelerator():
            file = HOST / "comfy" / "cli_args.py"
            return spec_from_file_location(name, file, loader=CpuArguments(name, str(file)))
        if name == "torchvision":
            declare_torchvision_operators()
        if path is not None or name in NOT_THE_HOSTS:
            return None
        spec = PathFinder.find_spec(name, [str(HOST)])
        return spec if spec is not None and spec.origin is not None else None


def declare_torchvision_operators() -> None:
    """Only where torch has no CUDA and torchvision expects it; once, however often it is sought."""
    global _library
    import torch

    if _library is None and torch.version.cuda is None and built_for_cuda("torchvision"):
        library = torch.library.Library("torchvision", "DEF")
        for schema in TORCHVISION_SCHEMAS:
            library.define(schema)
        _library = library


def install() -> None:
    place = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0
    sys.meta_path.insert(place, HostFinder())


if __name__ == "p2p_host_shim" and HOST.is_dir():  # its name in the environment
    install()
