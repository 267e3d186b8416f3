"""What the workflow templates show: each one a graph, its columns and a note."""

from __future__ import annotations

from devtools.templates import Template, output
from devtools.templates_models import model_templates
from devtools.templates_parts import (
    CHECKPOINT,
    CHECKPOINT_URL,
    DEMO_SIZE,
    SD15_SIZE,
    decode_and_show,
    empty_latent,
    sample_edits,
    word_swap,
)
from devtools.templates_photos import (
    edit_photo_demo,
    edit_photo_sd15,
    follow_instruction_demo,
    follow_instruction_sd15,
)

PLAIN = "a red circle on a green background"


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
        *model_templates(),
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
    edit = word_swap(template, model, PLAIN, "a blue circle on a green background")
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
    swapped = word_swap(
        template,
        model,
        "a red circle on a white background",
        "a blue star on a white background",
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
