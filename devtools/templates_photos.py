"""The workflow templates that start from a picture: inversion and instructions."""

from __future__ import annotations

from devtools.templates import Link, Template, output
from devtools.templates_parts import (
    CHECKPOINT,
    CHECKPOINT_URL,
    INSTRUCTION,
    SD15,
    decode_and_show,
    demo_model,
    encoded,
    ksampler,
    paint,
    sample_edits,
    word_swap,
)

INSTRUCT = "instruct-pix2pix-00-22000.safetensors"
INSTRUCT_URL = "https://huggingface.co/timbrooks/instruct-pix2pix/resolve/main/" + INSTRUCT
CAR, BLUE_CAR = "a red car on the beach", "a blue car on the beach"
GIRL = "a girl with {} hair holding a {}"
STEPS = 30


def edit_photo_demo() -> Template:
    template = Template(
        "06 Edit a photo",
        "**Edit a given picture.** It (here painted by the demo model; put *Load Image* in its "
        "place) is inverted under its description, then a word is swapped. The first picture "
        "comes back as it was given.\n\n"
        "Sampler and inversion need the same steps and scheduler, and a deterministic sampler, "
        "such as euler.",
        ("the given picture", "as it comes back", "a blue car …"),
    )
    model = demo_model(template)
    photo = paint(template, model, CAR, "The given picture")
    inverted = invert(template, model, photo, CAR, STEPS)
    edit = blended(template, word_swap(template, model, CAR, BLUE_CAR), "car", "car")
    edited(template, model, inverted, [edit], STEPS)
    return template


def save_and_reload() -> Template:
    template = Template(
        "07 Save and reload an inversion",
        "**Invert once, edit on other days.** Queue it: the inversion is saved in the output "
        "folder, and edited.\n\n"
        "On another day press R, wake the muted *Load Inversion* (Ctrl+M), choose the file, and "
        "wire its two outputs to the controller in place of the inversion's.",
        ("the given picture", "as it comes back", "a car in the city"),
    )
    model = demo_model(template)
    photo = paint(template, model, CAR, "The given picture")
    inverted = invert(template, model, photo, CAR, STEPS)
    template.add(2, "P2PSaveInversion", inversion=inverted, name="inversions/red_car")
    template.mute(template.add(2, "P2PLoadInversion", "Load Inversion (muted)", file="none yet"))
    edit = word_swap(template, model, CAR, "a red car in the city")
    edited(template, model, inverted, [edit], STEPS)
    return template


def edit_photo_sd15() -> Template:
    template = Template(
        "12 Edit a photo (SD1.5)",
        "**Edit a photograph with Stable Diffusion 1.5.** Choose a checkpoint (any SD 1.x model) "
        "and a photograph of about 512x512, here of a girl with black hair who holds a dog; "
        "describe yours in every *source* prompt.\n\n"
        "The first picture is the photograph, the second has red hair, the third a cat, the "
        "fourth both.",
        models=[{"name": CHECKPOINT, "url": CHECKPOINT_URL, "directory": "checkpoints"}],
        model_title=SD15,
    )
    model = template.add(0, "CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    photo = template.add(0, "LoadImage", "The photograph", image="example.png")
    source = GIRL.format("black", "dog")
    inverted = invert(template, model, photo, source, 50)
    hair = word_swap(template, model, source, GIRL.format("red", "dog"), "Red hair")
    pet = word_swap(template, model, source, GIRL.format("black", "cat"), "A cat")
    both = word_swap(template, model, source, GIRL.format("red", "cat"), "Both")
    edits = [
        blended(template, hair, "hair", "hair"),
        blended(template, pet, "dog", "cat"),
        blended(template, both, "hair, dog", "hair, cat"),
    ]
    edited(template, model, inverted, edits, 50, cfg=7.5)
    return template


def follow_instruction_demo() -> Template:
    template = Template(
        "08 Follow an instruction",
        "**Follow an instruction.** The picture (here painted by the demo model; put *Load Image* "
        "in its place) is changed as the instruction says: 'make it yellow', 'put it in the snow', "
        "'turn it into a teapot', 'turn it into a mushroom'.\n\n"
        "The sampler's *cfg* says how strictly the text is followed, *image_cfg* how closely the "
        "picture is kept.",
        ("the given picture", "“make it blue”"),
    )
    model = demo_model(template)
    photo = paint(template, model, CAR, "The given picture")
    follow(template, demo_model(template, "instructions"), photo, "make it blue", steps=20, cfg=3.0)
    return template


def follow_instruction_sd15() -> Template:
    template = Template(
        "13 Follow an instruction (SD1.5)",
        "**Follow an instruction with InstructPix2Pix.** Choose an instruct-pix2pix checkpoint and "
        "a picture of about 512x512, and say what should change.\n\n"
        "Raise *image_cfg* if too much changes, raise the sampler's *cfg* if too little does.",
        models=[{"name": INSTRUCT, "url": INSTRUCT_URL, "directory": "checkpoints"}],
        model_title=SD15,
    )
    model = template.add(0, "CheckpointLoaderSimple", ckpt_name=INSTRUCT)
    photo = template.add(0, "LoadImage", image="example.png")
    follow(template, model, photo, "make it look like a watercolour", steps=50, cfg=7.5)
    return template


def blended(template: Template, edit: Link, source_words: str, target_words: str) -> Link:
    """The edit under a local blend of these words."""
    words = {"source_words": source_words, "target_words": target_words}
    return template.add(1, "P2PLocalBlendMask", edit=edit, **words)


def invert(
    template: Template, model: Link, photo: Link, prompt: str, steps: int, column: int = 2
) -> Link:
    """The P2P_INVERSION of a picture under its description."""
    encoding = template.add(column, "VAEEncode", pixels=photo, vae=output(model, 2))
    text = encoded(template, model, prompt, "Source prompt (the same again)", column)
    return template.add(
        column, "P2PDDIMInvert", model=model, positive=text, latent=encoding, steps=steps,
        scheduler="normal",
    )  # fmt: skip


def edited(
    template: Template, model: Link, inverted: Link, edits: list[Link], steps: int, cfg: float = 6.0
) -> None:
    """The edits of an inverted picture, sampled and shown."""
    samples = sample_edits(
        template, model, output(inverted, 1), edits, steps=steps, cfg=cfg, inversion=inverted
    )
    decode_and_show(template, model, samples)


def follow(
    template: Template, model: Link, photo: Link, instruction: str, *, steps: int, cfg: float
) -> Link:
    """Instruction, conditioning and KSampler; what it makes of the picture."""
    positive = encoded(template, model, instruction, INSTRUCTION, 2)
    negative = encoded(template, model, "", "Negative (empty)", 2)
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
        title="Follows the instruction",
    )
    pictures = template.add(3, "VAEDecode", samples=samples, vae=output(model, 2))
    template.add(4, "PreviewImage", "After the instruction", images=pictures)
    return pictures
