"""Workflow templates for today's transformers: words with weights, and a word swap, for each.

Wired as ComfyUI's own templates for these models are, with their files, samplers and settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from devtools.templates import Link, Template, output

HUB = "https://huggingface.co/{}/resolve/main/{}"
SEED = 5
WEIGHTED = (
    "a photo of a (red:1.6) bicycle leaning against a (crumbling:1.3) brick wall, "
    "potted plants, soft morning light, (people:-0.7)"
)
SOURCE = "a photo of a cat sitting on a wooden bench in a park, autumn leaves, soft light"
TARGET = "a photo of a dog sitting on a wooden bench in a park, autumn leaves, soft light"
TITLES = {"word_weights": (21, "Words with weights"), "word_swap": (31, "Word swap"),
          "picture_swap": (36, "Word swap in an instruction")}  # fmt: skip
NEGATIVE = "blurry, low quality, distorted"


@dataclass(frozen=True)
class Setting:
    """A model's files and how it is run. files: of weights, text encoders and VAE, by folder.

    shift: of ModelSamplingAuraFlow, None for none. latent: the node for an empty one. custom:
    whether it is sampled by SamplerCustomAdvanced. expect: what its user should know.
    """

    key: str
    title: str
    unet: tuple[str, str]
    clips: tuple[tuple[str, str], ...]
    vae: tuple[str, str]
    clip_type: str
    latent: str
    size: int
    steps: int
    expect: str
    cfg: float = 1.0
    sampler: str = "euler"
    shift: float | None = None
    custom: bool = False


def on_hub(repository: str, path: str) -> tuple[str, str]:
    """(name, address) of a file on the hub."""
    return path.rsplit("/", 1)[-1], HUB.format(repository, path)


FEW_STEPS = "The source leads in the first step alone; *mode* hybrid follows it longer."
SETTINGS = (
    Setting(
        "z_image_turbo", "Z-Image Turbo",
        on_hub("Comfy-Org/z_image_turbo",
              "split_files/diffusion_models/z_image_turbo_bf16.safetensors"),
        (on_hub("Comfy-Org/z_image_turbo", "split_files/text_encoders/qwen_3_4b.safetensors"),),
        on_hub("Comfy-Org/z_image_turbo", "split_files/vae/ae.safetensors"),
        "lumina2", "EmptySD3LatentImage", 1024, 8, FEW_STEPS, sampler="res_multistep", shift=3.0,
    ),
    Setting(
        "krea_2_turbo", "Krea 2 Turbo",
        on_hub("Comfy-Org/Krea-2", "diffusion_models/krea2_turbo_fp8_scaled.safetensors"),
        (on_hub("Comfy-Org/Krea-2", "text_encoders/qwen3vl_4b_fp8_scaled.safetensors"),),
        on_hub("Comfy-Org/Krea-2", "vae/qwen_image_vae.safetensors"),
        "krea2", "EmptyLatentImage", 1024, 8, FEW_STEPS,
    ),
    Setting(
        "qwen_image_2512", "Qwen-Image 2512",
        on_hub("Comfy-Org/Qwen-Image_ComfyUI",
              "split_files/diffusion_models/qwen_image_2512_fp8_e4m3fn.safetensors"),
        (on_hub("Comfy-Org/Qwen-Image_ComfyUI",
               "split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors"),),
        on_hub("Comfy-Org/Qwen-Image_ComfyUI", "split_files/vae/qwen_image_vae.safetensors"),
        "qwen_image", "EmptySD3LatentImage", 1328, 50,
        "The source leads for half of *self_replace_steps*: lower it for more freedom.",
        cfg=4.0, shift=3.1,
    ),
    Setting(
        "flux_2_klein", "FLUX.2 Klein",
        on_hub("Comfy-Org/flux2-klein", "split_files/diffusion_models/flux-2-klein-4b.safetensors"),
        (on_hub("Comfy-Org/flux2-klein", "split_files/text_encoders/qwen_3_4b.safetensors"),),
        on_hub("Comfy-Org/flux2-dev", "split_files/vae/flux2-vae.safetensors"),
        "flux2", "EmptyFlux2LatentImage", 1024, 4, FEW_STEPS, custom=True,
    ),
    Setting(
        "flux_1_dev", "FLUX.1 dev",
        on_hub("Comfy-Org/flux1-dev", "flux1-dev.safetensors"),
        (on_hub("comfyanonymous/flux_text_encoders", "clip_l.safetensors"),
         on_hub("comfyanonymous/flux_text_encoders", "t5xxl_fp16.safetensors")),
        on_hub("Comfy-Org/Lumina_Image_2.0_Repackaged", "split_files/vae/ae.safetensors"),
        "flux", "EmptySD3LatentImage", 1024, 20,
        "The source leads for half of *self_replace_steps*: lower it for more freedom.",
    ),
)  # fmt: skip


def model_templates() -> list[Template]:
    """Two for every model."""
    return [make(setting) for make in (word_weights, word_swap) for setting in SETTINGS]


def file_stem(technique: str, setting: Setting) -> str:
    """The file's name and so the title that the page shows; technique: of TITLES."""
    first, title = TITLES[technique]
    number = SETTINGS.index(setting) if setting in SETTINGS else 0
    return f"{first + number} {title} ({setting.title})"


def word_weights(setting: Setting) -> Template:
    template = begun(
        setting,
        "word_weights",
        f"**Words with weights, {setting.title}.** Put the files below in their folders and queue "
        "it. `(red:1.6)` makes a word count for more, `(people:-0.7)` pushes it away; no negative "
        "prompt is needed.\n\n"
        "*Change* the prompt and its weights. Begin with 1.2 to 2, and -0.5 to -1. Weight 1 gives "
        "the plain picture, so set *strength* (advanced) to 0 to compare.",
    )
    model, clip, vae = loaders(template, setting)
    weights = template.add(1, "P2PPromptWeights", model=model, clip=clip, text=WEIGHTED)
    latent = _empty(template, setting)
    samples = _sampled(template, setting, weights, output(weights, 1), clip, latent)
    shown(template, samples, vae, "The picture")
    return template


def word_swap(setting: Setting) -> Template:
    template = begun(
        setting,
        "word_swap",
        f"**Word swap, {setting.title}.** Put the files below in their folders and queue it: two "
        "pictures of one seed, the source and the same with the new word.\n\n"
        f"*Change* a word of the target prompt. {setting.expect}",
    )
    model, clip, vae = loaders(template, setting)
    edit = template.add(
        1, "P2PWordSwap", "Word Swap (source, then target)", clip=clip, source_prompt=SOURCE,
        target_prompt=TARGET,
    )  # fmt: skip
    latent = _empty(template, setting)
    control = template.add(2, "P2PAttentionController", model=model, latent=latent, edit=edit)
    rows = output(control, 2)
    samples = _sampled(template, setting, control, output(control, 1), clip, rows)
    shown(template, samples, vae, "Source and edited picture")
    return template


def begun(setting: Setting, technique: str, note: str) -> Template:
    """A template with its note and the files that it names."""
    template = Template(file_stem(technique, setting), note, model_title=setting.title)
    encoders = [(clip, "text_encoders") for clip in setting.clips]
    files = [(setting.unet, "diffusion_models"), *encoders, (setting.vae, "vae")]
    template.models = [
        {"name": name, "url": url, "directory": folder} for (name, url), folder in files
    ]
    return template


def loaders(template: Template, setting: Setting) -> tuple[Link, Link, Link]:
    """(model, clip, vae)."""
    default = "default"
    model = template.add(0, "UNETLoader", unet_name=setting.unet[0], weight_dtype=default)
    names = [name for name, _ in setting.clips]
    given: dict[str, Any] = {"type": setting.clip_type, "device": default}
    if len(names) == 1:
        clip = template.add(0, "CLIPLoader", clip_name=names[0], **given)
    else:
        two = {"clip_name1": names[0], "clip_name2": names[1]}
        clip = template.add(0, "DualCLIPLoader", **two, **given)
    vae = template.add(0, "VAELoader", vae_name=setting.vae[0])
    if setting.shift is not None:
        model = template.add(1, "ModelSamplingAuraFlow", model=model, shift=setting.shift)
    return model, clip, vae


def _empty(template: Template, setting: Setting) -> Link:
    size = {"width": setting.size, "height": setting.size, "batch_size": 1}
    return template.add(1, setting.latent, **size)


def _sampled(
    template: Template, setting: Setting, model: Link, positive: Link, clip: Link, latent: Link
) -> Link:
    if setting.cfg == 1:  # it is not evaluated
        negative = template.add(3, "ConditioningZeroOut", conditioning=positive)
    else:
        title = "Negative prompt"
        negative = template.add(1, "CLIPTextEncode", title, clip=clip, text=NEGATIVE)
    if setting.custom:
        return _custom(template, setting, model, positive, negative, latent)
    return template.add(
        3, "KSampler", model=model, positive=positive, negative=negative, latent_image=latent,
        seed=SEED, steps=setting.steps, cfg=setting.cfg, sampler_name=setting.sampler,
        scheduler="simple", denoise=1.0,
    )  # fmt: skip


def _custom(
    template: Template, setting: Setting, model: Link, positive: Link, negative: Link, latent: Link
) -> Link:
    wired = {"model": model, "positive": positive, "negative": negative}
    guider = template.add(3, "CFGGuider", **wired, cfg=setting.cfg)
    noise = template.add(3, "RandomNoise", noise_seed=SEED)
    sampler = template.add(3, "KSamplerSelect", sampler_name=setting.sampler)
    size = {"width": setting.size, "height": setting.size}
    sigmas = template.add(3, "Flux2Scheduler", steps=setting.steps, **size)
    return template.add(
        4, "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas,
        latent_image=latent,
    )  # fmt: skip


def shown(template: Template, samples: Link, vae: Link, title: str) -> None:
    pictures = template.add(4, "VAEDecode", samples=samples, vae=vae)
    template.add(5, "PreviewImage", title, images=pictures)
