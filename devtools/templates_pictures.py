"""The workflow template for Qwen-Image-Edit: words of an instruction for a picture.

Wired as ComfyUI's own template for this model is, with its files and sampler, but without CFGNorm,
which has other widgets on older hosts.
"""

from __future__ import annotations

from devtools.templates import Template, output
from devtools.templates_models import SEED, Setting, begun, loaders, on_hub, shown

QWEN_IMAGE_EDIT = Setting(
    "qwen_image_edit_2509", "Qwen-Image-Edit 2509",
    on_hub("Comfy-Org/Qwen-Image-Edit_ComfyUI",
             "split_files/diffusion_models/qwen_image_edit_2509_fp8_e4m3fn.safetensors"),
    (on_hub("Comfy-Org/Qwen-Image_ComfyUI",
              "split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors"),),
    on_hub("Comfy-Org/Qwen-Image_ComfyUI", "split_files/vae/qwen_image_vae.safetensors"),
    "qwen_image", "", 1024, 20,
    "The source leads for half of *self_replace_steps*: lower it for more freedom.",
    cfg=2.5, shift=3.0,
)  # fmt: skip
SOURCE = "Put a big red knitted hat on her head, keep everything else"
TARGET = "Put a big blue knitted hat on her head, keep everything else"


def picture_swap(setting: Setting = QWEN_IMAGE_EDIT) -> Template:
    template = begun(
        setting,
        "picture_swap",
        f"**Word swap in an instruction, {setting.title}.** Put the files below in their folders, "
        "choose a picture and queue it: one seed follows two instructions, alike but for the new "
        "word.\n\n"
        f"*Change* both instructions, then a word of the target. {setting.expect}",
    )
    model, clip, vae = loaders(template, setting)
    photo = template.add(1, "LoadImage", "The picture", image="example.png")
    photo = template.add(1, "FluxKontextImageScale", image=photo)
    pictured = template.add(
        2, "P2PPromptPictures", clip=clip, text_encoder="TextEncodeQwenImageEditPlus",
        image1=photo, vae=vae,
    )  # fmt: skip
    edit = template.add(
        2, "P2PWordSwap", "Word Swap (source, then target)", clip=pictured, source_prompt=SOURCE,
        target_prompt=TARGET,
    )  # fmt: skip
    negative = template.add(3, "CLIPTextEncode", "Negative prompt", clip=pictured, text="")
    latent = template.add(3, "VAEEncode", pixels=photo, vae=vae)
    control = template.add(3, "P2PAttentionController", model=model, latent=latent, edit=edit)
    samples = template.add(
        4, "KSampler", model=control, positive=output(control, 1), negative=negative,
        latent_image=output(control, 2), seed=SEED, steps=setting.steps, cfg=setting.cfg,
        sampler_name=setting.sampler, scheduler="simple", denoise=1.0,
    )  # fmt: skip
    shown(template, samples, vae, "Both instructions followed")
    return template
