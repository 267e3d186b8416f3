"""Graphs that try many settings of one edit."""

from __future__ import annotations

from devtools.templates import Template, output
from devtools.templates_parts import SEED, demo_model, encoded, sample_edits, word_swap

CAT, DOG = "a cat on the grass", "a dog on the grass"
SHARES = ("0", "0.2", "0.4", "0.6", "0.8", "1")


def injection_shares() -> Template:
    template = Template(
        "10 Sweep of the injection shares",
        "**How long should the source's attention be used?** One edit with six shares of the "
        "words' attention (left to right) and three of the shapes' (top to bottom), from one "
        "seed.\n\n"
        "Write other lists (`0:1:0.1`, `0, 0.5`), *seeds*, or *scales* of a word. The red frame "
        "marks the best, which is wired on below. Look at the sheet: without CLIP the node cannot "
        "know what a dog is; wire *clip_vision* and *score_clip* with your own models.\n\n"
        "Pictures and scores are in the output folder, *sweeps*; a cancelled run goes on.",
        tuple(f"share {share}" for share in SHARES),
    )
    model = demo_model(template)
    edit = word_swap(template, model, CAT, DOG)
    nothing = encoded(template, model, "", "Negative prompt")
    sweep = template.add(
        2, "P2PSweep", model=model, latent=output(model, 3), negative=nothing, vae=output(model, 2),
        edit=edit, seed=SEED, steps=20, cfg=6.0, sampler_name="euler", scheduler="normal",
        cross_replace_steps="0:1:0.2", self_replace_steps="0, 0.4, 0.8", batch=6,
        folder="sweeps/shares",
    )  # fmt: skip
    template.add(4, "PreviewImage", "The sheet", images=sweep)
    row = template.add(
        3,
        "ImageFromBatch",
        "The first row",
        image=output(sweep, 1),
        batch_index=0,
        length=len(SHARES),
    )
    template.add(4, "PreviewImage", "The first row", images=row)
    best = sample_edits(template, model, output(model, 3), [output(sweep, 2)])
    template.graph[best[0]]["inputs"]["seed"] = output(sweep, 3)
    pictures = template.add(3, "VAEDecode", samples=best, vae=output(model, 2))
    controller = template.graph[best[0]]["inputs"]["model"]
    template.add(4, "P2PCompare", "The best", record=output(controller, 3), images=pictures)
    return template
