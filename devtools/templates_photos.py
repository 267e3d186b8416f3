"""The workflow templates that start from a picture: inversion and instructions."""

from __future__ import annotations

from devtools.templates import Link, Template, output
from devtools.templates_parts import (
    CHECKPOINT,
    CHECKPOINT_URL,
    DEMO_SIZE,
    decode_and_show,
    ksampler,
    sample_edits,
    word_swap,
)

INSTRUCT = "instruct-pix2pix-00-22000.safetensors"
INSTRUCT_URL = "https://huggingface.co/timbrooks/instruct-pix2pix/resolve/main/" + INSTRUCT


def edit_photo_demo() -> Template:
    template = Template(
        "edit_photo_demo",
        "**Edit a given picture.** The picture (here painted by three nodes; put *Load Image* in "
        "their place) is inverted under its description, then its words are edited. The first "
        "picture comes back as it was given.\n\n"
        "Sampler and inversion need the same steps and scheduler; the sampler must be a "
        "deterministic one, such as euler.",
        ("the given picture", "as the sampler gives it back", "a blue square …"),
    )
    model = template.add(0, "P2PDemoModel")
    photo = red_square(template)
    edit_photo(template, model, photo, "a {} square on a gray background", "red", "blue", steps=30)
    return template


def edit_photo_sd15() -> Template:
    template = Template(
        "edit_photo_sd15",
        "**Edit a photograph with Stable Diffusion 1.5.** Choose a checkpoint (any SD 1.x model) "
        "and a photograph of about 512x512, describe it in both *source* prompts, and say in the "
        "*target* prompt what it should show.\n\n"
        "The first picture is the photograph, the second the edit; the local blend keeps all "
        "that its words do not mark.",
        models=[{"name": CHECKPOINT, "url": CHECKPOINT_URL, "directory": "checkpoints"}],
    )
    model = template.add(0, "CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    photo = template.add(0, "LoadImage", image="example.png")
    prompt = "a photo of a {} sitting on a wooden bench in a park"
    edit_photo(template, model, photo, prompt, "cat", "dog", steps=50, cfg=7.5)
    return template


def follow_instruction_demo() -> Template:
    template = Template(
        "follow_instruction_demo",
        "**Follow an instruction.** The picture (here painted by three nodes; put *Load Image* in "
        "their place) is changed as the instruction says: 'make it blue', 'turn it into a star', "
        "'put it on a green background', 'make it striped'.\n\n"
        "The sampler's *cfg* says how strictly the text is followed, *image_cfg* how closely the "
        "picture is kept.",
        ("the given picture", "“turn it into a star”"),
    )
    model = template.add(0, "P2PDemoModel", variant="instructions")
    photo = red_square(template)
    follow(template, model, photo, "turn it into a star", steps=20, cfg=3.0)
    return template


def follow_instruction_sd15() -> Template:
    template = Template(
        "follow_instruction_sd15",
        "**Follow an instruction with InstructPix2Pix.** Choose an instruct-pix2pix checkpoint and "
        "a picture of about 512x512, and say what should change.\n\n"
        "Raise *image_cfg* if too much changes, raise the sampler's *cfg* if too little does.",
        models=[{"name": INSTRUCT, "url": INSTRUCT_URL, "directory": "checkpoints"}],
    )
    model = template.add(0, "CheckpointLoaderSimple", ckpt_name=INSTRUCT)
    photo = template.add(0, "LoadImage", image="example.png")
    follow(template, model, photo, "make it look like a watercolour", steps=50, cfg=7.5)
    return template


def red_square(template: Template) -> Link:
    """A picture made by the host's own nodes, and its preview."""
    size = {"width": DEMO_SIZE, "height": DEMO_SIZE, "batch_size": 1}
    ground = template.add(0, "EmptyImage", "A gray ground", **size, color=0x828488)
    square = template.add(
        0, "EmptyImage", "A red square", width=60, height=60, batch_size=1, color=0xD62728
    )
    photo = template.add(
        1, "ImageCompositeMasked", "The picture", destination=ground, source=square, x=34, y=38,
        resize_source=False,
    )  # fmt: skip
    template.add(4, "PreviewImage", "The given picture", images=photo)
    return photo


def edit_photo(
    template: Template,
    model: Link,
    photo: Link,
    prompt: str,
    old: str,
    new: str,
    *,
    steps: int,
    cfg: float = 6.0,
) -> None:
    """Inversion, swap of one word under a local blend, KSampler. prompt: {} is the word's place."""
    source, target = prompt.format(old), prompt.format(new)
    inverted = invert(template, model, photo, source, steps)
    swapped = word_swap(template, model, source, target)
    words = {"source_words": old, "target_words": new}
    edit = template.add(2, "P2PLocalBlendMask", edit=swapped, **words)
    samples = sample_edits(
        template, model, output(inverted, 1), [edit], steps=steps, cfg=cfg, inversion=inverted
    )
    decode_and_show(template, model, samples)


def invert(template: Template, model: Link, photo: Link, prompt: str, steps: int) -> Link:
    """The P2P_INVERSION of a picture under its description."""
    encoded = template.add(1, "VAEEncode", pixels=photo, vae=output(model, 2))
    text = template.add(
        1, "CLIPTextEncode", "Source prompt (the same again)", clip=output(model, 1), text=prompt
    )
    return template.add(
        2, "P2PDDIMInvert", model=model, positive=text, latent=encoded, steps=steps,
        scheduler="normal",
    )  # fmt: skip


def follow(
    template: Template, model: Link, photo: Link, instruction: str, *, steps: int, cfg: float
) -> None:
    """Instruction, conditioning and KSampler; what it makes of the picture."""
    clip = output(model, 1)
    positive = template.add(1, "CLIPTextEncode", "Instruction", clip=clip, text=instruction)
    negative = template.add(1, "CLIPTextEncode", "Negative (empty)", clip=clip, text="")
    made = template.add(
        2,
        "IP2PConditioning",
        model=model,
        positive=positive,
        negative=negative,
        vae=output(model, 2),
        image=photo,
        image_cfg=1.5,
    )
    samples = ksampler(
        template,
        model=made,
        positive=output(made, 1),
        negative=output(made, 2),
        latent_image=output(made, 4),
        steps=steps,
        cfg=cfg,
    )
    pictures = template.add(3, "VAEDecode", samples=samples, vae=output(model, 2))
    template.add(4, "PreviewImage", "After the instruction", images=pictures)
