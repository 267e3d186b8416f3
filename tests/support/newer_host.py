"""Model families that an older host does not have yet: their tests are skipped by name.

On an older host their modules import as stand-ins. Whatever is built from one inside a test skips
it and says what is missing. On the newest host a missing module stays an error.
"""

from __future__ import annotations

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from comfyui_version import __version__ as VERSION

from devtools.install import NEWEST

NEWER = {
    *(f"comfy.ldm.{name}" for name in ("boogu", "ernie", "ideogram4", "joyimage", "krea2", "lens")),
    *("comfy.ldm.mage_flow", "comfy.text_encoders.qwen35", "comfy.text_encoders.qwen3vl"),
    *(f"comfy.text_encoders.{name}" for name in ("boogu", "ideogram4", "joyimage", "krea2")),
    *("comfy.text_encoders.mage_flow", "comfy.ldm.hidream_o1", "comfy.text_encoders.hidream_o1"),
}


class Absent:
    """Something of a module that the host does not have."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.name}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Absent:
        if "PYTEST_CURRENT_TEST" in os.environ:
            skip(self.name)
        return self


class AbsentModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}")


class AbsentModules(MetaPathFinder, Loader):
    """Finds what nobody else has found."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        newer = name in NEWER or name.rpartition(".")[0] in NEWER
        return ModuleSpec(name, self, is_package=name in NEWER) if newer else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


def skip(name: str) -> None:
    """On the newest host it is a failure."""
    assert VERSION != NEWEST, f"ComfyUI {VERSION} has no {name}"
    pytest.skip(f"ComfyUI {VERSION} has no {name}")


def is_there(thing: Any) -> bool:
    return not isinstance(thing, (Absent, AbsentModule))


def install() -> None:
    """To be called before the first of these modules is imported."""
    if VERSION != NEWEST:
        sys.meta_path.append(AbsentModules())
