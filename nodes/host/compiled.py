"""Beside torch.compile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import MethodType

import torch
from torch.nn import Module


def original(network: Module) -> Module:
    """The network that a compiled one was made of, or itself."""
    return getattr(network, "_orig_mod", network)


@contextmanager
def eagerly() -> Iterator[None]:
    """While it lasts, compiled networks run as if they were not: a trial is not worth a graph."""
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def uncompiled(method: MethodType) -> MethodType:
    """A method that a compiled network calls as it is, without compiling it.

    What an attention override does differs from call to call and from step to step, and a graph
    would be built anew for each.
    """
    if "torch._dynamo" not in sys.modules:  # nobody compiles, and importing it takes seconds
        return method
    return MethodType(_left_alone(method.__func__), method.__self__)


@cache
def _left_alone(function: Callable) -> Callable:
    return torch.compiler.disable(function)
