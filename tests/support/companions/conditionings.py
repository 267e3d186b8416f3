"""What confines, steers or changes the conditionings on their way to the sampler."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.hooks
import torch
from control_nets import apply_control_net, control_net_of
from host_run import Link
from scenes import Scene

from .companion import Companion
from .weights import lora

MIST = "mist"


def both(s: Scene, first: Link, second: Link) -> Link:
    return s.graph.add("ConditioningCombine", conditioning_1=first, conditioning_2=second)


def area(s: Scene, positive: Link, negative: Link) -> tuple[Link, Link]:
    size = {"x": 32, "y": 0, "width": 64, "height": 96, "strength": 1.0}
    region = s.graph.add("ConditioningSetArea", conditioning=positive, **size)
    return both(s, region, s.text(MIST)), negative


def left_half(s: Scene) -> Link:
    left = torch.zeros(1, s.settings.height, s.settings.width)
    left[..., : s.settings.width // 2] = 1
    return s.graph.value(left)


def mask(s: Scene, positive: Link, negative: Link) -> tuple[Link, Link]:
    region = s.graph.add(
        "ConditioningSetMask", conditioning=positive, mask=left_half(s), strength=0.8,
        set_cond_area="default",
    )  # fmt: skip
    return both(s, region, s.text(MIST)), negative


def ranges(s: Scene, positive: Link, negative: Link) -> tuple[Link, Link]:
    first = s.graph.add("ConditioningSetTimestepRange", conditioning=positive, start=0.0, end=0.6)
    rest = s.graph.add("ConditioningSetTimestepRange", conditioning=s.text(MIST), start=0.4, end=1)
    return both(s, first, rest), negative


def control_nets(*spans: tuple[float, float]) -> Any:
    """ControlNets after each other, each in its range of the steps."""

    def texts(s: Scene, positive: Link, negative: Link) -> tuple[Link, Link]:
        for number, (start, end) in enumerate(spans):
            net = s.graph.call(partial(control_net_of, number), s.model)
            positive, negative = apply_control_net(
                s.graph, positive, negative, 8 + number, net, start, end
            )
        return positive, negative

    return texts


def hooked(s: Scene, positive: Link, negative: Link) -> tuple[Link, Link]:
    """A LoRA on the positive alone, which the host then evaluates apart."""

    def add(positive: list, model: Any, clip: Any) -> list:
        hooks = comfy.hooks.create_hook_lora(lora(model, clip, 15), 0.7, 0.7)
        return comfy.hooks.set_hooks_for_conditioning(positive, hooks)

    return s.graph.call(add, positive, s.model, s.clip), negative


def averaged(s: Scene, positive: Link, negative: Link) -> tuple[Link, Link]:
    wired = {"conditioning_to": positive, "conditioning_from": s.text(MIST)}
    made = s.graph.add("ConditioningAverage", **wired, conditioning_to_strength=0.7)
    return made, negative


def combined_negative(s: Scene, positive: Link, negative: Link) -> tuple[Link, Link]:
    return positive, both(s, negative, s.text(MIST))


def zeroed_negative(s: Scene, positive: Link, negative: Link) -> tuple[Link, Link]:
    return positive, s.graph.add("ConditioningZeroOut", conditioning=s.text(MIST))


COMPANIONS = [
    Companion("an area", texts=area),
    Companion("a mask", texts=mask),
    Companion("ranges of steps", texts=ranges),
    Companion("a ControlNet", texts=control_nets((0.0, 1.0))),
    Companion("three ControlNets with ranges", texts=control_nets((0.0, 0.5), (0.3, 1), (0, 1))),
    Companion("a LoRA by hook on the positive", texts=hooked),
    Companion("two negatives combined", texts=combined_negative),
    Companion("a zeroed negative", texts=zeroed_negative),
    Companion("ConditioningAverage", texts=averaged),
]
