"""Recognising a model: by its weights and LoRAs, whatever its precision and whatever runs."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from host_run import host_nodes
from scenes import SOURCE, Settings, plain
from tiny_model import tiny_unet

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=2, width=64, height=64)
LAYER = "diffusion_model.middle_block.1.proj_in"


@pytest.fixture(scope="module")
def fingerprint(host: None) -> Callable[[ModelPatcher], Any]:
    pack = host_nodes.NODE_CLASS_MAPPINGS["P2PDDIMInvert"].__module__.rpartition(".")[0]
    return importlib.import_module(f"{pack}.host.fingerprint").fingerprint


def with_lora(model: ModelPatcher, strength: float, seed: int = 1) -> ModelPatcher:
    """As LoraLoaderModelOnly gives it."""
    rows, columns = model.model_state_dict()[f"{LAYER}.weight"].shape[:2]
    generator = torch.Generator().manual_seed(seed)
    lora = {
        f"{LAYER}.lora_up.weight": torch.randn(rows, 2, generator=generator),
        f"{LAYER}.lora_down.weight": torch.randn(2, columns, generator=generator),
    }
    patched = comfy.sd.load_lora_for_models(model, None, lora, strength, 0)[0]
    assert patched.patches
    return patched


PRECISIONS = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_same_weights_in_every_precision(fingerprint: Callable, dtype: torch.dtype) -> None:
    """Of a file in fp32, or of one that was stored in fp16."""
    weights = tiny_unet().model.diffusion_model.state_dict()
    whole = fingerprint(tiny_unet())
    for way in PRECISIONS[:2]:
        model = tiny_unet(seed=3)
        rounded = {name: weight.to(way).to(dtype) for name, weight in weights.items()}
        model.model.diffusion_model.load_state_dict(rounded, assign=True)
        assert next(model.model.diffusion_model.parameters()).dtype == dtype
        assert fingerprint(model).same(whole) and whole.same(fingerprint(model))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_fine_tuned_model_is_another(fingerprint: Callable, dtype: torch.dtype) -> None:
    """Weights that training moved by 2 % of themselves."""
    tuned, torch_generator = tiny_unet(), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in tuned.model.diffusion_model.parameters():
            weight *= 1 + 0.02 * torch.randn(weight.shape, generator=torch_generator)
    rounded = {k: w.to(dtype) for k, w in tuned.model.diffusion_model.state_dict().items()}
    model = tiny_unet()
    model.model.diffusion_model.load_state_dict(rounded, assign=True)
    assert not fingerprint(model).same(fingerprint(tiny_unet()))


def test_other_weights_differ(fingerprint: Callable) -> None:
    assert fingerprint(tiny_unet()).same(fingerprint(tiny_unet()))
    assert not fingerprint(tiny_unet()).same(fingerprint(tiny_unet(seed=3)))


def all_differ(found: list) -> bool:
    return not any(a.same(b) for a, b in itertools.combinations(found, 2))


def test_loras_their_strengths_and_their_order(fingerprint: Callable) -> None:
    model = tiny_unet()
    first, second = with_lora(model, 0.5), with_lora(model, 0.5, seed=2)
    both = with_lora(first, 0.5, seed=2)
    models = model, first, second, both, with_lora(model, 0.6)
    assert all_differ([fingerprint(m) for m in models])
    assert fingerprint(with_lora(model, 0.5)).same(fingerprint(first))


def test_the_strength_of_the_model_under_its_patches(fingerprint: Callable) -> None:
    """Nodes that merge models scale the weight itself, too."""
    found = []
    for strength_model in (1.0, 0.5):
        model = tiny_unet().clone()
        difference = torch.ones_like(model.model_state_dict()[f"{LAYER}.weight"])
        model.add_patches({f"{LAYER}.weight": ("diff", (difference,))}, 0.5, strength_model)
        found.append(fingerprint(model))
    assert all_differ(found)


def test_loras_in_a_merged_model(fingerprint: Callable) -> None:
    """The merged-in weights carry their own LoRAs, with a strength each."""
    found = []
    for strength in (0.5, 0.6):
        merged = tiny_unet().clone()
        other = with_lora(tiny_unet(seed=3), strength)
        patches = other.get_key_patches("diffusion_model.")
        merged.add_patches(dict(patches), 0.5, 0.5)
        found.append(fingerprint(merged))
    assert all_differ(found)


def test_it_stays_while_a_lora_is_loaded_and_afterwards(fingerprint: Callable) -> None:
    model = tiny_unet()
    patched = with_lora(model, 0.5)
    before, patched_before = fingerprint(model), fingerprint(patched)
    weights = model.model_state_dict()[f"{LAYER}.weight"].clone()
    plain(SOURCE, SHORT, model=patched)
    assert not torch.equal(model.model_state_dict()[f"{LAYER}.weight"], weights)
    assert fingerprint(model).same(before) and fingerprint(patched).same(patched_before)
    plain(SOURCE, SHORT, model=model)
    assert fingerprint(model).same(before) and fingerprint(patched).same(patched_before)
