"""The pack's nodes: schema and wiring, one technique per file."""

from comfy_api.latest import io

from . import (
    attention_controller,
    attention_maps,
    compare,
    ddim_invert,
    demo_model,
    edit,
    edit_scores,
    filter_pairs,
    ip2p_conditioning,
    keep_source,
    local_blend_mask,
    make_pairs,
    noise_invert,
    null_text_optimize,
    plain_prompt,
    prompt_pictures,
    prompt_weights,
    refine,
    reweight,
    saved_inversions,
    sweep,
    word_swap,
)

MODULES = (
    edit,
    word_swap,
    refine,
    reweight,
    plain_prompt,
    local_blend_mask,
    attention_controller,
    attention_maps,
    compare,
    edit_scores,
    sweep,
    ddim_invert,
    noise_invert,
    null_text_optimize,
    saved_inversions,
    keep_source,
    ip2p_conditioning,
    make_pairs,
    filter_pairs,
    prompt_weights,
    prompt_pictures,
    demo_model,
)


def all_nodes() -> list[type[io.ComfyNode]]:
    return [node for module in MODULES for node in module.NODES]
