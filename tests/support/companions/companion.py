"""One companion of an edit: how it enters a graph, and what may be expected of the two together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from host_run import Link
from scenes import Scene

OnModel = Callable[[Scene, Link], Link]
OnTexts = Callable[[Scene, Link, Link], tuple[Link, Link]]
OnLatent = Callable[[Scene, Link], Link]
Sample = Callable[[Scene, Link, Link, Link, Link], Link]
Load = Callable[[str], tuple[ModelPatcher, CLIP]]

RESULT, SENTENCE = "a result", "a sentence"


def ksampler(s: Scene, model: Link, positive: Link, negative: Link, latent: Link) -> Link:
    return s.sample(model, positive, latent, negative=negative)


@dataclass(frozen=True)
class Companion:
    """Any of: a patch of the model, before the controller or behind it; of the conditionings
    (positive, negative); of the latent; another way to sample; another way to load the model.

    clip: on the CLIP, before everything. before_only: a patch that makes no sense behind the
    controller. expected: a result or a sentence. reference: the companion whose edits are the same;
    oracle: whether explicit maps can tell what the edit is; self_attention: whether they can with
    self-attention injected. tolerance: of all figures. families: the only ones to try, all if
    empty. why: of what is not compared.
    """

    name: str
    model: OnModel | None = None
    clip: OnLatent | None = None
    texts: OnTexts | None = None
    latent: OnLatent | None = None
    sample: Sample = ksampler
    load: Load | None = None
    before_only: bool = False
    expected: str = RESULT
    reference: str = ""
    oracle: bool = True
    self_attention: bool = True
    tolerance: float = 1e-4
    families: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
