"""What other nodes put on a model."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import create_model_options_clone

GUIDANCE = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function")


def guidance_patches(model: Any) -> list[str]:
    """How other nodes change the way the model's guidance is computed, by the host's names."""
    return [name for name in GUIDANCE if model.model_options.get(name)]


def network_patches(model: Any) -> dict[str, dict]:
    """What other nodes put into the network (FreeU, IPAdapter and the like), by kind and place."""
    options = create_model_options_clone(model.model_options).get("transformer_options", {})
    return {kind: options[kind] for kind in ("patches", "patches_replace") if options.get(kind)}
