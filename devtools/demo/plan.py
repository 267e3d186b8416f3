"""What the demo makes: default prompts and settings, and the workflows they give."""

from __future__ import annotations

import argparse

from devtools.demo.graphs import Panel, Settings, Workflow

DEMO = {
    "source": "a red circle on a green background",
    "swap": "a blue circle on a green background",
    "refine": "a striped red circle on a green background",
}
PHOTO = {
    "source": "a photo of a cat sitting on a wooden bench",
    "swap": "a photo of a dog sitting on a wooden bench",
    "refine": "a photo of a fluffy cat sitting on a wooden bench",
}
DEMO_SETTINGS = {"size": 128, "images": 2, "steps": 20, "cfg": 6.0}
PHOTO_SETTINGS = {"size": 512, "images": 1, "steps": 25, "cfg": 7.5}
DEMO_SCALES = (-2.0, 0.0, 0.5, 2.0)
PHOTO_SCALES = (-2.0, 0.0, 2.0)


def plan_prompts(arguments: argparse.Namespace) -> dict[str, str]:
    """The source prompt and the targets of swap and refine."""
    if arguments.source is not None:
        target = arguments.target
        return {"source": arguments.source, "swap": target, "refine": target}
    return DEMO if arguments.checkpoint is None else PHOTO


def plan_settings(arguments: argparse.Namespace) -> Settings:
    values = dict(DEMO_SETTINGS if arguments.checkpoint is None else PHOTO_SETTINGS)
    for name in values:
        given = getattr(arguments, name)
        if given is not None:
            if given <= 0:
                raise ValueError(f"--{name} must be positive, but it is {given}.")
            values[name] = given
    return Settings(
        checkpoint=arguments.checkpoint and arguments.checkpoint.name,
        source=plan_prompts(arguments)["source"],
        size=int(values["size"]),
        images=int(values["images"]),
        steps=int(values["steps"]),
        cfg=values["cfg"],
        seed=arguments.seed,
    )


def plan_workflows(arguments: argparse.Namespace) -> list[Workflow]:
    """Word swap, the same with a local blend, refine, and reweight at several scales."""
    prompts = plan_prompts(arguments)
    refined = prompts["refine"]
    words = arguments.words or ", ".join(new_words(prompts["source"], refined))
    scales = arguments.scales or (DEMO_SCALES if arguments.checkpoint is None else PHOTO_SCALES)
    scaled = [Panel(f"reweight {scale:g}", "P2PRefine", refined, words, scale) for scale in scales]
    source, target = prompts["source"], prompts["swap"]
    blend = (", ".join(new_words(target, source)), ", ".join(new_words(source, target)))
    swap = (
        Panel("word swap", "P2PWordSwap", target),
        Panel("swap + local blend", "P2PWordSwap", target, blend=blend),
    )
    return [
        Workflow("word swap", swap, map_words=", ".join(blend)),
        Workflow("refine", (Panel("refine", "P2PRefine", refined),)),
        Workflow("reweight", tuple(scaled)),
    ]


def new_words(source: str, target: str) -> list[str]:
    """The words that only the target has; if there are none, its longest word."""
    known = {word.strip(".,;:!?").lower() for word in source.split()}
    words = [word.strip(".,;:!?") for word in target.split()]
    added = [word for word in words if word and word.lower() not in known]
    return list(dict.fromkeys(added)) or sorted(words, key=len)[-1:]
