"""Word edits on transformers with the host's own text encoders, in miniature."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import refiners, streams
from families.tiny import Family
from host_run import Graph, run
from scenes import distance
from text_encoders import make_encoder

pytestmark = pytest.mark.usefixtures("host")

SOURCE, TARGET = "a photo of a red cat on a bench", "a photo of a red lasagne on a bench"
PAIRS = [
    (refiners.Z_IMAGE, "Z-Image", {"qwen3_4b": 2560}),
    (streams.QWEN_IMAGE, "Qwen-Image", {"qwen25_7b": 3584}),
    (streams.FLUX_SCHNELL, "Flux.1", {"t5xxl": 4096, "clip_l": 768}),
    (streams.SD3, "SD3", {"clip_l": 768, "clip_g": 1280}),
    (streams.LONGCAT, "LongCat", {"qwen25_7b": 3584}),  # cuts its template off behind the text too
]


@pytest.mark.parametrize(
    ("family", "encoder", "widths"), PAIRS, ids=lambda v: getattr(v, "name", "")
)
def test_a_word_swap_through_the_true_tokeniser(
    family: Family, encoder: str, widths: dict[str, int]
) -> None:
    """The source is the plain run; the edit differs from it, and from its own plain run."""
    clip, model = make_encoder(encoder, **widths), family.load()

    def sampled(prompt: str) -> torch.Tensor:
        graph = Graph()
        text = graph.add("CLIPTextEncode", clip=graph.value(clip), text=prompt)
        return run(graph, sampler(graph, graph.value(model), text, latent(graph)))["samples"]

    def latent(graph: Graph) -> Any:
        return graph.value({"samples": family.latent(12, 12)})

    def sampler(graph: Graph, model: Any, positive: Any, latent: Any) -> Any:
        negative = graph.add("CLIPTextEncode", clip=graph.value(clip), text="blurry")
        return graph.add(
            "KSampler", model=model, positive=positive, negative=negative, latent_image=latent,
            seed=3, steps=2, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0,
        )  # fmt: skip

    graph = Graph()
    edit = graph.add(
        "P2PWordSwap", clip=graph.value(clip), source_prompt=SOURCE, target_prompt=TARGET,
        cross_replace_steps=0.8, self_replace_steps=0.4, word_windows="lasagne: 0-1",
    )  # fmt: skip
    control = graph.add(
        "P2PAttentionController", model=graph.value(model), latent=latent(graph), edit=edit,
        mode="hybrid",
    )  # fmt: skip
    made = run(graph, sampler(graph, control, control[1], control[2]))["samples"]
    assert distance(made[:1], sampled(SOURCE)) < 1e-5
    assert distance(made[1:], made[:1]) > 1e-4
    assert distance(made[1:], sampled(TARGET)) > 1e-4


@pytest.mark.parametrize(
    ("family", "encoder", "widths", "scale"),
    [(*PAIRS[1], 8), (streams.KLEIN, "Klein", {"qwen3_4b": 2560}, 16)],
    ids=lambda v: getattr(v, "name", ""),
)  # fmt: skip
def test_heat_maps_as_large_as_the_pictures(
    family: Family, encoder: str, widths: dict[str, int], scale: int
) -> None:
    """Also of latents with frames, and of a VAE whose latents are smaller."""
    graph, clip = Graph(), make_encoder(encoder, **widths)
    latent = graph.value({"samples": family.latent(6, 10)})
    edit = graph.add(
        "P2PWordSwap", clip=graph.value(clip), source_prompt=SOURCE, target_prompt=TARGET,
        cross_replace_steps=0.8, self_replace_steps=0.4,
    )  # fmt: skip
    control = graph.add(
        "P2PAttentionController", model=graph.value(family.load()), latent=latent, edit=edit
    )
    negative = graph.add("CLIPTextEncode", clip=graph.value(clip), text="")
    samples = graph.add(
        "KSampler", model=control, positive=control[1], negative=negative,
        latent_image=control[2], seed=3, steps=1, cfg=1.0, sampler_name="euler",
        scheduler="simple", denoise=1.0,
    )  # fmt: skip
    maps = graph.add(
        "P2PAttentionMaps", record=control[3], samples=samples, words="cat, lasagne, bench"
    )
    mask, blend = run(graph, maps[1], maps[2])
    assert mask.shape == (3, 6 * scale, 10 * scale)
    assert blend.shape[1:] == mask.shape[1:]
    assert all(word.max() == 1 and word.std() > 0.05 for word in mask)
