"""The templates for transformers, each run as the page would, with a tiny model of its family."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
from families import refiners, streams
from families.pictured import SmallVae
from families.tiny import Family
from host_run import Graph, Link, run
from scenes import distance
from text_encoders import make_encoder
from torch import Tensor
from ui_graphs import WORKFLOWS, api_graph, load_workflow

from devtools.templates_models import SETTINGS, SOURCE, Setting, file_stem
from devtools.templates_pictures import QWEN_IMAGE_EDIT

pytestmark = pytest.mark.usefixtures("host")
TINY: dict[str, tuple[Family, str, dict[str, int]]] = {
    "z_image_turbo": (refiners.Z_IMAGE, "Z-Image", {"qwen3_4b": 2560}),
    "krea_2_turbo": (streams.KREA2, "Krea 2", {"qwen3vl_4b": 80}),
    "qwen_image_2512": (streams.QWEN_IMAGE, "Qwen-Image", {"qwen25_7b": 3584}),
    "qwen_image_edit_2509": (streams.QWEN_IMAGE, "Qwen-Image", {"qwen25_7b": 3584}),
    "flux_2_klein": (streams.KLEIN, "Klein", {"qwen3_4b": 2560}),
    "flux_1_dev": (streams.FLUX_DEV, "Flux.1", {"t5xxl": 4096, "clip_l": 768}),
}
every_model = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
SIDE, STEPS = 128, 2


@cache
def loaded(key: str) -> tuple[Any, Any]:
    family, encoder, widths = TINY[key]
    return family.load(), make_encoder(encoder, **widths)


def sampled(technique: str, setting: Setting, **inputs: Any) -> Tensor:
    """The latents that the template decodes, small, in two steps. inputs: of our sampled node."""
    api = copy.deepcopy(
        api_graph(load_workflow(WORKFLOWS / f"{file_stem(technique, setting)}.json"))
    )
    model, clip = loaded(setting.key)
    graph = Graph()
    stand_ins = {"UNETLoader": model, "CLIPLoader": clip, "DualCLIPLoader": clip}
    stand_ins["VAELoader"] = SmallVae()
    for name, node in list(api.items()):
        if node["class_type"] in stand_ins:
            held = stand_ins[node["class_type"]]
            graph.values[str(id(held))] = held
            api[name] = {"class_type": "TestValue", "inputs": {"key": str(id(held))}}
        if node["class_type"] in ("P2PPromptWeights", "P2PAttentionController"):
            node["inputs"].update(inputs)
        for size in ("width", "height"):
            if size in node["inputs"]:
                node["inputs"][size] = SIDE
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = STEPS
    [decode] = [node for node in api.values() if node["class_type"] == "VAEDecode"]
    graph.prompt = {name: node for name, node in api.items() if not _shows(node)}
    return run(graph, Link(*decode["inputs"]["samples"]))["samples"]


def _shows(node: dict) -> bool:
    return node["class_type"] in ("VAEDecode", "PreviewImage")


@every_model
def test_templates_of_transformers_run(setting: Setting) -> None:
    """Weights act; source and edit differ, and the source is the picture of its prompt alone."""
    weighted = sampled("word_weights", setting)
    assert distance(weighted, sampled("word_weights", setting, strength=0.0)) > 1e-4
    source, edited = sampled("word_swap", setting)
    [alone] = sampled("word_weights", setting, text=SOURCE)
    assert distance(source, alone) < 1e-5
    assert distance(edited, source) > 1e-3


def test_the_template_with_a_picture_runs() -> None:
    source, edited = sampled("picture_swap", QWEN_IMAGE_EDIT)
    [alone] = sampled("picture_swap", QWEN_IMAGE_EDIT, enabled=False)
    assert distance(source, alone) < 1e-5
    assert distance(edited, source) > 1e-4


def test_files_are_named_and_linked_where_their_loaders_look() -> None:
    folders = {"UNETLoader": "diffusion_models", "VAELoader": "vae"}
    made = [(name, own) for own in SETTINGS for name in ("word_weights", "word_swap")]
    for technique, setting in (*made, ("picture_swap", QWEN_IMAGE_EDIT)):
        file = WORKFLOWS / f"{file_stem(technique, setting)}.json"
        nodes = load_workflow(file)["nodes"]
        loaders = [node for node in nodes if node["type"].endswith("Loader")]
        notes = [node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote"]
        for node in loaders:
            for model in node["properties"]["models"]:
                assert model["name"] in node["widgets_values"]
                assert model["directory"] == folders.get(node["type"], "text_encoders")
                assert model["url"].endswith(model["name"])
                assert any(model["url"] in note for note in notes)
        assert len(loaders) == 3
        assert [0, 0] in [node["pos"] for node in nodes if node["type"] == "MarkdownNote"]
