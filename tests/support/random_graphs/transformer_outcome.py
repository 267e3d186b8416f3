"""Runs a random graph of a transformer: a result that keeps the laws, or one of our sentences?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from companions.guidance import OF_ALL
from host_run import Graph, GraphError, Host, Link, run
from model_state import structure
from scenes import Edit, Scene, Settings, distance
from torch import Tensor

from .cases import Blend
from .outcome import (
    DEFECT,
    HOST,
    RESULT,
    SENTENCE,
    Broken,
    Compared,
    Edits,
    Outcome,
    edit_links,
    failed,
    kept_source,
    seen_by,
    unrefused,
)
from .outcome import numbered as numbered_latent
from .transformer_cases import EditCase, Way, WeightCase
from .transformers import BESIDE, KINDS, SKIPPING, loaded

SEED = 7
BY_ROW = ("euler", "heun", "dpmpp_2m", "res_multistep", "lms", "ipndm")  # draw no noise
SHOWS = 1e-7  # an edit that acts is further from none than rounding


def outcome(case: EditCase | WeightCase) -> Outcome:
    """What becomes of a graph."""
    model, _ = loaded(case.way.family)
    before = hung(model)
    reference(case.way.family)
    graphs = Weighed(case) if isinstance(case, WeightCase) else Edited(case)
    try:
        found = graphs.checked()
    except GraphError as error:
        found = failed(error, lambda: graphs.plain(graphs.prompt))
    except Broken as broken:
        return Outcome(DEFECT, str(broken))
    if hung(model) != before:
        return Outcome(DEFECT, "something stays on the model")
    if found.kind == SENTENCE and not torch.equal(
        sampled(case.way.family), reference(case.way.family)
    ):
        return Outcome(DEFECT, f"a plain run is another one after {found.text}")
    return found


def hung(model: ModelPatcher) -> Any:
    """What nodes could leave on a model."""
    return structure((model.model_options, model.patches, model.object_patches, model.wrappers))


def sampled(family: str) -> Tensor:
    """A plain run of a family, always the same."""
    model, clip = loaded(family)
    unit, graph = KINDS[family].unit, Graph()
    text = graph.add("CLIPTextEncode", clip=graph.value(clip), text="a red cat")
    latent = graph.value({"samples": KINDS[family].family.latent(4 * unit, 4 * unit)})
    samples = graph.add(
        "KSampler", model=graph.value(model), positive=text, negative=text, latent_image=latent,
        seed=SEED, steps=1, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    return run(graph, samples)["samples"]


reference = cache(sampled)


class Transformer(Compared):
    """The graphs of one case: with our nodes, and without them."""

    companions = BESIDE
    tolerance = 2e-5
    nudge = 1e-6
    prompt: str  # of the plain graph

    def __init__(self, way: Way) -> None:
        self.way, self.company, self.kind = way, way.company, KINDS[way.family]
        self.model, self.clip = loaded(way.family)
        self.plains: dict[tuple, Tensor] = {}
        self.skips = not SKIPPING.isdisjoint(way.company)

    def checked(self) -> Outcome:
        raise NotImplementedError

    def plain(self, prompt: str, nudge: float = 0.0) -> Tensor:
        """Latents without us."""
        if (prompt, nudge) not in self.plains:
            s = self.scene()
            if nudge:
                s.model = s.graph.call(nudged(nudge), s.model)
            model, positive = self.patched(s, s.model), s.text(prompt)
            self.plains[prompt, nudge] = self.run(s, self.sampled(s, model, positive, s.latent))
        return self.plains[prompt, nudge]

    def run(self, s: Scene, link: Link) -> Tensor:
        return run(s.graph, link)["samples"]

    def finite(self, samples: Tensor) -> Outcome | None:
        """None if all is."""
        if bool(samples.isfinite().all()):
            return None
        if not bool(self.plain(self.prompt).isfinite().all()):
            return Outcome(HOST, "not finite without our nodes either")
        raise Broken("not finite")

    def shows(self, what: str, rows: Tensor, without: Tensor) -> None:
        if distance(rows, without) <= SHOWS:
            raise Broken(f"no trace of {what}")

    def scene(self, only: int | None = None) -> Scene:
        """only: the number of a seed, for its picture alone."""
        way, graph = self.way, Graph()
        settings = Settings(
            way.sampler, way.scheduler, way.steps, way.cfg, seed=SEED, denoise=way.denoise,
            width=8 * way.width, height=8 * way.height, batch=way.batch, negative=way.negative,
        )  # fmt: skip
        clip = graph.value(self.clip)
        latent = self.kind.family.latent(way.height, way.width)
        if way.denoise < 1 or way.masked:
            latent = torch.randn(latent.shape, generator=torch.Generator().manual_seed(9))
        s = Scene(
            graph, graph.value(self.model), clip,
            graph.add("CLIPTextEncode", clip=clip, text=way.negative),
            graph.value({"samples": latent}), settings,
        )  # fmt: skip
        if way.masked:
            mask = torch.zeros(1, way.height, way.width)
            mask[:, 1:-1, 1:-1] = 1
            s.latent = graph.add("SetLatentNoiseMask", samples=s.latent, mask=graph.value(mask))
        if only is not None:
            s.latent = graph.call(lambda latent: {**latent, "batch_index": [only]}, s.latent)
        elif way.batch > 1:
            s.latent = graph.add("RepeatLatentBatch", samples=s.latent, amount=way.batch)
            s.latent = graph.call(numbered_latent, s.latent)
        return s

    def patched(self, s: Scene, model: Link) -> Link:
        for name in self.company:
            if (patch := BESIDE[name].model) is not None:
                model = patch(s, model)
        return model

    def sampled(self, s: Scene, model: Link, positive: Link, latent: Link) -> Link:
        way, negative = self.way, s.negative
        for number in range(way.references):
            picture = self.kind.family.latent(*((4, 6), (8, 4))[number])
            given = torch.randn(picture.shape, generator=torch.Generator().manual_seed(number))
            link = s.graph.value({"samples": given})
            positive = s.graph.add("ReferenceLatent", conditioning=positive, latent=link)
        if way.guidance:
            positive = s.graph.add("FluxGuidance", conditioning=positive, guidance=way.guidance)
        for name in self.company:
            if (texts := BESIDE[name].texts) is not None:
                positive, negative = texts(s, positive, negative)
        if way.guider == "KSampler":
            return s.sample(model, positive, latent, negative=negative)
        given: dict[str, Any] = {"conditioning": positive}
        if way.guider == "CFGGuider":
            given = {"positive": positive, "negative": negative, "cfg": way.cfg}
        return s.graph.add(
            "SamplerCustomAdvanced",
            noise=s.graph.add("RandomNoise", noise_seed=SEED),
            guider=s.graph.add(way.guider, model=model, **given),
            sampler=s.graph.add("KSamplerSelect", sampler_name=way.sampler),
            sigmas=s.graph.add(
                "BasicScheduler", model=model, scheduler=way.scheduler, steps=way.steps,
                denoise=way.denoise,
            ),
            latent_image=latent,
        )  # fmt: skip


class Edited(Transformer):
    """A graph with a controller."""

    def __init__(self, case: EditCase) -> None:
        super().__init__(case.way)
        self.case, self.prompt = case, case.source

    def edited(
        self, edits: Sequence[tuple[Edit, Blend | None]], maps: str = "", only: int | None = None
    ) -> tuple:
        """Latents of all rows, and the masks of P2P Attention Maps."""
        s = self.scene(only)
        model = s.model if self.way.behind else self.patched(s, s.model)
        return self._seen_by(Host(), s, edits, maps, model)

    def edited_again(self, keep: str) -> tuple:
        """The same of a source that an edit without a blend has kept."""
        s, host = self.scene(), Host()
        model = s.model if self.way.behind else self.patched(s, s.model)
        kept = kept_source(s, model, s.latent, keep)
        [(first, _), *_] = self.case.edits
        self._seen_by(host, s, [(first, None)], "", model, kept_source=kept)
        return self._seen_by(host, s, self.case.edits, self.case.maps, model, kept_source=kept)

    def _seen_by(
        self, host: Host, s: Scene, edits: Edits, maps: str, model: Link, **wired: Link
    ) -> tuple:
        control = s.graph.add(
            "P2PAttentionController", latent=s.latent, mode=self.case.mode, blocks=self.case.blocks,
            model=model, **edit_links(s, edits), **wired,
        )  # fmt: skip
        model = self.patched(s, control[0]) if self.way.behind else control[0]
        return seen_by(host, s, control, self.sampled(s, model, control[1], control[2]), maps)

    def checked(self) -> Outcome:
        case, group = self.case, 1 + len(self.case.edits)
        samples, masks = self.edited(case.edits, case.maps)
        if len(samples) != case.way.batch * group:
            raise Broken(f"{len(samples)} rows, not {case.way.batch * group}")
        if (found := self.finite(samples)) is not None:
            return found
        if masks is not None and not bool(masks.isfinite().all()):
            raise Broken("a mask that is not finite")
        source = samples[::group]
        if not self.skips:
            self.same("source", source, case.source)
        for number, (edit, blend) in enumerate(case.edits, start=1):
            self._check_edit(samples[number::group], source, edit, blend)
        if group > 2 and not self.skips:
            self._check_alone(samples)
        by_row = case.way.sampler in BY_ROW and not OF_ALL & set(self.company)
        if case.way.batch > 1 and by_row and not self.skips:
            self._check_seed(samples[group:])
        if case.keep:
            self._check_kept(samples, masks)
        return Outcome(RESULT)

    def _check_kept(self, samples: Tensor, masks: Tensor | None) -> None:
        """With a kept source."""
        case = self.case
        again = unrefused("with a kept source it", lambda: self.edited_again(case.keep))
        self.as_live(case.edits, again, (samples, masks), case.source)

    def _check_edit(self, rows: Tensor, source: Tensor, edit: Edit, blend: Blend | None) -> None:
        scaled = any(scale != 1 for _, scale in edit.scales)
        if edit.target == edit.source and not scaled and not self.close(rows, source, edit.source):
            raise Broken(f"the same words change the picture by {distance(rows, source):.1e}")
        if blend is not None or edit.kind == "reweight":
            return
        windows = edit.cross, edit.self_, float(bool(edit.word_windows))
        if self.case.mode != "hybrid":
            windows = (edit.self_, *windows[::2]) if scaled else (edit.self_,)
        if not any(windows):
            if not self.skips:
                self.same("an edit of no step", rows, edit.target)
        elif windows[0] and edit.target.split() != edit.source.split() and not self.case.blocks:
            plain = self.plain(edit.target)
            if distance(plain, self.plain(edit.source)) > SHOWS:  # uni_pc's single step reads none
                self.shows("an edit", rows, plain)

    def _check_alone(self, samples: Tensor) -> None:
        """The last of several edits is what it is alone."""
        *_, last = self.case.edits
        alone, _ = unrefused("an edit alone", lambda: self.edited([last]))
        rows = samples[len(self.case.edits) :: 1 + len(self.case.edits)]
        if not self.close(rows, alone[1::2], last[0].target):
            raise Broken(f"an edit beside others is {distance(rows, alone[1::2]):.1e} from alone")

    def _check_seed(self, rows: Tensor) -> None:
        """The second seed's pictures are what they are alone."""
        alone, _ = unrefused("a seed alone", lambda: self.edited(self.case.edits, only=1))
        if not self.close(rows, alone, self.prompt):
            raise Broken(f"a seed beside another is {distance(rows, alone):.1e} from alone")


class Weighed(Transformer):
    """A graph with P2P Prompt Weights."""

    def __init__(self, case: WeightCase) -> None:
        super().__init__(case.way)
        self.case = case
        self.prompt = " ".join(word for word, _ in case.words) if case.words else "a red cat"

    def weighed(self, text: str, strength: float) -> Tensor:
        s, way, case = self.scene(), self.way, self.case
        node = s.graph.add(
            "P2PPromptWeights", clip=s.clip, text=text, strength=strength, blocks=case.blocks,
            start=case.window[0], end=case.window[1], acts_on=case.acts_on, queries=case.queries,
            model=s.model if way.behind else self.patched(s, s.model),
        )  # fmt: skip
        model = self.patched(s, node[0]) if way.behind else node[0]
        return self.run(s, self.sampled(s, model, node[1], s.latent))

    def checked(self) -> Outcome:
        case = self.case
        samples = self.weighed(case.text, case.strength)
        if (found := self.finite(samples)) is not None:
            return found
        none = self.weighed(case.text, 0.0)
        if case.words:
            self._check_words(samples, none)
        neutral = case.strength == 0 or (case.words and all(w == 1 for _, w in case.words))
        if neutral or case.window[0] == case.window[1]:
            if not torch.equal(samples, none):
                raise Broken(f"no weights are {distance(samples, none):.1e} from no node")
        elif case.words and case.window[0] == 0:
            self.shows("weights", samples, none)
        return Outcome(RESULT)

    def _check_words(self, samples: Tensor, none: Tensor) -> None:
        """The text without weights is the plain one, and every word may have its own bracket."""
        clean = self.prompt.replace("\\(", "(").replace("\\)", ")")
        if not any(torch.equal(none, self.plain(text)) for text in {clean, self.prompt}):
            raise Broken(f"without weights it is {distance(none, self.plain(clean)):.1e} away")
        apart = " ".join(w if c == 1 else f"({w}:{c!r})" for w, c in self.case.words)
        again = unrefused(apart, lambda: self.weighed(apart, self.case.strength))
        if not self.close(samples, again, self.prompt):
            raise Broken(f"weights word by word are {distance(samples, again):.1e} away: {apart}")


def nudged(by: float) -> Callable[[ModelPatcher], ModelPatcher]:
    """A model that is always given something a little off, as rounding would have it."""

    def nudge(model: ModelPatcher) -> ModelPatcher:
        generator, model = torch.Generator().manual_seed(4), model.clone()

        def off(executor: Callable, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return executor(
                x * (1 + by * torch.randn(x.shape, generator=generator)), *args, **kwargs
            )

        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "nudge", off)
        return model

    return nudge
