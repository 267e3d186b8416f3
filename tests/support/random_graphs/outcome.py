"""Runs a random graph: a result that keeps the laws, or one of our sentences?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from companions import COMPANIONS
from companions.companion import Companion
from companions.trial import painted, seen
from host_run import GraphError, Host, Link, run
from scenes import Edit, Scene, Settings, distance, scene
from tiny_checkpoints import shared
from torch import Tensor

from .cases import Blend, Case

Edits = Sequence[tuple[Edit, Blend | None]]
Seen = tuple[Tensor, Tensor | None]
RESULT, SENTENCE, HOST, DEFECT = "result", "sentence", "the host's own", "defect"
TOLERANCE = 1e-4  # and what a companion grants
MASKS = 1e-2  # whose values go from 0 to 1
NUDGE = 1e-5  # added to a latent, whose noise is of order 10: what rounding may do
AMPLIFIED = 30  # a difference may be so much larger than what the nudge becomes


@dataclass(frozen=True)
class Outcome:
    kind: str
    text: str = ""


class Broken(Exception):
    """A law does not hold."""


def outcome(case: Case) -> Outcome:
    """What becomes of a graph."""
    graphs = Graphs(case)
    try:
        samples, shown = graphs.edited()
    except GraphError as error:
        return failed(error, lambda: graphs.plain(case.source))
    try:
        return graphs.checked(samples, shown)
    except Broken as broken:
        return Outcome(DEFECT, str(broken))


def failed(error: GraphError, plain: Callable[[], Tensor]) -> Outcome:
    """What an error is. plain: the graph without us, which may raise the same."""
    text = str(error)
    if error.is_sentence:
        return Outcome(SENTENCE, text)
    try:
        plain()
    except GraphError as host:
        if not host.is_sentence and str(host).partition(": ")[2] == text.partition(": ")[2]:
            return Outcome(HOST, text)
    return Outcome(DEFECT, f"{error.kind} in {error.place}: {text}")


class Compared:
    """Pictures against those of graphs without us. company: names of companions."""

    company: tuple[str, ...]
    companions: Mapping[str, Companion]
    tolerance = TOLERANCE
    nudge = NUDGE

    def plain(self, prompt: str, nudge: float = 0.0) -> Tensor:
        """Latents without us."""
        raise NotImplementedError

    def same(self, what: str, rows: Tensor, prompt: str) -> None:
        plain = self.plain(prompt)
        if not self.close(rows, plain, prompt):
            raise Broken(f"{what} is {distance(rows, plain):.1e} from the plain picture")

    def as_live(self, edits: Edits, again: Seen, live: Seen, prompt: str) -> None:
        """Edits of a kept source are those of the live run; a blend's edge may flip."""
        group = 1 + len(edits)
        whole = [0, *(i for i, (_, blend) in enumerate(edits, start=1) if blend is None)]
        for member in whole:
            rows, expected = again[0][member::group], live[0][member::group]
            if not self.close(rows, expected, prompt):
                raise Broken(f"of a kept source, row {member} is {distance(rows, expected):.1e}")
        if again[1] is not None and live[1] is not None and len(whole) == group:
            apart = float((again[1] - live[1]).abs().mean())
            if apart > MASKS:
                raise Broken(f"of a kept source, masks are {apart:.1e} from the live ones")

    def close(self, rows: Tensor, expected: Tensor, prompt: str) -> bool:
        """Within rounding, as this graph amplifies it."""
        found = distance(rows, expected)
        tolerances = (self.companions[name].tolerance for name in self.company)
        if found <= max((t for t in tolerances if t != TOLERANCE), default=self.tolerance):
            return True
        moved = distance(self.plain(prompt, self.nudge), self.plain(prompt))
        return found <= AMPLIFIED * moved


class Graphs(Compared):
    """The graphs of one case: with the edit, and without us."""

    def __init__(self, case: Case) -> None:
        self.case, self.company, self.companions = case, case.company, COMPANIONS
        self.model, self.clip = shared(case.family)
        self.inpainting = "inpainting" in case.family
        self.settings = Settings(
            case.sampler, case.scheduler, case.steps, case.cfg, denoise=case.denoise,
            width=case.width, height=case.height, batch=case.batch, negative=case.negative,
        )  # fmt: skip

    def edited(self) -> tuple[Tensor, Tensor | None]:
        """Latents of all rows, and the masks of P2P Attention Maps."""
        s, model = self._scene()
        control = self._control(s, self._wired(s, model), self.case.edits)
        return seen_by(
            Host(), s, control, self._sampled(s, control[0], control[1], control[2]), self.case.maps
        )

    def edited_again(self, keep: str) -> tuple[Tensor, Tensor | None]:
        """The same of a source that an edit without a blend has kept."""
        (s, model), host = self._scene(), Host()
        wired = self._wired(s, model)
        kept = kept_source(s, wired["model"], wired["latent"], keep)
        [(first, _), *_] = self.case.edits
        for edits in ([(first, None)], self.case.edits):
            control = self._control(s, {**wired, "kept_source": kept}, edits)
            samples = self._sampled(s, control[0], control[1], control[2])
            found = seen_by(host, s, control, samples, self.case.maps)
        return found

    def _wired(self, s: Scene, model: Link) -> dict[str, Any]:
        """Model, latent and inversion of a controller."""
        if not self.case.inversion:
            return {"model": model, "latent": s.latent}
        inversion = self._inverted(s, model)
        return {"model": model, "inversion": inversion, "latent": inversion[1]}

    def _control(self, s: Scene, wired: dict[str, Any], edits: Edits) -> Link:
        return s.graph.add("P2PAttentionController", **wired, **edit_links(s, edits))

    def plain(self, prompt: str, nudge: float = 0.0) -> Tensor:
        """Latents without us."""
        s, model = self._scene()
        latent = s.latent
        if self.case.inversion:
            latent = self._inverted(s, model)[1]
        if nudge:
            latent = s.graph.call(nudged(nudge), latent)
        return run(s.graph, self._sampled(s, model, s.text(prompt), latent))["samples"]

    def checked(self, samples: Tensor, masks: Tensor | None) -> Outcome:
        case, group = self.case, 1 + len(self.case.edits)
        expected = case.batch * group
        if len(samples) != expected:
            raise Broken(f"{len(samples)} rows, not {expected}")
        if not bool(samples.isfinite().all()):
            if not bool(self.plain(case.source).isfinite().all()):
                return Outcome(HOST, "not finite without an edit either")
            raise Broken("not finite")
        if masks is not None and not bool(masks.isfinite().all()):
            raise Broken("a mask that is not finite")
        source = samples[::group]
        if case.inversion:
            if not torch.equal(source, photo(case)):
                raise Broken(f"the photograph does not come back: {distance(source, photo(case))}")
        else:
            self.same("source", source, case.source)
        for number, (edit, blend) in enumerate(case.edits, start=1):
            self._check_edit(samples[number::group], source, edit, blend)
        if case.keep:
            again = unrefused("with a kept source it", lambda: self.edited_again(case.keep))
            self.as_live(case.edits, again, (samples, masks), case.source)
        return Outcome(RESULT)

    def _check_edit(self, rows: Tensor, source: Tensor, edit: Edit, blend: Blend | None) -> None:
        scaled = any(scale != 1 for _, scale in edit.scales)
        idle = edit.target == edit.source and not scaled and not self.case.inversion
        if idle and not self.close(rows, source, edit.source):
            raise Broken(f"the same words change the picture by {distance(rows, source):.1e}")
        off = edit.cross == 0 and edit.self_ == 0 and not edit.word_windows
        if off and edit.kind != "reweight" and blend is None and not self.case.inversion:
            self.same("an edit of no step", rows, edit.target)

    def _scene(self) -> tuple[Scene, Link]:
        """The scene and the model with its company."""
        s = scene(self.settings, self.model, self.clip)
        if self.inpainting and not self.case.inversion:
            s.latent = painted(s, s.latent)
            s.latent = s.graph.add("RepeatLatentBatch", samples=s.latent, amount=self.case.batch)
        if self.case.batch > 1:
            # The host draws the noise of numbered rows one by one, which differs from all at once
            # where a row is no multiple of 16 numbers.
            s.latent = s.graph.call(numbered, s.latent)
        model = s.model
        for name in self.company:
            if (patch := COMPANIONS[name].model) is not None:
                model = patch(s, model)
        return s, model

    def _inverted(self, s: Scene, model: Link) -> Link:
        latent = s.graph.value({"samples": photo(self.case)})
        levels = {"latent": latent, "steps": self.case.steps, "scheduler": self.case.scheduler}
        if self.case.inversion == "noise":
            denoise = self.case.denoise
            return s.graph.add("P2PNoiseInvert", model=model, seed=5, denoise=denoise, **levels)
        return s.graph.add(
            "P2PDDIMInvert", model=model, positive=s.text(self.case.source), **levels
        )

    def _sampled(self, s: Scene, model: Link, positive: Link, latent: Link) -> Link:
        negative = s.negative
        if self.inpainting:
            positive, negative = seen(s, positive), seen(s, negative)
        for name in self.company:
            if (texts := COMPANIONS[name].texts) is not None:
                positive, negative = texts(s, positive, negative)
        return s.sample(model, positive, latent, negative=negative)


def photo(case: Case) -> Tensor:
    size = (case.batch, 4, case.height // 8, case.width // 8)
    return torch.randn(size, generator=torch.Generator().manual_seed(9)) * 3


def edit_links(s: Scene, edits: Edits) -> dict[str, Link]:
    """What is wired to a controller's edit, edit_2, …"""
    names = ["edit", *(f"edit_{number}" for number in range(2, 9))]
    links = [blended(s, edit.build(s.graph, s.clip), blend) for edit, blend in edits]
    return dict(zip(names, links, strict=False))


def kept_source(s: Scene, model: Link, latent: Link, keep: str) -> Link:
    return s.graph.add(
        "P2PKeepSource", model=model, latent=latent, keep=keep, steps=s.settings.steps
    )


def seen_by(host: Host, s: Scene, control: Link, samples: Link, maps: str) -> Seen:
    """A controller's latents, and the masks of some words."""
    if not maps:
        return host.run(s.graph, samples)["samples"], None
    shown = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words=maps)
    latents, masks = host.run(s.graph, samples, shown[1])
    return latents["samples"], masks


def unrefused(what: str, make: Callable[[], Any]) -> Any:
    """What must be made where the graph itself was."""
    try:
        return make()
    except GraphError as error:
        raise Broken(f"{what} ends in {error}") from error


def blended(s: Scene, edit: Link, blend: Blend | None) -> Link:
    return s.graph.add("P2PLocalBlendMask", edit=edit, **vars(blend)) if blend else edit


def numbered(latent: dict) -> dict:
    return {**latent, "batch_index": list(range(len(latent["samples"])))}


def nudged(by: float) -> Callable[[dict], dict]:
    def nudge(latent: dict) -> dict:
        generator = torch.Generator().manual_seed(4)
        samples = latent["samples"]
        noise = torch.randn(samples.shape, generator=generator) * by
        return {**latent, "samples": samples + noise}

    return nudge
