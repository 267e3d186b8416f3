"""The pack without a server or a page: for benchmarks, training programs, tests and research.

Runs in ComfyUI's own environment (`python dev.py python -- script.py`):

    from headless import Pack

    pack = Pack()
    model, clip, vae = pack.demo_model()
    latent = pack.empty_latent(128, 128)
    run = pack.edit(model, clip, "a cat on the grass", "a dog on the grass", latent)
    samples = pack.sample(run.model, run.positive, pack.text(clip, ""), run.latent, cfg=6.0)
    source, edited = pack.decode(vae, samples)

What a node does is `pack.node("P2PWordSwap", clip=clip, …)`: the outputs of that node, called with
these inputs, with the node's own defaults and errors.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parent


class Controlled(NamedTuple):
    """What P2P Attention Controller gives: (model, positive, latent, record)."""

    model: Any
    positive: list
    latent: dict
    record: Any


class Inverted(NamedTuple):
    """What the inversion nodes give: (inversion, latent, sigmas)."""

    inversion: Any
    latent: dict
    sigmas: Any


class Pack:
    """The registered nodes of ComfyUI and of this pack, called in this process without a graph."""

    def __init__(self, progress: bool = False) -> None:
        """progress: whether samplers show a bar in the console."""
        self.host = host_nodes()
        load_pack(REPOSITORY, "custom_nodes")
        import comfy.utils

        comfy.utils.PROGRESS_BAR_ENABLED = progress

    def node(self, name: str, **inputs: Any) -> Any:
        """The outputs of one node of the pack."""
        return self.host.NODE_CLASS_MAPPINGS[name].execute(**inputs).args

    def demo_model(self, variant: str = "text to image") -> tuple[Any, Any, Any]:
        """The embedded model's (model, clip, vae)."""
        return self.node("P2PDemoModel", variant=variant)[:3]

    def checkpoint(self, path: Path) -> tuple[Any, Any, Any]:
        """A checkpoint file's (model, clip, vae), wherever it lies."""
        import comfy.sd

        return comfy.sd.load_checkpoint_guess_config(str(path))[:3]

    def clip_vision(self, path: Path) -> Any:
        """The image encoder in a file, as CLIPVisionLoader gives it."""
        import comfy.clip_vision

        return comfy.clip_vision.load(str(path))

    def text_encoder(self, path: Path, kind: str = "stable_diffusion") -> Any:
        """The text encoder in a file, as CLIPLoader gives it. kind: that node's type."""
        import comfy.sd

        known = comfy.sd.CLIPType.__members__
        if kind.upper() not in known:
            raise ValueError(f"There is no type {kind!r}. Known: {', '.join(known).lower()}.")
        return comfy.sd.load_clip([str(path)], clip_type=known[kind.upper()])

    def text(self, clip: Any, prompt: str) -> list:
        """A CONDITIONING of one prompt, as CLIPTextEncode gives it."""
        return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))

    def empty_latent(self, width: int, height: int, batch: int = 1) -> dict:
        """A LATENT of zeros for pictures of this size in pixels."""
        return self.host.EmptyLatentImage().generate(width, height, batch)[0]

    def edit(
        self,
        model: Any,
        clip: Any,
        source_prompt: str,
        target_prompts: str | Sequence[str],
        latent: dict,
        refine: bool = False,
        inversion: Any = None,
        record_maps: bool = False,
        **options: Any,
    ) -> Controlled:
        """Edits of one source under control. options: of the edit node, such as windows."""
        targets = [target_prompts] if isinstance(target_prompts, str) else target_prompts
        name = "P2PRefine" if refine else "P2PWordSwap"
        prompts = ({"source_prompt": source_prompt, "target_prompt": target} for target in targets)
        edits = [self.node(name, clip=clip, **prompt, **options)[0] for prompt in prompts]
        return self.control(model, latent, edits, inversion, record_maps)

    def control(
        self,
        model: Any,
        latent: dict,
        edits: Sequence[Any],
        inversion: Any = None,
        record_maps: bool = False,
    ) -> Controlled:
        """Finished edits (P2P_EDIT) under control, in one batch with their source."""
        names = ["edit", *(f"edit_{number}" for number in range(2, len(edits) + 1))]
        wired = dict(zip(names, edits, strict=True))
        more = {"inversion": inversion, "record_maps": record_maps}
        return Controlled(
            *self.node("P2PAttentionController", model=model, latent=latent, **wired, **more)
        )

    def invert(
        self, model: Any, positive: list, latent: dict, steps: int = 50, scheduler: str = "normal",
        **options: Any,
    ) -> Inverted:  # fmt: skip
        """DDIM inversion of pictures under their prompt."""
        inputs = {"model": model, "positive": positive, "latent": latent, "steps": steps}
        return Inverted(*self.node("P2PDDIMInvert", scheduler=scheduler, **inputs, **options))

    def sample(
        self, model: Any, positive: list, negative: list, latent: dict, seed: int = 0,
        steps: int = 20, cfg: float = 7.5, sampler: str = "euler", scheduler: str = "normal",
    ) -> dict:  # fmt: skip
        """The LATENT that a KSampler makes."""
        settings = (steps, cfg, sampler, scheduler, positive, negative, latent)
        return self.host.common_ksampler(model, seed, *settings)[0]

    def decode(self, vae: Any, latent: dict) -> Any:
        """Pictures (B, H, W, 3) in 0…1."""
        return vae.decode(latent["samples"])

    def encode(self, vae: Any, pictures: Any) -> dict:
        """The LATENT of pictures (B, H, W, 3) in 0…1."""
        return {"samples": vae.encode(pictures[..., :3])}


def host_nodes() -> Any:
    """ComfyUI's own module of nodes, which this repository's package of that name must not hide."""
    here = ("", str(REPOSITORY))
    sys.path[:] = [path for path in sys.path if path not in here] + [str(REPOSITORY)]
    return importlib.import_module("nodes")


def load_pack(path: Path, parent: str) -> None:
    """Register a pack's nodes, or a file of the host's own, as ComfyUI does when it starts."""
    if not asyncio.run(host_nodes().load_custom_node(str(path), module_parent=parent)):
        raise RuntimeError(f"ComfyUI could not load {path}; its log says why.")
