"""SD2 and SDXL from checkpoints of the real layout: against the explicit maps, and the laws."""

from __future__ import annotations

import pytest
import torch
from blend_oracle import Blend, blended
from host_run import run
from oracle import oracle
from scenes import SOURCE, Edit, Settings, controlled, distance, identity, plain, scene
from tiny_checkpoints import FAMILIES, UNET_PREFIX, checkpoint, shared

pytestmark = pytest.mark.usefixtures("host")
TOLERANCE = 1e-4

SWAP = Edit("swap", "a photo of a blue dog on a bench", scales=(("blue", 2.0),))
REFINE = Edit("refine", "a photo of a fluffy red cat asleep on a bench", cross=0.6)
REWEIGHT = Edit("reweight", scales=(("red, bench", -2.0),))
MULTISTEP = Settings("dpmpp_2m", "karras", steps=8, batch=2)
ABOVE_THE_LIMIT = Settings(width=528, height=512, steps=1)  # 1056 positions in the finest layers
FIRST_LEVELS = {"sd2": 0, "sd2, v": 0}  # of attention; SDXL's is the second

CASES: dict[str, tuple[list[Edit], Settings]] = {
    "sd2": ([SWAP], Settings()),
    "sd2, v": ([REFINE, REWEIGHT], MULTISTEP.but(width=88, height=160)),
    "sdxl": ([SWAP], Settings()),
    "ssd": ([REFINE], ABOVE_THE_LIMIT),
    "refiner": ([REFINE, REWEIGHT], MULTISTEP),
}


@pytest.mark.parametrize("name", CASES)
def test_latents_equal_the_explicit_maps_and_the_source_is_the_plain_picture(name: str) -> None:
    edits, settings = CASES[name]
    model, clip = shared(name)
    expected = oracle(model, clip, edits, settings, first_level=FIRST_LEVELS.get(name, 1))
    found = controlled(edits, settings, model=model, clip=clip)
    distances = [distance(a, b) for a, b in zip(found, expected, strict=True)]
    assert max(distances) <= TOLERANCE, distances
    source = plain(SOURCE, settings, model=model, clip=clip)
    assert distance(found[:: 1 + len(edits)], source) <= TOLERANCE
    assert distance(found[1], found[0]) > 0.01


@pytest.mark.parametrize("name", ["sd2", "ssd"])
def test_prompts_of_other_lengths_and_the_same_words(name: str) -> None:
    model, clip = shared(name)
    settings = Settings(steps=3)
    target = f"{SOURCE} " + "under very old trees, with leaves and a fountain, " * 8
    rows = controlled([Edit("refine", target), identity()], settings, model=model, clip=clip)
    source = plain(SOURCE, settings, model=model, clip=clip)[0]
    assert distance(rows[0], source) <= TOLERANCE
    assert distance(rows[2], source) <= TOLERANCE
    assert distance(rows[1], source) > 1e-2


@pytest.mark.parametrize("name", ["sd2", "ssd"])
def test_local_blend_and_maps(name: str) -> None:
    model, clip = shared(name)
    settings = Settings(width=256, height=192, steps=5)
    blend = Blend("cat", "dog", threshold=0.6)
    edits: list[tuple[Edit, Blend | None]] = [(SWAP, blend)]
    expected, (mask,) = blended(
        model, clip, edits, settings, (12, 16), first_level=FIRST_LEVELS.get(name, 1)
    )
    assert 0.02 < float(mask.float().mean()) < 0.98, "a mask of everything or nothing"
    s = scene(settings, model=model, clip=clip)
    link = SWAP.build(s.graph, s.clip)
    edit = s.graph.add("P2PLocalBlendMask", edit=link, **blend.__dict__)
    control = s.control(edit=edit)
    samples = s.sample(control, control[1], control[2])
    maps = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words="cat, bench")
    latents, words, used = run(s.graph, samples, maps[1], maps[2])
    assert distance(latents["samples"], expected) < TOLERANCE
    torch.testing.assert_close(used[0, ::8, ::8], mask.float())
    assert words.shape == (2, 192, 256)
    assert distance(words[0], words[1]) > 0.05


@pytest.mark.parametrize("name", ["sd2 inpainting", "sdxl inpainting"])
def test_inpainting_checkpoints_edit_under_their_mask(name: str) -> None:
    model, clip = shared(name)
    s = scene(Settings(steps=3), model=model, clip=clip)
    photo = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    box = torch.zeros(1, 128, 128)
    box[:, 32:96, 32:96] = 1
    latent = s.graph.add(
        "SetLatentNoiseMask", samples=s.graph.value({"samples": photo}), mask=s.graph.value(box)
    )
    # What InpaintModelConditioning gives: the picture that the network sees beside its latent.
    seen = {"concat_latent_image": photo * 0.5, "concat_mask": box[:, None]}
    [[text, values]] = clip.encode_from_tokens_scheduled(clip.tokenize(SOURCE))
    extras = s.graph.value([[text, {**values, **seen}]])
    alone = [s.sample(s.model, positive, latent) for positive in (s.text(SOURCE), extras)]
    controls = [s.control(SWAP, latent=latent, extras_from=given) for given in (None, extras)]
    edited = [s.sample(control, control[1], control[2]) for control in controls]
    results = [result["samples"] for result in run(s.graph, *alone, *edited)]
    for expected, got in zip(results[:2], results[2:], strict=True):
        assert distance(got[0], expected[0]) <= TOLERANCE
        assert distance(got[1], got[0]) > 1e-2
    assert distance(results[1], results[0]) > 1e-3


REAL_KEYS = {
    "sd2": [
        "cond_stage_model.model.positional_embedding",
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight",
        "cond_stage_model.model.text_projection",
        "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight",
    ],
    "sdxl": [
        "conditioner.embedders.0.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
        "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
        "conditioner.embedders.1.model.text_projection",
        "model.diffusion_model.label_emb.0.0.weight",
        "model.diffusion_model.middle_block.1.transformer_blocks.9.attn2.to_k.weight",
    ],
    "refiner": ["conditioner.embedders.0.model.transformer.resblocks.0.attn.in_proj_weight"],
}


@pytest.mark.parametrize("name", REAL_KEYS)
def test_the_checkpoints_have_the_real_keys(name: str) -> None:
    keys = checkpoint(name)
    assert not [key for key in REAL_KEYS[name] if key not in keys]


def test_the_host_takes_them_for_what_they_are() -> None:
    kinds = {name: type(shared(name)[0].model.model_config).__mro__[1] for name in FAMILIES}
    assert kinds == {name: family.kind for name, family in FAMILIES.items()}
    assert sum("attn2.to_q" in key for key in checkpoint("sdxl") if UNET_PREFIX in key) == 70
    assert shared("sd2, v")[0].model.model_type.name == "V_PREDICTION"
    assert shared("sd2")[0].model.model_type.name == "EPS"
