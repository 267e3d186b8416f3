"""What the demo makes: default prompts and settings, and the workflows they give."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from devtools.demo.graphs import Panel, Settings, Workflow
from devtools.demo.instruct import InstructWorkflow
from devtools.demo.photo import PhotoWorkflow, photo_workflows

DEMO = {
    "source": "a cat on the grass",
    "swap": "a lion on the grass",
    "refine": "a cat on the grass in autumn",
}
PHOTO = {
    "source": "a photo of a cat sitting on a wooden bench",
    "swap": "a photo of a dog sitting on a wooden bench",
    "refine": "a photo of a fluffy cat sitting on a wooden bench",
}
PHOTOGRAPH = Path(__file__).with_name("photograph.jpg")
PHOTOGRAPH_SOURCE = "a red car on the beach"
PHOTOGRAPH_TARGET = "a blue car on the beach"
PHOTOGRAPH_STEPS = 50
INSTRUCTIONS = (
    "make it blue",
    "paint it yellow",
    "put it in the snow",
    "put it in the city",
)
INSTRUCT_CFG = 3.0
DEMO_SETTINGS = {"size": 128, "images": 2, "steps": 20, "cfg": 6.0}
PHOTO_SETTINGS = {"size": 512, "images": 1, "steps": 25, "cfg": 7.5}
DEMO_THRESHOLD = 0.15  # its maps are 16 cells wide
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
    threshold = DEMO_THRESHOLD if arguments.checkpoint is None else Panel.threshold
    blend = (", ".join(new_words(target, source)), ", ".join(new_words(source, target)))
    swap = (
        Panel("word swap", "P2PWordSwap", target),
        Panel("swap + local blend", "P2PWordSwap", target, blend=blend, threshold=threshold),
    )
    return [
        Workflow("word swap", swap, map_words=", ".join(blend)),
        Workflow("refine", (Panel("refine", "P2PRefine", refined),)),
        Workflow("reweight", tuple(scaled)),
    ]


def plan_photo(
    arguments: argparse.Namespace, settings: Settings
) -> tuple[Path | None, Settings, list[PhotoWorkflow]]:
    """The photograph to edit, how, and by which methods; a checkpoint needs one of yours.

    Raises ValueError for a photograph that is no file.
    """
    if arguments.photo is None and (arguments.checkpoint or arguments.source):
        return None, settings, []
    photo, source, target = arguments.photo, arguments.source, arguments.target
    if photo is None:
        photo, source, target = PHOTOGRAPH, PHOTOGRAPH_SOURCE, PHOTOGRAPH_TARGET
    if not photo.is_file():
        raise ValueError(f"There is no picture {photo}.")
    words = (", ".join(new_words(target, source)), ", ".join(new_words(source, target)))
    swap = Panel("edit", "P2PWordSwap", target)
    own = replace(settings, source=source, images=1, steps=arguments.steps or PHOTOGRAPH_STEPS)
    flows = photo_workflows(photo.name, swap, replace(swap, blend=words))
    return photo, own, flows


def plan_instructions(
    arguments: argparse.Namespace, settings: Settings
) -> tuple[Settings, list[InstructWorkflow]]:
    """What the embedded model is told to do with its photograph; a checkpoint is told nothing."""
    own = replace(settings, images=1, cfg=arguments.cfg or INSTRUCT_CFG)
    if arguments.checkpoint or arguments.source:
        return own, []
    return own, [InstructWorkflow(text, PHOTOGRAPH.name, text) for text in INSTRUCTIONS]


def new_words(source: str, target: str) -> list[str]:
    """The words that only the target has; if there are none, its longest word."""
    known = {word.strip(".,;:!?").lower() for word in source.split()}
    words = [word.strip(".,;:!?") for word in target.split()]
    added = [word for word in words if word and word.lower() not in known]
    return list(dict.fromkeys(added)) or sorted(words, key=len)[-1:]
