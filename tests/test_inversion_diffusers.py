"""DDIM inversion against the reference implementation's scheduler, on the same weights.

Its timesteps are where each step leads to. The network is asked where the step begins, at the level
that the latent really has, as the host's own flipped sampler does.
"""

from __future__ import annotations

import comfy.model_management
import pytest
import torch
from diffusers import DDIMInverseScheduler
from host_run import run
from scenes import SOURCE, Settings, distance, scene
from tiny_model import TinySD15, TinySD15V, shared_clip, tiny_unet
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")

STEPS = 20


def scheduler(prediction: str) -> DDIMInverseScheduler:
    """Stable Diffusion 1.x's settings."""
    made = DDIMInverseScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        prediction_type=prediction,
    )
    made.set_timesteps(STEPS)
    return made


def sigma(alpha: Tensor) -> Tensor:
    return ((1 - alpha) / alpha).sqrt()


@pytest.mark.parametrize(
    ("kind", "prediction"), [(TinySD15, "epsilon"), (TinySD15V, "v_prediction")]
)
def test_inversion_is_diffusers_ddim_inversion(kind: type[TinySD15], prediction: str) -> None:
    model, clip, inverse = tiny_unet(kind), shared_clip(), scheduler(prediction)
    levels = sigma(inverse.alphas_cumprod[inverse.timesteps]).tolist()
    picture = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3)) * 4
    s = scene(Settings(steps=STEPS), model=model)
    inversion = s.graph.add(
        "P2PDDIMInvert", model=s.model, positive=s.text(SOURCE), steps=STEPS, scheduler="normal",
        latent=s.graph.value({"samples": picture}),
        sigmas=s.graph.value(torch.tensor([*reversed(levels), 0.0])),
    )  # fmt: skip
    ours = run(s.graph, inversion)

    comfy.model_management.load_models_gpu([model])
    text = clip.encode_from_tokens(clip.tokenize(SOURCE))
    x = model.model.process_latent_in(picture)
    with torch.inference_mode():
        for t in inverse.timesteps:
            begins = (t - 1000 // STEPS).clamp_min(0).reshape(1)
            out = model.model.diffusion_model(x, begins, context=text)
            x = inverse.step(out, t, x).prev_sample
    theirs = x / inverse.alphas_cumprod[inverse.timesteps[-1]].sqrt()
    z = model.model.process_latent_in(picture)
    assert distance(z + ours.offsets[0], theirs) < 1e-3
