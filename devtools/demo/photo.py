"""A photograph through inversion into an edit: one workflow for each method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from devtools.demo.graphs import OUTPUT_ID, SAMPLER_ID, Panel, Settings, add, add_edit, add_model


@dataclass(frozen=True)
class PhotoWorkflow:
    """One prompt to queue: the photograph's reconstruction, and its edit.

    inner_steps: of a null-text optimisation, 0 for negative-prompt inversion. pinned: direct
    inversion. noise: one fixed noise instead of DDIM inversion.
    """

    name: str
    photo: str  # file name in the input folder
    panel: Panel
    inner_steps: int | None = None
    pinned: bool = False
    noise: bool = False

    @property
    def panels(self) -> tuple[Panel, ...]:
        return (self.panel,)

    @property
    def pictures(self) -> list[str]:
        return ["reconstruction", self.panel.title]

    def graph(self, settings: Settings) -> dict[str, Any]:
        """Photograph → inversion → edit → attention controller → ordinary sampler → pictures."""
        graph: dict[str, Any] = {}
        add_model(graph, settings)
        model: list[Any] = ["model", 0]
        add(graph, "photo", "LoadImage", image=self.photo)
        latent = add(graph, "encode", "VAEEncode", pixels=["photo", 0], vae=["model", 2])
        add(graph, "source", "CLIPTextEncode", clip=["model", 1], text=settings.source)
        negative = add(graph, "negative", "CLIPTextEncode", clip=["model", 1], text="")
        self._invert(graph, settings, model, latent)
        if self.inner_steps is not None:
            model, negative = self._null_text(graph, settings)
        pinned = {"inversion": ["inversion", 0]} if self.pinned else {}
        add(
            graph,
            "controller",
            "P2PAttentionController",
            model=model,
            latent=["inversion", 1],
            edit=add_edit(graph, "edit", settings.source, self.panel),
            **pinned,
        )
        self._sample(graph, settings, negative)
        add(graph, "decode", "VAEDecode", samples=[SAMPLER_ID, 0], vae=["model", 2])
        prefix = self.name.replace(" ", "-")
        add(graph, OUTPUT_ID, "SaveImage", images=["decode", 0], filename_prefix=prefix)
        return graph

    def _invert(
        self, graph: dict[str, Any], settings: Settings, model: list[Any], latent: list[Any]
    ) -> None:
        inputs = {"latent": latent, "model": model, "steps": settings.steps, "scheduler": "normal"}
        if self.noise:
            add(graph, "inversion", "P2PNoiseInvert", seed=settings.seed, **inputs)
        else:
            add(graph, "inversion", "P2PDDIMInvert", positive=["source", 0], **inputs)

    def _null_text(self, graph: dict[str, Any], settings: Settings) -> tuple[list[Any], list[Any]]:
        add(
            graph,
            "null text",
            "P2PNullTextOptimize",
            model=["model", 0],
            inversion=["inversion", 0],
            positive=["source", 0],
            negative=["negative", 0],
            cfg=settings.cfg,
            inner_steps=self.inner_steps,
            learning_rate=1e-2,
            early_stop=1e-5,
        )
        return ["null text", 0], ["null text", 1]

    def _sample(self, graph: dict[str, Any], settings: Settings, negative: list[Any]) -> None:
        add(
            graph,
            SAMPLER_ID,
            "KSamplerAdvanced",
            model=["controller", 0],
            positive=["controller", 1],
            latent_image=["controller", 2],
            negative=negative,
            add_noise="disable",
            noise_seed=settings.seed,
            steps=settings.steps,
            cfg=settings.cfg,
            sampler_name="euler",
            scheduler="normal",
            start_at_step=0,
            end_at_step=settings.steps,
            return_with_leftover_noise="disable",
        )


def photo_workflows(photo: str, panel: Panel, blended: Panel) -> list[PhotoWorkflow]:
    """The same edit by every method, from the plainest to the most faithful."""
    return [
        PhotoWorkflow("DDIM", photo, panel),
        PhotoWorkflow("negative-prompt", photo, panel, inner_steps=0),
        PhotoWorkflow("null-text", photo, panel, inner_steps=10),
        PhotoWorkflow("direct", photo, panel, pinned=True),
        PhotoWorkflow("noise + blend", photo, blended, pinned=True, noise=True),
    ]
