"""What changes how the predictions of a step are put together."""

from __future__ import annotations

from functools import partial
from typing import Any

from host_run import Link
from scenes import Scene

from .companion import SENTENCE, Companion


def node(name: str, s: Scene, model: Link, **inputs: Any) -> Link:
    """One of the host's nodes on the model."""
    return s.graph.add(name, model=model, **inputs)


def perp_neg(s: Scene, model: Link, positive: Link, negative: Link, latent: Link) -> Link:
    guider = s.graph.add(
        "PerpNegGuider", model=model, positive=positive, negative=negative,
        empty_conditioning=s.text(""), cfg=s.settings.cfg, neg_scale=1.0,
    )  # fmt: skip
    return guided(s, guider, latent)


def dual(s: Scene, model: Link, positive: Link, negative: Link, latent: Link) -> Link:
    guider = s.graph.add(
        "DualCFGGuider", model=model, cond1=positive, cond2=s.text("mist"), negative=negative,
        cfg_conds=s.settings.cfg, cfg_cond2_negative=2.0, style="regular",
    )  # fmt: skip
    return guided(s, guider, latent)


def guided(s: Scene, guider: Link, latent: Link) -> Link:
    """SamplerCustomAdvanced with the scene's settings."""
    settings = s.settings
    sigmas = s.graph.add(
        "BasicScheduler", model=s.model, scheduler=settings.scheduler, steps=settings.steps,
        denoise=settings.denoise,
    )  # fmt: skip
    return s.graph.add(
        "SamplerCustomAdvanced",
        noise=s.graph.add("RandomNoise", noise_seed=settings.seed),
        guider=guider,
        sampler=s.graph.add("KSamplerSelect", sampler_name=settings.sampler_name),
        sigmas=sigmas,
        latent_image=latent,
    )


CACHE = {"reuse_threshold": 1.0, "start_percent": 0.1, "end_percent": 0.95, "verbose": False}
NODES: dict[str, dict[str, Any]] = {
    "PerturbedAttentionGuidance": {"scale": 2.0},
    "SelfAttentionGuidance": {"scale": 0.5, "blur_sigma": 2.0},
    "NAGuidance": {"nag_scale": 3.0, "nag_alpha": 0.5, "nag_tau": 1.5},
    "RescaleCFG": {"multiplier": 0.7},
    "Mahiro": {},
    "APG": {"eta": 0.8, "norm_threshold": 5.0, "momentum": 0.2},
    "TCFG": {},
    "CFGZeroStar": {},
    "CFGNorm": {"strength": 1.0},
    "FreSca": {"scale_low": 1.0, "scale_high": 1.3, "freq_cutoff": 3},
    "Epsilon Scaling": {"scaling_factor": 1.02},
    "TemporalScoreRescaling": {"tsr_k": 0.95, "tsr_sigma": 1.0},
}
OF_ALL = {"Mahiro", "TemporalScoreRescaling"}  # they read all pictures of a batch together
WHY = dict.fromkeys(OF_ALL, "edit: the node itself mixes a batch") | {
    "SelfAttentionGuidance": "ssd: it has no attention in its middle, which the node needs"
}
FAMILIES = {
    "SelfAttentionGuidance": ("sd1", "sd1 inpainting", "sd2", "sd2, v", "sdxl", "sdxl inpainting")
}
COMPANIONS = [
    *(
        Companion(
            name,
            model=partial(node, name, **inputs),
            oracle=name not in OF_ALL,
            families=FAMILIES.get(name, ()),
            why=WHY.get(name, ""),
        )
        for name, inputs in NODES.items()
    ),
    Companion("PerpNegGuider", sample=perp_neg, expected=SENTENCE),
    Companion("DualCFGGuider", sample=dual),
]
