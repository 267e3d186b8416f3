"""Recognising a model: by its weights and LoRAs, whatever its precision and whatever runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable

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
def fingerprint(host: None) -> Callable[[ModelPatcher], str]:
    pack = host_nodes.NODE_CLASS_MAPPINGS["P2PDDIMInvert"].__module__.rpartition(".")[0]
    return importlib.import_module(f"{pack}.host.fingerprint").fingerprint


def of_precision(dtype: torch.dtype) -> ModelPatcher:
    """A model whose weights come from a checkpoint in fp16."""
    checkpoint = tiny_unet(dtype=torch.float16).model.diffusion_model.state_dict()
    model = tiny_unet(dtype=dtype, seed=3)
    model.model.diffusion_model.load_state_dict(checkpoint)
    assert next(model.model.diffusion_model.parameters()).dtype == dtype
    return model


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


def test_the_same_weights_in_every_precision(fingerprint: Callable) -> None:
    found = {fingerprint(of_precision(t)) for t in (torch.float32, torch.float16, torch.bfloat16)}
    assert len(found) == 1


def test_other_weights_differ(fingerprint: Callable) -> None:
    assert fingerprint(tiny_unet()) == fingerprint(tiny_unet())
    assert fingerprint(tiny_unet()) != fingerprint(tiny_unet(seed=3))


def test_loras_their_strengths_and_their_order(fingerprint: Callable) -> None:
    model = tiny_unet()
    first, second = with_lora(model, 0.5), with_lora(model, 0.5, seed=2)
    both = with_lora(first, 0.5, seed=2)
    found = [fingerprint(m) for m in (model, first, second, both, with_lora(model, 0.6))]
    assert len(set(found)) == len(found)
    assert fingerprint(with_lora(model, 0.5)) == fingerprint(first)


def test_loras_in_a_merged_model(fingerprint: Callable) -> None:
    """The merged-in weights carry their own LoRAs, with a strength each."""
    found = set()
    for strength in (0.5, 0.6):
        merged = tiny_unet().clone()
        other = with_lora(tiny_unet(seed=3), strength)
        patches = other.get_key_patches("diffusion_model.")
        merged.add_patches(dict(patches), 0.5, 0.5)
        found.add(fingerprint(merged))
    assert len(found) == 2


def test_it_stays_while_a_lora_is_loaded_and_afterwards(fingerprint: Callable) -> None:
    model = tiny_unet()
    patched = with_lora(model, 0.5)
    before = fingerprint(model), fingerprint(patched)
    weights = model.model_state_dict()[f"{LAYER}.weight"].clone()
    plain(SOURCE, SHORT, model=patched)
    assert not torch.equal(model.model_state_dict()[f"{LAYER}.weight"], weights)
    assert (fingerprint(model), fingerprint(patched)) == before
    plain(SOURCE, SHORT, model=model)
    assert (fingerprint(model), fingerprint(patched)) == before
