"""Parts that the graphs of the workflow templates share."""

from __future__ import annotations

from devtools.templates import Link, Template, output

DEMO_SIZE, SD15_SIZE = 128, 512
SEED = 5
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
CHECKPOINT_URL = (
    "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/" + CHECKPOINT
)


def empty_latent(template: Template, size: int) -> Link:
    return template.add(0, "EmptyLatentImage", width=size, height=size, batch_size=1)


def word_swap(template: Template, model: Link, source: str, target: str, **shares: float) -> Link:
    return template.add(
        1,
        "P2PWordSwap",
        "Word Swap (source, then target)",
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
    text = template.add(1, "CLIPTextEncode", "Negative prompt", clip=clip, text=negative)
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
    template: Template, *, steps: int, cfg: float, seed: int = SEED, **wired: Link
) -> Link:
    """The samples of a deterministic run over the whole schedule."""
    return template.add(
        3,
        "KSampler",
        **wired,
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
