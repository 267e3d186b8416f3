"""IP2PConditioning against diffusers' own InstructPix2Pix pipeline, on the same small weights."""

from __future__ import annotations

from typing import Any

import comfy.utils
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from host_run import run
from scenes import distance
from tiny_instruct import AveragingVAE, InstructScene, instruct_scene, pictures, tiny_instruct
from tiny_model import UNET, WIDTH, randomize
from torch import Tensor

pytestmark = [
    pytest.mark.usefixtures("host"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
diffusers = pytest.importorskip("diffusers")

STEPS, BATCH = 20, 2
SCALE_FACTOR = 0.18215


def diffusers_unet() -> torch.nn.Module:
    """The tests' small UNet as diffusers has it."""
    down = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    unet = diffusers.UNet2DConditionModel(
        in_channels=8,
        out_channels=4,
        down_block_types=down,
        up_block_types=["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        block_out_channels=[UNET["model_channels"] * factor for factor in UNET["channel_mult"]],
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=UNET["num_heads"],
    )
    randomize(unet, 11, {"conv_out": 0.5})
    return unet.eval()


def as_host_model(unet: torch.nn.Module) -> ModelPatcher:
    """The same weights in the host's classes, by the host's own table of names."""
    model = tiny_instruct()
    config = model.model.model_config.unet_config
    names = comfy.utils.unet_to_diffusers(config)
    weights = unet.state_dict()
    renamed = {names[name]: weight for name, weight in weights.items()}
    model.model.diffusion_model.load_state_dict(renamed, strict=True)
    return model


def scheduler() -> Any:
    """Stable Diffusion 1's noise levels, at whole timesteps, which the host's table holds."""
    schedule = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        timestep_spacing="trailing",
    )  # fmt: skip
    schedule.set_timesteps(STEPS)
    return schedule


def texts(seed: int) -> Tensor:
    return torch.randn(1, 77, WIDTH, generator=torch.Generator().manual_seed(seed))


def by_diffusers(
    unet: torch.nn.Module, encoded: Tensor, noise: Tensor, image_cfg: float, cfg: float
) -> Tensor:
    """The pipeline's latents, in the model's scale."""
    levels = scheduler()
    vae = diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[32] * 4, latent_channels=4,
    )  # fmt: skip
    pipe = diffusers.StableDiffusionInstructPix2PixPipeline(
        vae=vae, text_encoder=None, tokenizer=None, unet=unet, scheduler=levels,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    sigma = levels.sigmas[0]
    start = noise * (1 + sigma**2).sqrt() / levels.init_noise_sigma
    return pipe(
        prompt_embeds=texts(1).expand(BATCH, -1, -1),
        negative_prompt_embeds=texts(2).expand(BATCH, -1, -1),
        image=encoded, latents=start, num_inference_steps=STEPS, guidance_scale=cfg,
        image_guidance_scale=image_cfg, output_type="latent", return_dict=False,
    )[0]  # fmt: skip


def by_the_node(s: InstructScene, noise: Tensor, cfg: float) -> Tensor:
    """The same run through SamplerCustomAdvanced, in the model's scale."""

    class Given:
        seed = 0

        def generate_noise(self, latent: dict) -> Tensor:
            return noise

    graph = s.scene.graph
    guider = graph.add("CFGGuider", model=s.node, positive=s.node[1], negative=s.node[2], cfg=cfg)
    samples = graph.add(
        "SamplerCustomAdvanced", noise=graph.value(Given()), guider=guider,
        sampler=graph.add("KSamplerSelect", sampler_name="euler"),
        sigmas=graph.value(scheduler().sigmas), latent_image=s.node[4],
    )  # fmt: skip
    return run(graph, samples)["samples"] * SCALE_FACTOR


@pytest.mark.parametrize(("image_cfg", "cfg"), [(1.5, 7.5), (1.2, 4.0), (3.0, 2.0)])
def test_twenty_steps_are_the_pipelines(image_cfg: float, cfg: float) -> None:
    unet = diffusers_unet()
    image = pictures(BATCH, 96, 64)
    noise = torch.randn(BATCH, 4, 12, 8, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        encoded = AveragingVAE().encode(image)
        expected = by_diffusers(unet, encoded, noise, image_cfg, cfg)
        other = by_diffusers(unet, encoded * SCALE_FACTOR, noise, image_cfg, cfg)
    s = instruct_scene(
        model=as_host_model(unet), image=image, image_cfg=image_cfg,
        positive=[[texts(1), {}]], negative=[[texts(2), {}]],
    )  # fmt: skip
    result = by_the_node(s, noise, cfg)
    assert distance(result, expected) < 1e-5
    assert distance(other, expected) > 1e-3, "the pictures' scale shows"
