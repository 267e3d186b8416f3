"""Parts that the graphs of the workflow templates share."""

from __future__ import annotations

from devtools.templates import Link, Template, output

DEMO_SIZE, SD15_SIZE = 128, 512
SEED = 4
PROMPTS = ("source_prompt", "target_prompt")
INSTRUCTION = "Instruction"
APP_INPUTS = {
    "P2PEdit": (*PROMPTS, "strength"),
    "P2PWordSwap": PROMPTS,
    "P2PRefine": PROMPTS,
    "P2PReweight": ("words", "scale"),
    "P2PPromptWeights": ("text",),
    "LoadImage": ("image",),
    "P2PSweep": ("cross_replace_steps", "self_replace_steps", "seeds"),
}
APP_OUTPUTS = ("PreviewImage", "P2PCompare")
SD15 = "Stable Diffusion 1.5"
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
CHECKPOINT_URL = (
    "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/" + CHECKPOINT
)


def with_app_mode(template: Template) -> Template:
    """App Mode shows the words and scales of the graph, and its pictures."""
    for node_id, node in template.awake.items():
        kind, title = node["class_type"], template.titles.get(node_id)
        template.app_inputs += [(node_id, name) for name in APP_INPUTS.get(kind, ())]
        if title == INSTRUCTION:
            template.app_inputs.append((node_id, "text"))
        if kind in APP_OUTPUTS:
            template.app_outputs.append(node_id)
    return template


def demo_model(template: Template, variant: str = "text to image") -> Link:
    return template.add(0, "P2PDemoModel", variant=variant)


def encoded(template: Template, model: Link, text: str, title: str, column: int = 1) -> Link:
    return template.add(column, "CLIPTextEncode", title, clip=output(model, 1), text=text)


def empty_latent(template: Template, size: int) -> Link:
    return template.add(0, "EmptyLatentImage", width=size, height=size, batch_size=1)


def refine(template: Template, model: Link, source: str, target: str, title: str) -> Link:
    prompts = {"source_prompt": source, "target_prompt": target}
    return template.add(1, "P2PRefine", title, clip=output(model, 1), **prompts)


def word_swap(
    template: Template,
    model: Link,
    source: str,
    target: str,
    title: str = "Word Swap (source, then target)",
    **shares: float,
) -> Link:
    return template.add(
        1,
        "P2PWordSwap",
        title,
        clip=output(model, 1),
        source_prompt=source,
        target_prompt=target,
        **shares,
    )


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
    text = template.add(2, "CLIPTextEncode", "Negative prompt", clip=clip, text=negative)
    names = ["edit", *(f"edit_{number}" for number in range(2, len(edits) + 1))]
    wired = dict(zip(names, edits, strict=True))
    if inversion is not None:
        wired["inversion"] = inversion
    controller = template.add(2, "P2PAttentionController", model=model, latent=latent, **wired)
    return ksampler(
        template,
        model=controller,
        positive=output(controller, 1),
        negative=text,
        latent_image=output(controller, 2),
        steps=steps,
        cfg=cfg,
        seed=seed,
    )


def ksampler(
    template: Template,
    *,
    steps: int,
    cfg: float,
    seed: int = SEED,
    denoise: float = 1.0,
    title: str = "",
    column: int = 3,
    **wired: Link,
) -> Link:
    """The samples of a deterministic run."""
    return template.add(
        column,
        "KSampler",
        title,
        **wired,
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name="euler",
        scheduler="normal",
        denoise=denoise,
    )


def decode_and_show(template: Template, model: Link, samples: Link, previews: int = 4) -> Link:
    """Decoded pictures beside each other, and labelled by P2P Compare; the pictures."""
    pictures = template.add(3, "VAEDecode", samples=samples, vae=output(model, 2))
    template.add(previews, "PreviewImage", "Source and edited pictures", images=pictures)
    controller = template.graph[samples[0]]["inputs"]["model"]
    template.add(previews, "P2PCompare", record=output(controller, 3), images=pictures)
    return pictures


def paint(template: Template, model: Link, prompt: str, title: str, seed: int = SEED) -> Link:
    """A picture by the model itself, in place of a photograph."""
    positive = encoded(template, model, prompt, "What the picture shows", 0)
    nothing = encoded(template, model, "", "Nothing (negative)", 0)
    samples = ksampler(
        template, model=model, positive=positive, negative=nothing, latent_image=output(model, 3),
        steps=20, cfg=6.0, seed=seed, title="Paints the picture", column=1,
    )  # fmt: skip
    picture = template.add(1, "VAEDecode", samples=samples, vae=output(model, 2))
    template.add(1, "PreviewImage", title, images=picture)
    return picture
