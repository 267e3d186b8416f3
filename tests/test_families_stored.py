"""Edits on transformers whose weights are stored in eight bits, or whose blocks are compiled."""

from __future__ import annotations

import json

import pytest
import torch
import torch._dynamo
from comfy.quant_ops import QUANT_ALGOS
from comfy_api.torch_helpers import set_torch_compile_wrapper
from families import refiners, streams
from families.edits import (
    CASES,
    SWAP,
    Case,
    How,
    check_exact,
    controlled,
    edited,
    expected,
    latent_of,
    model_of,
    plain,
    sampled,
)
from families.tiny import Family
from host_run import Graph, Host
from newer_host import skip
from scenes import distance
from torch import Tensor
from torch._dynamo.utils import counters

pytestmark = pytest.mark.usefixtures("host", "models")
each_family = pytest.mark.parametrize(
    ("family", "case"),
    [(streams.QWEN_IMAGE, SWAP), (refiners.Z_IMAGE, CASES[3]), (streams.FLUX_DEV, CASES[3])],
    ids=["Qwen-Image", "Z-Image", "Flux.1"],
)


def quantised(weights: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Linear layers of blocks in eight bits with one scale each, as in ComfyUI's own files."""
    found, largest = {}, 448.0 if kind.startswith("float8") else 127.0
    told = torch.tensor(list(json.dumps({"format": kind}).encode()), dtype=torch.uint8)
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        if layer == name or weight.ndim != 2 or "blocks" not in name and "layers" not in name:
            found[name] = weight
            continue
        scale = weight.abs().max().float() / largest
        values = weight / scale
        stored = QUANT_ALGOS[kind]["storage_t"]
        found[name] = (values.round() if stored == torch.int8 else values).to(stored)
        found[f"{layer}.weight_scale"], found[f"{layer}.comfy_quant"] = scale, told
    return found


@each_family
@pytest.mark.parametrize("kind", ["float8_e4m3fn", "int8_tensorwise"])
def test_layers_in_eight_bits(family: Family, case: Case, kind: str) -> None:
    """Whole numbers also round what a layer is given, so that a last digit can move a picture."""
    if kind not in QUANT_ALGOS:
        skip(f"layers of kind {kind}")
    with torch.inference_mode():  # as the host's own loaders run
        model = family.load(stored=lambda weights: quantised(weights, kind))
    how = How(model=model)
    if kind.startswith("float8"):
        check_exact(family, case, how)
        return
    made, wanted = edited(family, [case], how), expected(family, case, how)
    assert distance(made[:1], wanted[:1]) < 1e-4
    assert distance(made[1:], wanted[1:]) < 0.1 * distance(
        wanted[1:], plain(family, case.target, how)
    )


@each_family
def test_weights_that_the_loader_rounds(family: Family, case: Case) -> None:
    """UNETLoader's fp8_e4m3fn."""
    model = family.load(dtype=torch.float8_e4m3fn)
    check_exact(family, case, How(model=model))


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("float8_e4m3fn", 1e-4), ("int8_tensorwise", 1e-2)]
)
def test_a_kept_source(kind: str, tolerance: float) -> None:
    """What whole numbers round a layer's input to hangs on the rows beside it."""
    if kind not in QUANT_ALGOS:
        skip(f"layers of kind {kind}")
    family = refiners.Z_IMAGE
    with torch.inference_mode():
        model = family.load(stored=lambda weights: quantised(weights, kind))
    graph, host, how = Graph(), Host(), How(steps=4, model=model)
    latent = graph.value({"samples": latent_of(family, 1)})
    wired = {"model": graph.value(model), "latent": latent, "keep": "full", "steps": 4}
    kept = graph.add("P2PKeepSource", **wired, budget=8.0)
    made = []
    for case, source in ((CASES[0], kept), (CASES[3], kept), (CASES[3], None)):
        control = controlled(graph, family, [case], how, latent, kept_source=source)
        link = sampled(graph, family, how, control, control[1], control[2])
        made.append(host.run(graph, link)["samples"])
    assert distance(made[1], made[2]) < tolerance
    assert distance(made[1][1], made[0][1]) > 3 * tolerance


def test_a_compiled_model() -> None:
    family, case = streams.QWEN_IMAGE, SWAP
    model = model_of(family).clone()
    set_torch_compile_wrapper(model=model, backend="eager")
    torch._dynamo.reset()
    counters.clear()
    made = edited(family, [case], How(model=model))
    assert counters["stats"]["unique_graphs"] > 0
    torch._dynamo.reset()
    assert distance(made, edited(family, [case])) < 1e-5
