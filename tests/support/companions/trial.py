"""One companion beside an edit on one family: figures, one of our sentences, or a defect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from host_run import GraphError, Link, run
from oracle import make_plan, positive_rows
from scenes import SOURCE, Edit, Scene, Settings, distance, identity, scene
from tiny_checkpoints import shared
from torch import Tensor

from .companion import RESULT, SENTENCE, Companion
from .text_oracle import ByText

SWAP = Edit("swap", "a photo of a blue dog on a bench", scales=(("blue", 2.0),))
REFINE = Edit("refine", "a photo of a fluffy red cat asleep on a bench", cross=0.6)
EDITS = [SWAP, REFINE]
SETTINGS = Settings(steps=4)
DEFECT = "a defect"
SHOWS = 1e-3  # how far an edit is from its source at the least
FIRST_LEVEL = {"sd1": 0, "sd2": 0}  # of attention, by the family's name; SDXL's is the second


@dataclass(frozen=True)
class Outcome:
    """kind: a result, a sentence or a defect. figures: distances by name. text: the sentence, or
    what is wrong.
    """

    kind: str
    figures: Mapping[str, float] = field(default_factory=dict)
    text: str = ""


class Trial:
    """The graphs of one companion and one family."""

    def __init__(self, companion: Companion, family: str, settings: Settings = SETTINGS) -> None:
        self.companion, self.family = companion, family
        self.settings = settings.but(**companion.settings)
        self.model, self.clip = (companion.load or shared)(family)

    def outcome(self, more: Mapping[str, Companion]) -> Outcome:
        """more: where the companion finds its reference."""
        try:
            figures = self._figures(more)
        except GraphError as error:
            return self._said(error)
        wrong = [f"{k} is {v:.1e}" for k, v in figures.items() if not v <= self.companion.tolerance]
        if self.companion.expected == SENTENCE:
            wrong.append("nothing was said")
        return Outcome(DEFECT if wrong else RESULT, figures, ", ".join(wrong))

    def _said(self, error: GraphError) -> Outcome:
        text = str(error).partition(": ")[2]
        if not error.is_sentence:
            return Outcome(DEFECT, text=f"{error.kind} in {error.place}: {text}")
        if self.companion.expected == SENTENCE:
            return Outcome(SENTENCE, text=text)
        return Outcome(DEFECT, text=f"refused: {text}")

    def _figures(self, more: Mapping[str, Companion]) -> dict[str, float]:
        edits = [*EDITS, identity()]
        every = self._orders(edits)
        source, rows = self._plain(), every[0]
        figures = {"source": max(distance(found[0], source) for found in every)}
        figures["same words"] = max(distance(found[-1], found[0]) for found in every)
        if len(every) > 1:
            figures["order"] = max(distance(found, rows) for found in every[1:])
        if (reference := self.companion.reference) and reference in more:
            figures["edit"] = distance(
                rows, Trial(more[reference], self.family, self.settings)._orders(edits)[0]
            )
        elif self.companion.oracle:
            edits = EDITS
            if not self.companion.self_attention:
                edits = [edit_without_self(edit) for edit in EDITS]
                rows = self._orders(edits)[0]
            figures["edit"] = distance(rows[: 1 + len(edits)], self._oracle(edits))
        self._check_shown(every)
        return figures

    def _check_shown(self, every: list[Tensor]) -> None:
        for rows in every:
            assert bool(rows.isfinite().all()), "a result that is not finite"
            for row in rows[1 : 1 + len(EDITS)]:
                assert distance(row, rows[0]) > SHOWS, "an edit that does not show"

    def _scene(self) -> Scene:
        s = scene(self.settings, self.model, self.clip)
        if self.companion.clip is not None:
            s.clip = self.companion.clip(s, s.clip)
            s.negative = s.text(self.settings.negative)
        if "inpainting" in self.family:
            s.latent = painted(s, s.latent)
        if self.companion.latent is not None:
            s.latent = self.companion.latent(s, s.latent)
        return s

    def _patched(self, s: Scene, model: Link) -> Link:
        return self.companion.model(s, model) if self.companion.model is not None else model

    def _texts(self, s: Scene, positive: Link) -> tuple[Link, Link]:
        negative = s.negative
        if "inpainting" in self.family:
            positive, negative = seen(s, positive), seen(s, negative)
        if self.companion.texts is not None:
            positive, negative = self.companion.texts(s, positive, negative)
        return positive, negative

    def _sampled(self, s: Scene, model: Link, positive: Link, latent: Link) -> Link:
        return self.companion.sample(s, model, *self._texts(s, positive), latent)

    def _plain(self) -> Tensor:
        s = self._scene()
        return run(s.graph, self._sampled(s, self._patched(s, s.model), s.text(SOURCE), s.latent))[
            "samples"
        ][0]

    def _orders(self, edits: list[Edit]) -> list[Tensor]:
        """The rows of runs with the companion's patch before the controller, and behind it."""
        found = []
        for before in (True, False):
            s = self._scene()
            model = self._patched(s, s.model) if before else s.model
            control = s.control(*edits, model=model)
            model = control[0] if before else self._patched(s, control[0])
            found.append(run(s.graph, self._sampled(s, model, control[1], control[2]))["samples"])
            if self.companion.model is None or self.companion.before_only:
                break
        return found

    def _oracle(self, edits: list[Edit]) -> Tensor:
        s = self._scene()
        rows = 1 + len(edits)

        def texts(clip: CLIP) -> list:
            return positive_rows(clip, [SOURCE, *(edit.target for edit in edits)], 1)

        def explicit(model: ModelPatcher, clip: CLIP, positive: list) -> ModelPatcher:
            plans = [make_plan(clip, edit) for edit in edits]
            level = FIRST_LEVEL.get(self.family[:3], 1)
            attention = ByText(plans, positive[0][0], level, self.companion.self_attention)
            return attention.on(model)

        positive, negative = self._texts(s, s.graph.call(texts, s.clip))
        model = s.graph.call(explicit, self._patched(s, s.model), s.clip, positive)
        latent = s.graph.call(partial(repeated, rows), s.latent)
        return run(s.graph, self.companion.sample(s, model, positive, negative, latent))["samples"]


def edit_without_self(edit: Edit) -> Edit:
    return Edit(
        edit.kind, edit.target, edit.source, edit.cross, 0.0, edit.word_windows, edit.scales
    )


def repeated(rows: int, latent: dict) -> dict:
    """The latent once for every row, all from one noise."""
    samples = latent["samples"].repeat(rows, 1, 1, 1)
    return {**latent, "samples": samples, "batch_index": [0] * rows}


@cache
def photo(height: int, width: int) -> Tensor:
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(5))


def painted(s: Scene, latent: Link) -> Link:
    """What is inpainted: a photograph under a mask of its middle."""
    height, width = s.settings.height, s.settings.width
    samples = s.graph.value({"samples": photo(height // 8, width // 8)})
    return s.graph.add("SetLatentNoiseMask", samples=samples, mask=s.graph.value(box(s)))


def box(s: Scene) -> Tensor:
    mask = torch.zeros(1, s.settings.height, s.settings.width)
    mask[:, 32:96, 32:96] = 1
    return mask


def seen(s: Scene, conditioning: Link) -> Link:
    """As InpaintModelConditioning: the picture that the network sees beside its latent."""
    beside: dict[str, Any] = {
        "concat_latent_image": photo(s.settings.height // 8, s.settings.width // 8) * 0.5,
        "concat_mask": box(s)[:, None],
    }

    def add(conditioning: list) -> list:
        return [[text, {**values, **beside}] for text, values in conditioning]

    return s.graph.call(add, conditioning)
