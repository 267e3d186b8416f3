"""What the workflow templates show: each one a graph, its columns and a note."""

from __future__ import annotations

from devtools.templates import Link, Template, output

DEMO_SIZE, SD15_SIZE = 128, 512
SEED = 5
SWAP_TITLE = "Word Swap (source, then target)"
PLAIN = "a red circle on a green background"
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
CHECKPOINT_URL = (
    "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/" + CHECKPOINT
)


INSTRUCT = "instruct-pix2pix-00-22000.safetensors"
INSTRUCT_URL = "https://huggingface.co/timbrooks/instruct-pix2pix/resolve/main/" + INSTRUCT


def templates() -> list[Template]:
    return [
        word_swap_demo(),
        refine_and_reweight_demo(),
        local_blend_demo(),
        edit_photo_demo(),
        word_swap_sd15(),
        edit_photo_sd15(),
        follow_instruction_demo(),
        follow_instruction_sd15(),
    ]


def word_swap_demo() -> Template:
    template = Template(
        "word_swap_demo",
        "**Word swap.** Queue it: the first picture is the source, the second has the new word.\n\n"
        "Change the words of the *target* prompt; lower *cross_replace_steps* and "
        "*self_replace_steps* when the new thing cannot take its own shape. It runs on any "
        "computer, without a download.",
        ("a red circle …", "a blue circle …"),
    )
    model = template.add(0, "P2PDemoModel")
    latent = empty_latent(template, DEMO_SIZE)
    edit = template.add(
        1,
        "P2PWordSwap",
        SWAP_TITLE,
        clip=output(model, 1),
        source_prompt=PLAIN,
        target_prompt="a blue circle on a green background",
    )
    decode_and_show(template, model, sample_edits(template, model, latent, [edit]))
    return template


def refine_and_reweight_demo() -> Template:
    template = Template(
        "refine_and_reweight_demo",
        "**Refine and reweight.** Three pictures of one seed: the source, the same with an added "
        "word, and the same with that word's *scale* changed.\n\n"
        "Try scales from -2 to 2; more edits of the same source go into *edit_3* and so on.",
        ("a red circle …", "a striped red circle …", "striped at scale 0.3"),
    )
    model = template.add(0, "P2PDemoModel")
    latent = empty_latent(template, DEMO_SIZE)
    refined = template.add(
        1,
        "P2PRefine",
        "Refine (source, then target)",
        clip=output(model, 1),
        source_prompt=PLAIN,
        target_prompt="a striped red circle on a green background",
    )
    reweighted = template.add(
        1, "P2PReweight", "Reweight (less 'striped')", edit=refined, words="striped", scale=0.3
    )
    samples = sample_edits(template, model, latent, [refined, reweighted])
    decode_and_show(template, model, samples)
    return template


def local_blend_demo() -> Template:
    template = Template(
        "local_blend_demo",
        "**Local blend.** The edit is confined to where *red circle* and *blue star* look; "
        "everywhere else the picture stays the source's.\n\n"
        "Lower the *threshold* for a larger region; the two lower previews show where the words "
        "look and the mask that was used.",
        ("a red circle …", "a blue star …", "the edit's region"),
    )
    model = template.add(0, "P2PDemoModel")
    latent = empty_latent(template, DEMO_SIZE)
    swapped = template.add(
        1,
        "P2PWordSwap",
        SWAP_TITLE,
        clip=output(model, 1),
        source_prompt="a red circle on a white background",
        target_prompt="a blue star on a white background",
        cross_replace_steps=0.4,
        self_replace_steps=0.2,
    )
    edit = template.add(
        2,
        "P2PLocalBlendMask",
        edit=swapped,
        source_words="red circle",
        target_words="blue star",
        threshold=0.6,
    )
    samples = sample_edits(template, model, latent, [edit], seed=2)
    pictures = decode_and_show(template, model, samples, previews=5)
    controller = template.graph[samples[0]]["inputs"]["model"]
    maps = template.add(
        4,
        "P2PAttentionMaps",
        record=output(controller, 3),
        samples=samples,
        words="red circle, blue star",
        image=pictures,
    )
    template.add(5, "PreviewImage", "Where the words look", images=maps)
    mask = template.add(4, "MaskToImage", mask=output(maps, 2))
    template.add(5, "PreviewImage", "The mask of the local blend", images=mask)
    return template


def word_swap_sd15() -> Template:
    template = Template(
        "word_swap_sd15",
        "**Word swap with Stable Diffusion 1.5.** Choose your checkpoint (any SD 1.x model), then "
        "queue: the first picture is the source, the second has the new word.\n\n"
        "Lower *cross_replace_steps* gives the new word more freedom, higher *self_replace_steps* "
        "keeps more of the shapes.",
        models=[{"name": CHECKPOINT, "url": CHECKPOINT_URL, "directory": "checkpoints"}],
    )
    model = template.add(0, "CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    latent = empty_latent(template, SD15_SIZE)
    edit = template.add(
        1,
        "P2PWordSwap",
        SWAP_TITLE,
        clip=output(model, 1),
        source_prompt="a photo of a cat sitting on a wooden bench in a park",
        target_prompt="a photo of a dog sitting on a wooden bench in a park",
    )
    samples = sample_edits(
        template, model, latent, [edit], "blurry, low quality", steps=30, cfg=7.5
    )
    decode_and_show(template, model, samples)
    return template


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
    inverted = invert(template, model, photo, "a red square on a gray background", steps=30)
    swapped = template.add(
        1,
        "P2PWordSwap",
        SWAP_TITLE,
        clip=output(model, 1),
        source_prompt="a red square on a gray background",
        target_prompt="a blue square on a gray background",
    )
    edit = template.add(
        2, "P2PLocalBlendMask", edit=swapped, source_words="red", target_words="blue"
    )
    samples = sample_edits(
        template, model, output(inverted, 1), [edit], steps=30, inversion=inverted
    )
    decode_and_show(template, model, samples)
    return template


def edit_photo_sd15() -> Template:
    source = "a photo of a cat sitting on a wooden bench in a park"
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
    inverted = invert(template, model, photo, source, steps=50)
    swapped = template.add(
        1,
        "P2PWordSwap",
        SWAP_TITLE,
        clip=output(model, 1),
        source_prompt=source,
        target_prompt="a photo of a dog sitting on a wooden bench in a park",
    )
    edit = template.add(
        2, "P2PLocalBlendMask", edit=swapped, source_words="cat", target_words="dog"
    )
    samples = sample_edits(
        template, model, output(inverted, 1), [edit], steps=50, cfg=7.5, inversion=inverted
    )
    decode_and_show(template, model, samples)
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
    samples = template.add(
        3,
        "KSampler",
        model=made,
        positive=output(made, 1),
        negative=output(made, 2),
        latent_image=output(made, 4),
        seed=SEED,
        steps=steps,
        cfg=cfg,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
    )
    pictures = template.add(3, "VAEDecode", samples=samples, vae=output(model, 2))
    template.add(4, "PreviewImage", "After the instruction", images=pictures)


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


def empty_latent(template: Template, size: int) -> Link:
    return template.add(0, "EmptyLatentImage", width=size, height=size, batch_size=1)


def sample_edits(
    template: Template,
    model: Link,
    latent: Link,
    edits: list[Link],
    negative: str = "",
    *,
    steps: int = 20,
    cfg: float = 6.0,
    seed: int = SEED,
    inversion: Link | None = None,
) -> Link:
    """Negative prompt, controller and KSampler; the samples."""
    clip = output(model, 1)
    text = template.add(1, "CLIPTextEncode", "Negative prompt", clip=clip, text=negative)
    names = ["edit", *(f"edit_{number}" for number in range(2, len(edits) + 1))]
    wired = dict(zip(names, edits, strict=True))
    if inversion is not None:
        wired["inversion"] = inversion
    controller = template.add(2, "P2PAttentionController", model=model, latent=latent, **wired)
    return template.add(
        3,
        "KSampler",
        model=controller,
        positive=output(controller, 1),
        negative=text,
        latent_image=output(controller, 2),
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
    )


def decode_and_show(template: Template, model: Link, samples: Link, previews: int = 4) -> Link:
    pictures = template.add(3, "VAEDecode", samples=samples, vae=output(model, 2))
    template.add(previews, "PreviewImage", "Source and edited pictures", images=pictures)
    return pictures
