"""A compiled network stays compiled under an edit: a graph for each kind of step, not for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention as host_attention
import pytest
import torch._dynamo
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers import set_torch_compile_wrapper
from host_run import run
from scenes import Edit, Settings, distance, scene
from tiny_model import shared_unet
from torch._dynamo.utils import counters

pytestmark = pytest.mark.usefixtures("host")


def test_graphs_are_counted_by_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the attention that GPUs use; the host's choice for a CPU breaks every graph itself."""
    for name in ("optimized_attention", "optimized_attention_masked"):
        monkeypatch.setattr(host_attention, name, host_attention.attention_pytorch)
    graphs: list[int] = []

    def count(executor: Callable, *args: Any, **kwargs: Any) -> Any:
        out = executor(*args, **kwargs)
        graphs.append(counters["stats"]["unique_graphs"])
        return out

    edit = Edit("swap", "a photo of a blue dog on a bench", cross=0.5, self_=0.5)
    settings = Settings(steps=6, width=64, height=64)
    model = shared_unet().clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "count", count)
    set_torch_compile_wrapper(model=model, backend="eager")
    torch._dynamo.reset()
    counters.clear()
    found = []
    for patched in (model, shared_unet()):
        s = scene(settings, model=patched)
        control = s.control(edit, record_maps=False)
        found.append(run(s.graph, s.sample(control, control[1], control[2]))["samples"])
    torch._dynamo.reset()
    assert graphs == [1, 1, 1, 2, 2, 2]
    assert distance(*found) < 1e-5
