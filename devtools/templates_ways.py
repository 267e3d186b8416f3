"""One picture, one wish, and every way to it: side by side in one graph."""

from __future__ import annotations

from devtools.templates import Link, Template, output
from devtools.templates_parts import (
    CHECKPOINT,
    CHECKPOINT_URL,
    SD15,
    demo_model,
    encoded,
    ksampler,
    paint,
    sample_edits,
    word_swap,
)
from devtools.templates_photos import INSTRUCT, INSTRUCT_URL, follow, invert

CAT, DOG = "a cat on the grass", "a dog on the grass"
BENCH = "a photo of a {} sitting on a wooden bench in a park"
CONTROLNET = "control_v11p_sd15_canny_fp16.safetensors"
CONTROLNET_URL = (
    "https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/"
    + CONTROLNET
)
STAGES = {
    0: "Start", 1: "Picture, words", 2: "What each way gets", 3: "Sampling", 4: "Results",
}  # fmt: skip
# What nobody has to change: so the words and the results are large enough to be read.
MACHINERY = {
    "KSampler", "P2PAttentionController", "P2PDDIMInvert", "P2PPlainPrompt", "P2PAttentionMaps",
    "IP2PConditioning", "ControlNetApplyAdvanced", "ControlNetLoader", "Canny", "ThresholdMask",
    "GrowMask", "SetLatentNoiseMask", "LatentFromBatch", "EmptyLatentImage",
}  # fmt: skip


def five_ways() -> Template:
    template = Template(
        "09 Five ways to edit one picture",
        "**One picture, one wish, five ways.** A cat should be a dog, and the rest should stay.\n\n"
        "1 *Inpainting* paints the masked part anew. 2 *Image to image* starts half way from the "
        "picture. 3 *Prompt-to-Prompt* edits while the picture is made. 4 *Inversion* does so with "
        "a given one. 5 *InstructPix2Pix* follows a sentence.\n\n"
        "Change the words of all, and compare what else has changed. Nodes that need no change are "
        "collapsed: a click on the dot before their title opens them.",
        ("the picture", "inpainting", "image to image", "P2P", "inversion", "instruction"),
        stages=STAGES,
        collapsed=MACHINERY,
    )
    model = demo_model(template)
    photo = paint(template, model, CAT, "The picture")
    mask = cat_mask(template, model, photo)
    ways(template, model, photo, mask, CAT, DOG, steps=20, cfg=6.0, latent=output(model, 3))
    instruct = demo_model(template, "instructions")
    made = follow(template, instruct, photo, "turn it into a dog", steps=20, cfg=3.0)
    retitled(template, made, "5 InstructPix2Pix")
    return template


def six_ways_sd15() -> Template:
    source, target = BENCH.format("cat"), BENCH.format("dog")
    template = Template(
        "14 Six ways to edit one picture (SD1.5)",
        "**One photograph, one wish, six ways.** Load a photograph of a cat (512x512), paint its "
        "mask in the loader (right click, *Open in MaskEditor*), and describe it in every source "
        "prompt.\n\n"
        "Inpainting, image to image, Prompt-to-Prompt (of the same prompt, without the "
        "photograph), inversion with Prompt-to-Prompt, InstructPix2Pix, and a ControlNet of the "
        "photograph's edges. Nodes that need no change are collapsed: a click on the dot before "
        "their title opens them.",
        models=[
            {"name": CHECKPOINT, "url": CHECKPOINT_URL, "directory": "checkpoints"},
            {"name": INSTRUCT, "url": INSTRUCT_URL, "directory": "checkpoints"},
            {"name": CONTROLNET, "url": CONTROLNET_URL, "directory": "controlnet"},
        ],
        model_title=SD15,
        stages=STAGES,
        collapsed=MACHINERY,
    )
    model = template.add(0, "CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    photo = template.add(1, "LoadImage", "The photograph and its mask", image="example.png")
    latent = template.add(0, "EmptyLatentImage", width=512, height=512, batch_size=1)
    ways(template, model, photo, output(photo, 1), source, target, steps=30, cfg=7.5, latent=latent)
    instruct = template.add(0, "CheckpointLoaderSimple", ckpt_name=INSTRUCT)
    made = follow(template, instruct, photo, "turn the cat into a dog", steps=30, cfg=7.5)
    retitled(template, made, "5 InstructPix2Pix")
    by_edges(template, model, photo, target, latent)
    return template


def cat_mask(template: Template, model: Link, photo: Link) -> Link:
    """Where "cat" looks while the same picture is made: a mask without painting one."""
    plain = template.add(1, "P2PPlainPrompt", clip=output(model, 1), prompt=CAT)
    samples = sample_edits(template, model, output(model, 3), [plain])
    controller = template.graph[samples[0]]["inputs"]["model"]
    maps = template.add(
        3, "P2PAttentionMaps", record=output(controller, 3), samples=samples, words="cat",
        image=photo,
    )  # fmt: skip
    sharp = template.add(3, "ThresholdMask", mask=output(maps, 1), value=0.08)
    return template.add(3, "GrowMask", mask=sharp, expand=10, tapered_corners=True)


def ways(
    template: Template,
    model: Link,
    photo: Link,
    mask: Link,
    source: str,
    target: str,
    *,
    steps: int,
    cfg: float,
    latent: Link,
) -> None:
    """The first four ways, each with its preview."""
    positive = encoded(template, model, target, "Target prompt", 2)
    nothing = encoded(template, model, "", "Negative prompt", 2)
    pixels = template.add(2, "VAEEncode", pixels=photo, vae=output(model, 2))
    plain = {"model": model, "positive": positive, "negative": nothing, "steps": steps, "cfg": cfg}
    masked = template.add(2, "SetLatentNoiseMask", samples=pixels, mask=mask)
    inpainted = ksampler(template, latent_image=masked, title="1 Inpainting", **plain)
    halfway = ksampler(
        template, latent_image=pixels, denoise=0.7, title="2 Image to image", **plain
    )
    edit = word_swap(template, model, source, target)
    made = sample_edits(template, model, latent, [edit], steps=steps, cfg=cfg)
    inverted = invert(template, model, photo, source, steps)
    given = sample_edits(
        template, model, output(inverted, 1), [edit], steps=steps, cfg=cfg, inversion=inverted
    )
    for title, samples, batch in (
        ("1 Inpainting", inpainted, False),
        ("2 Image to image", halfway, False),
        ("3 Prompt-to-Prompt", made, True),
        ("4 Inversion, Prompt-to-Prompt", given, True),
    ):
        shown(template, model, samples, title, edit_only=batch)


def shown(
    template: Template, model: Link, samples: Link, title: str, *, edit_only: bool = False
) -> None:
    """A preview; of a controlled run only the edit."""
    if edit_only:
        samples = template.add(3, "LatentFromBatch", samples=samples, batch_index=1, length=1)
    picture = template.add(3, "VAEDecode", samples=samples, vae=output(model, 2))
    template.add(4, "PreviewImage", title, images=picture)


def retitled(template: Template, pictures: Link, title: str) -> None:
    """Another title for the preview of pictures."""
    for node_id, node in template.graph.items():
        if node["class_type"] == "PreviewImage" and node["inputs"]["images"] == pictures:
            template.titles[node_id] = title


def by_edges(template: Template, model: Link, photo: Link, target: str, latent: Link) -> None:
    """The photograph's edges hold a picture of the target prompt."""
    edges = template.add(1, "Canny", image=photo, low_threshold=0.4, high_threshold=0.8)
    net = template.add(1, "ControlNetLoader", control_net_name=CONTROLNET)
    positive = encoded(template, model, target, "Target prompt (ControlNet)", 1)
    nothing = encoded(template, model, "", "Negative prompt (ControlNet)", 1)
    held = template.add(
        1, "ControlNetApplyAdvanced", positive=positive, negative=nothing, control_net=net,
        image=edges, strength=1.0, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    samples = ksampler(
        template, model=model, positive=held, negative=output(held, 1), latent_image=latent,
        steps=30, cfg=7.5, title="6 ControlNet",
    )  # fmt: skip
    shown(template, model, samples, "6 ControlNet (edges)")
