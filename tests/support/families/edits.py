"""Edits of a transformer through the host, and what every attention map in full makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from typing import Any

import torch
from host_run import Graph, Link, run
from joint_oracle import Plan, Where, oracle
from scenes import distance
from spelled_clip import BEFORE, BEHIND, SpelledClip
from torch import Tensor

from . import invented, others, refiners, streams
from .tiny import Family
from .watching import pack

SOURCE = "a red cat on a bench"
EQUAL = "a red dog on a bench"
LONGER = "a red elephant on a bench"
ADDED = "a red cat on a wooden bench"
STEPS, SEED = 2, 7
SHARES = CROSS_SHARE, SELF_SHARE = 0.7, 0.4  # of the steps, where a test does not ask for others
CROSS = ("Anima", "Cosmos-Predict2", "Wan 2.1", "Kandinsky 5", "CrossAttention")
PADDED = {"Flux.2 dev": 512, "Flux.2 Klein": 512, "Anima": 512}
REFERENCES_FIRST = ("OmniGen 2", "Boogu", "References")  # before the image, not behind it
IMAGE_FIRST = ("HiDream", "Lens", "JoyImage", "ImageFirst")
EXACT = [*streams.FAMILIES, *refiners.FAMILIES, *others.FAMILIES]


@dataclass(frozen=True)
class Case:
    """One edit: kind swap or refine. mode: of the controller. windows as shares of the steps."""

    target: str
    mode: str
    kind: str = "swap"
    cross: float = 0.7
    self_: float = 0.4


SWAP = Case(EQUAL, "hybrid")
CASES = [Case(EQUAL, "qk"), SWAP, Case(ADDED, "hybrid", "refine"), Case(LONGER, "qk")]


def clip_of(family: Any) -> SpelledClip:
    return clips(family)


@cache
def clips(family: Any) -> SpelledClip:
    if isinstance(family, Family):
        return SpelledClip(family.width, family.extras, length=family.columns)
    return SpelledClip(invented.TEXT, lambda tokens, generator: {})


@cache
def model_of(family: Any) -> Any:
    return family.load() if isinstance(family, Family) else invented.shared(family)


def name_of(family: Any) -> str:
    return family.name if isinstance(family, Family) else family.__name__


def latent_of(family: Any, rows: int) -> Tensor:
    if isinstance(family, Family):
        # Z-Image pads to 32: here text and image to different lengths, which the oracle tells.
        sizes = {others.RADIANCE: (64, 96), refiners.Z_IMAGE: (12, 12), others.PIXART: (64, 64)}
        return family.latent(*sizes.get(family, (8, 12)), batch=rows)
    return torch.zeros(rows, invented.CHANNELS, 8, 12)


def mapping(source: Any, target: Any, kind: str) -> Tensor:
    """S of one edit, (T_s, T_t): template, equal words, and for a swap the words replaced."""
    made = torch.zeros(source.length, target.length)
    for i in range(BEFORE):
        made[i, i] = 1
    for i in range(BEHIND):
        made[source.length - BEHIND + i, target.length - BEHIND + i] = 1
    words = [[word.text for word in prompt.words] for prompt in (source, target)]
    for tag, a, b, c, d in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        if tag == "equal" or (tag == "replace" and kind == "swap" and b - a == d - c):
            for old, new in zip(source.words[a:b], target.words[c:d], strict=True):
                if len(old.columns) == len(new.columns):
                    made[list(old.columns), list(new.columns)] = 1
                else:
                    for i in old.columns:
                        made[i, list(new.columns)] = 1 / len(new.columns)
    return made


def places_of(family: Any, lengths: list[int], latent: Tensor, beside: int = 0) -> Any:
    """Where text and image stand, from the host's source and not from the probe.

    beside: how many positions of references every joint call has.
    """
    name = name_of(family)
    channels = latent.shape[1]
    patch = {3: 16, 4: 2, 16: 2, 64: 1, 128: 1}[channels]
    image = math.ceil(latent.shape[-2] / patch) * math.ceil(latent.shape[-1] / patch)

    def find(index: int, q: Tensor, k: Tensor, prompt: int) -> Where | None:
        text, queries, keys = PADDED.get(name, lengths[prompt]), q.shape[2], k.shape[2]
        if len(q) != 1:
            return None
        if name in CROSS:
            if queries == image and keys == text:
                return Where(list(range(text)), [], [])
            return Where([], list(range(image)), []) if keys == queries == image else None
        if name == "Z-Image":
            wide, tall = math.ceil(text / 32) * 32, math.ceil(image / 32) * 32
            if keys == tall:
                return Where([], list(range(image)), list(range(image, tall)))
            found = list(range(text)), list(range(wide, wide + image))
        elif keys == image:
            return Where([], list(range(image)), [])
        else:
            first = {"AuraFlow": 8, "Registers": 3}.get(name, 0)
            start = keys - image if name in REFERENCES_FIRST else first + text
            found = list(range(first, first + text)), list(range(start, start + image))
            if name in IMAGE_FIRST:
                found = list(range(image, image + text)), list(range(image))
        if keys < text + image + beside:
            return None
        rest = sorted(set(range(keys)) - set(found[0]) - set(found[1]))
        return Where(*found, rest)

    return find


def hybrid_plan(made: Tensor) -> Callable[[int, int], Plan | None]:
    """Of an edit with this mapping S, (T_s, T_t), for SHARES of the steps."""
    own = (made.sum(0) > 0).float()

    def plan(step: int, prompt: int) -> Plan | None:
        if prompt == 0:
            return None
        alpha, beta = (float(step / STEPS < end) for end in SHARES)
        return Plan(mapping=made * alpha, weight=1 - alpha * own, beta=beta)

    return plan


def plan_of(family: Any, case: Case, prompts: list, steps: int) -> Any:
    total = PADDED.get(name_of(family))
    made = mapping(*prompts, case.kind)
    left = name_of(family).startswith("Flux.2")

    def plan(step: int, prompt: int) -> Plan | None:
        if prompt == 0:
            return None
        alpha, beta = (float(step / steps < end) for end in (case.cross, case.self_))
        if case.mode == "qk":
            return Plan(qk=bool(beta))
        own = (made.sum(0) > 0).float()
        s, w = made * alpha, 1 - alpha + alpha * (1 - own)
        if total:
            firsts = [(total - p.length if left else 0) for p in prompts]
            wide, weight = torch.zeros(total, total), torch.ones(total)
            for i in range(total):
                if not any(f <= i < f + p.length for f, p in zip(firsts, prompts, strict=True)):
                    wide[i, i], weight[i] = alpha, 1 - alpha
            rows, columns = (slice(f, f + p.length) for f, p in zip(firsts, prompts, strict=True))
            wide[rows, columns], weight[columns] = s, w
            s, w = wide, weight
        return Plan(mapping=s, weight=w, beta=beta)

    return plan


@dataclass(frozen=True, eq=False)
class How:
    """How a run is sampled. guider: "KSampler" or a guider's node. cond: applied to every
    positive, (graph, link) -> link, and beside: the positions that it adds; model: a MODEL other
    than the family's own.
    """

    steps: int = STEPS
    cfg: float = 1.0
    sampler: str = "euler"
    guider: str = "KSampler"
    cond: Callable[[Graph, Link], Link] = lambda graph, positive: positive
    model: Any = None
    beside: int = 0
    seeds: int = 1
    negative: str = "blurry"


PLAIN = How()


def edited(family: Any, cases: list[Case], how: How = PLAIN, **inputs: Any) -> Tensor:
    """Latents of a graph with the controller, (seeds * (1 + n), …)."""
    graph = Graph()
    latent = graph.value({"samples": latent_of(family, how.seeds)})
    control = controlled(graph, family, cases, how, latent, **inputs)
    return run(graph, sampled(graph, family, how, control, control[1], control[2]))["samples"]


def controlled(
    graph: Graph, family: Any, cases: list[Case], how: How, latent: Link, **inputs: Any
) -> Link:
    """The AttentionController."""
    edits = [graph.value(edit_of(clip_of(family), case)) for case in cases]
    names = ["edit", *(f"edit_{number}" for number in range(2, 9))]
    return graph.add(
        "P2PAttentionController", model=graph.value(how.model or model_of(family)), latent=latent,
        mode=cases[0].mode, **dict(zip(names, edits, strict=False)), **inputs,
    )  # fmt: skip


def edit_of(clip: SpelledClip, case: Case) -> Any:
    edits, schedule = pack("p2p_core.edits"), pack("p2p_core.schedule")
    alignment = pack("p2p_core.alignment")
    align = {"swap": alignment.align_replace, "refine": alignment.align_refine}[case.kind]
    windows = schedule.Window(0.0, case.cross), schedule.Window(0.0, case.self_)
    made = edits.prompt_edit(clip.prompt(SOURCE), clip.prompt(case.target), align, *windows)
    return pack("nodes.host.edits").Edit(clip, made)


def sampled(graph: Graph, family: Any, how: How, model: Link, positive: Link, latent: Link) -> Link:
    """The samples of one run."""
    positive = how.cond(graph, positive)
    negative = graph.value(encoded(family, how.negative))
    if how.guider == "KSampler":
        return graph.add(
            "KSampler", model=model, positive=positive, negative=negative, latent_image=latent,
            seed=SEED, steps=how.steps, cfg=how.cfg, sampler_name=how.sampler, scheduler="simple",
            denoise=1.0,
        )  # fmt: skip
    given: dict[str, Any] = {"conditioning": positive}
    if how.guider != "BasicGuider":
        given = {"positive": positive, "negative": negative, "cfg": how.cfg}
    if how.guider == "DualModelGuider":
        given["model_negative"] = graph.value(how.model or model_of(family))
    return graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=SEED),
        guider=graph.add(how.guider, model=model, **given),
        sampler=graph.add("KSamplerSelect", sampler_name=how.sampler),
        sigmas=graph.add(
            "BasicScheduler", model=model, scheduler="simple", steps=how.steps, denoise=1.0
        ),
        latent_image=latent,
    )


def encoded(family: Any, text: str) -> list:
    clip = clip_of(family)
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def plain(family: Any, prompt: str, how: How = PLAIN) -> Tensor:
    """The run of a prompt alone."""
    graph = Graph()
    latent = graph.value({"samples": latent_of(family, how.seeds)})
    model = graph.value(how.model or model_of(family))
    positive = graph.value(encoded(family, prompt))
    return run(graph, sampled(graph, family, how, model, positive, latent))["samples"]


@cache
def plain_source(family: Any) -> Tensor:
    return plain(family, SOURCE)


def expected(family: Any, case: Case, how: How = PLAIN) -> Tensor:
    """The same with every map in full: (seeds * 2, …), source and edit."""
    clip = clip_of(family)
    texts = (SOURCE, case.target)
    prompts = [clip.prompt(text) for text in texts]
    conds = [conditioned(how, encoded(family, text)) for text in texts]
    latent = latent_of(family, 2 * how.seeds)
    places = places_of(family, [p.length for p in prompts], latent, how.beside)
    plan = plan_of(family, case, prompts, how.steps)
    return oracle(
        how.model or model_of(family), conds, places, plan, latent, how.steps, SEED, how.cfg,
        encoded(family, how.negative), how.sampler,
    )  # fmt: skip


def conditioned(how: How, cond: list) -> list:
    graph = Graph()
    return run(graph, how.cond(graph, graph.value(cond)))


def check_exact(family: Any, case: Case, how: How = PLAIN) -> None:
    """The edit is the written out one, its source the plain run, both far from no edit at all."""
    new, wanted = edited(family, [case], how), expected(family, case, how)
    source = plain_source(family) if how is PLAIN else plain(family, SOURCE, how)
    floor = distance(wanted[:1], source)
    assert floor < 1e-3, "the oracle is of another model"
    assert distance(new, wanted) < max(1e-4, 5 * floor)
    assert distance(new[:1], source[:1]) <= max(1e-5, 2 * floor)
    effect = distance(wanted[1:2], plain(family, case.target, how)[:1])
    assert effect > 20 * distance(new, wanted)
