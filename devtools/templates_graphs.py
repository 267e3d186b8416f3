"""What the workflow templates show: each one a graph, its columns and a note."""

from __future__ import annotations

from devtools.templates import Template, output
from devtools.templates_models import model_templates
from devtools.templates_parts import (
    CHECKPOINT,
    CHECKPOINT_URL,
    SD15,
    SD15_SIZE,
    decode_and_show,
    demo_model,
    empty_latent,
    encoded,
    ksampler,
    refine,
    sample_edits,
    with_app_mode,
    word_swap,
)
from devtools.templates_photos import (
    edit_photo_demo,
    edit_photo_sd15,
    follow_instruction_demo,
    follow_instruction_sd15,
    save_and_reload,
)
from devtools.templates_pictures import picture_swap
from devtools.templates_sweeps import injection_shares
from devtools.templates_ways import five_ways, six_ways_sd15

CAT, DOG = "a cat on the grass", "a dog on the grass"
HAT = "a cat wearing a hat on the grass"
AUTUMN = "a cat on the grass in autumn"
FADER = (-2.0, -1.0, 0.0, 2.0)


def templates() -> list[Template]:
    made = [
        first_edit(),
        edit_and_its_parts(),
        fader_of_a_word(),
        several_edits(),
        local_blend(),
        edit_photo_demo(),
        save_and_reload(),
        follow_instruction_demo(),
        five_ways(),
        injection_shares(),
        word_swap_sd15(),
        edit_photo_sd15(),
        follow_instruction_sd15(),
        six_ways_sd15(),
        *model_templates(),
        picture_swap(),
    ]
    return [with_app_mode(template) for template in made]


def first_edit() -> Template:
    template = Template(
        "01 First edit",
        "**Your first edit.** Queue it: the source and the edit, from the same noise.\n\n"
        "Change words of the *target prompt*: a rabbit, a lion, in the snow, at night, wearing a "
        "hat. Lower *strength* frees the edit, 1 holds it closest to the source.\n\n"
        "It runs on any computer, without a download.",
        ("a cat on the grass", "a dog on the grass"),
    )
    model = demo_model(template)
    edit = template.add(
        1, "P2PEdit", model=model, clip=output(model, 1), latent=output(model, 3),
        source_prompt=CAT, target_prompt=DOG,
    )  # fmt: skip
    samples = ksampler(
        template, model=edit, positive=output(edit, 1), latent_image=output(edit, 2),
        negative=encoded(template, model, "", "Negative prompt"), steps=20, cfg=6.0, column=2,
    )  # fmt: skip
    decode_and_show(template, model, samples, 3)
    return template


def edit_and_its_parts() -> Template:
    template = Template(
        "02 Word swap",
        "**What P2P Edit is made of.** Above the one node; below the nodes that it stands for: a "
        "*Word Swap* with windows of its own, and the *Attention Controller*.\n\n"
        "*cross_replace_steps*: how long words keep the source's attention. *self_replace_steps*: "
        "how long shapes do. Lower both when the new thing cannot take its own shape.",
        ("a cat on the grass", "P2P Edit", "a cat on the grass", "Word Swap"),
    )
    model = demo_model(template)
    edit = template.add(
        1, "P2PEdit", "P2P Edit: one node", model=model, clip=output(model, 1),
        latent=output(model, 3), source_prompt=CAT, target_prompt=DOG,
    )  # fmt: skip
    swap = word_swap(template, model, CAT, DOG)
    below = sample_edits(template, model, output(model, 3), [swap])
    negative = template.graph[below[0]]["inputs"]["negative"]
    above = ksampler(
        template, model=edit, positive=output(edit, 1), latent_image=output(edit, 2),
        negative=negative, steps=20, cfg=6.0,
    )  # fmt: skip
    for title, samples in (("By P2P Edit", above), ("By its parts", below)):
        pictures = template.add(4, "VAEDecode", samples=samples, vae=output(model, 2))
        template.add(4, "PreviewImage", title, images=pictures)
    return template


def fader_of_a_word() -> Template:
    template = Template(
        "03 Fader of a word",
        "**A fader for one word.** The same seed with *autumn* at 1, then at -2, -1, 0 and 2 "
        "times its attention.\n\n"
        "Change the *scale* of a Reweight, or its *words*: several, separated by commas, are "
        "scaled alike. A Reweight may also follow another edit.",
        ("autumn at 1", *(f"autumn at {scale:g}" for scale in FADER)),
    )
    model = demo_model(template)
    edits = [
        template.add(
            1, "P2PReweight", f"autumn at {scale:g}", words="autumn", scale=scale,
            clip=output(model, 1), prompt=AUTUMN,
        )
        for scale in FADER
    ]  # fmt: skip
    decode_and_show(template, model, sample_edits(template, model, output(model, 3), edits))
    return template


def several_edits() -> Template:
    template = Template(
        "04 Several edits at once",
        "**Several edits of one source, in one batch.** A word swapped, a place swapped, a word "
        "added; all from the same noise.\n\n"
        "Further edits go into *edit_2*, *edit_3* … of the controller. *P2P Compare* labels them "
        "with what changed.",
        (CAT, "a dog …", "… in the snow", "… wearing a hat"),
    )
    model = demo_model(template)
    edits = [
        word_swap(template, model, CAT, DOG, "Another animal"),
        word_swap(template, model, CAT, "a cat in the snow", "Another place"),
        refine(template, model, CAT, HAT, "A word more"),
    ]
    decode_and_show(template, model, sample_edits(template, model, output(model, 3), edits))
    return template


def local_blend() -> Template:
    template = Template(
        "05 Local blend and heat maps",
        "**Local blend.** The edit stays where *cat* and *lion* look; everywhere else the picture "
        "is the source's, bit for bit.\n\n"
        "Lower the *threshold* for a larger region. The heat maps show where the words look, the "
        "mask what was free to change.",
        (CAT, "a lion on the grass", "free to change"),
    )
    model = demo_model(template)
    swapped = word_swap(template, model, CAT, "a lion on the grass")
    edit = template.add(
        1,
        "P2PLocalBlendMask",
        edit=swapped,
        source_words="cat",
        target_words="lion",
        threshold=0.15,
    )
    samples = sample_edits(template, model, output(model, 3), [edit])
    pictures = decode_and_show(template, model, samples)
    controller = template.graph[samples[0]]["inputs"]["model"]
    maps = template.add(
        3, "P2PAttentionMaps", record=output(controller, 3), samples=samples, words="cat, lion",
        image=pictures,
    )  # fmt: skip
    template.add(5, "PreviewImage", "Where the words look", images=maps)
    mask = template.add(4, "MaskToImage", mask=output(maps, 2))
    template.add(5, "PreviewImage", "The mask of the local blend", images=mask)
    return template


def word_swap_sd15() -> Template:
    template = Template(
        "11 Word swap (SD1.5)",
        "**Word swap with Stable Diffusion 1.5.** Choose your checkpoint (any SD 1.x model), then "
        "queue: the first picture is the source, the second has the new word.\n\n"
        "Lower *cross_replace_steps* gives the new word more freedom, higher *self_replace_steps* "
        "keeps more of the shapes.",
        models=[{"name": CHECKPOINT, "url": CHECKPOINT_URL, "directory": "checkpoints"}],
        model_title=SD15,
    )
    model = template.add(0, "CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    latent = empty_latent(template, SD15_SIZE)
    edit = word_swap(
        template,
        model,
        "a photo of a cat sitting on a wooden bench in a park",
        "a photo of a dog sitting on a wooden bench in a park",
    )
    samples = sample_edits(
        template, model, latent, [edit], "blurry, low quality", steps=30, cfg=7.5
    )
    decode_and_show(template, model, samples)
    return template
