"""The demo's workflows, in the form that ComfyUI's HTTP API takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SAMPLER_ID = "sampler"
OUTPUT_ID = "output"
MAPS_ID = "heat maps"


@dataclass(frozen=True)
class Settings:
    """What all workflows of one demo share. Without a checkpoint: the embedded model."""

    checkpoint: str | None
    source: str
    size: int
    images: int
    steps: int
    cfg: float
    seed: int


@dataclass(frozen=True)
class Panel:
    """One edited picture: how it is made, and what the sheet says about it."""

    title: str
    node: str  # P2PWordSwap or P2PRefine
    target: str
    words: str = ""
    scale: float = 1.0
    blend: tuple[str, str] | None = None  # words of source and target that mark the region
    threshold: float = 0.3  # of the blend


@dataclass(frozen=True)
class Workflow:
    """One prompt to queue: all its panels are made in one batch, beside their source."""

    name: str
    panels: tuple[Panel, ...]
    map_words: str = ""  # words whose heat maps are wanted

    @property
    def pictures(self) -> list[str]:
        """What a row of the result shows."""
        return ["source", *(panel.title for panel in self.panels)]

    def graph(self, settings: Settings) -> dict[str, Any]:
        """The workflow in the form that the API takes."""
        return build_graph(settings, self)


def build_graph(settings: Settings, workflow: Workflow) -> dict[str, Any]:
    """Model → edits → attention controller → ordinary sampler → pictures."""
    graph: dict[str, Any] = {}
    add_model(graph, settings)
    inputs: dict[str, Any] = {}
    for number, panel in enumerate(workflow.panels, start=1):
        name = "edit" if number == 1 else f"edit_{number}"
        inputs[name] = add_edit(graph, name, settings.source, panel)
    size = {"width": settings.size, "height": settings.size, "batch_size": settings.images}
    add(graph, "empty", "EmptyLatentImage", **size)
    add(
        graph,
        "controller",
        "P2PAttentionController",
        model=["model", 0],
        latent=["empty", 0],
        **inputs,
    )
    add(graph, "negative", "CLIPTextEncode", clip=["model", 1], text="")
    add_sampler(graph, settings)
    add(graph, "decode", "VAEDecode", samples=[SAMPLER_ID, 0], vae=["model", 2])
    prefix = workflow.name.replace(" ", "-")
    add(graph, OUTPUT_ID, "SaveImage", images=["decode", 0], filename_prefix=prefix)
    if workflow.map_words:
        wired = {"record": ["controller", 3], "samples": [SAMPLER_ID, 0], "image": ["decode", 0]}
        add(graph, "maps", "P2PAttentionMaps", words=workflow.map_words, **wired)
        add(graph, MAPS_ID, "SaveImage", images=["maps", 0], filename_prefix="heat-maps")
    return graph


def add(graph: dict[str, Any], node_id: str, class_type: str, **inputs: Any) -> list[Any]:
    graph[node_id] = {"class_type": class_type, "inputs": inputs}
    return [node_id, 0]


def add_model(graph: dict[str, Any], settings: Settings) -> None:
    if settings.checkpoint is None:
        add(graph, "model", "P2PDemoModel")
    else:
        add(graph, "model", "CheckpointLoaderSimple", ckpt_name=settings.checkpoint)


def add_edit(graph: dict[str, Any], name: str, source: str, panel: Panel) -> list[Any]:
    prompts = {"source_prompt": source, "target_prompt": panel.target}
    windows = {"cross_replace_steps": 0.8, "self_replace_steps": 0.4, "word_windows": ""}
    edit = add(graph, name, panel.node, clip=["model", 1], **prompts, **windows)
    if panel.words:
        scaled = {"words": panel.words, "scale": panel.scale}
        edit = add(graph, f"{name}_scaled", "P2PReweight", edit=edit, **scaled)
    if panel.blend:
        words = {"source_words": panel.blend[0], "target_words": panel.blend[1]}
        inputs = {"edit": edit, "threshold": panel.threshold, **words}
        edit = add(graph, f"{name}_blended", "P2PLocalBlendMask", **inputs)
    return edit


def add_sampler(graph: dict[str, Any], settings: Settings) -> None:
    add(
        graph,
        SAMPLER_ID,
        "KSampler",
        model=["controller", 0],
        positive=["controller", 1],
        latent_image=["controller", 2],
        negative=["negative", 0],
        **sampler_inputs(settings),
    )


def sampler_inputs(settings: Settings) -> dict[str, Any]:
    """The widgets of a KSampler."""
    return {
        "seed": settings.seed,
        "steps": settings.steps,
        "cfg": settings.cfg,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
