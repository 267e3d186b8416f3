"""Local blend on the real host, against samplers that blend explicitly after every step."""

from __future__ import annotations

import pytest
import torch
from blend_oracle import SAMPLERS, Blend, blended
from host_run import GraphError, Link, run
from scenes import SOURCE, Edit, Scene, Settings, distance, plain, scene
from tiny_model import shared_clip, shared_unet
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")

TARGET = "a photo of a blue dog on a bench"
SWAP = Edit("swap", TARGET)
WORDS = Blend("cat", "dog", threshold=0.6)
WIDE = Settings(width=256, height=192, steps=10)  # latent 24 x 32, coarse maps 12 x 16


def blend_node(s: Scene, edit: Edit, blend: Blend | None, **inputs) -> Link:
    link = edit.build(s.graph, s.clip)
    if blend is None:
        return link
    return s.graph.add("P2PLocalBlendMask", edit=link, **{**blend.__dict__, **inputs})


def run_blended(edits: list[tuple[Edit, Blend | None]], settings: Settings, **inputs) -> dict:
    """Latents, maps' masks and blend masks of a graph with blends."""
    s = scene(settings)
    links = [blend_node(s, edit, blend, **inputs) for edit, blend in edits]
    more = {f"edit_{number}": link for number, link in enumerate(links[1:], start=2)}
    control = s.graph.add(
        "P2PAttentionController", model=s.model, latent=s.latent, edit=links[0], **more
    )
    samples = s.sample(control, control[1], control[2])
    maps = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words="cat, bench")
    latents, images, mask, blend_mask = run(s.graph, samples, maps, maps[1], maps[2])
    return {"latents": latents["samples"], "images": images, "mask": mask, "blend": blend_mask}


def outside_difference(latents: Tensor, masks: Tensor, group: int) -> float:
    """Largest difference between source and edits outside the blend masks (E, H, W)."""
    source = latents[::group].repeat_interleave(group - 1, dim=0)
    edits = torch.cat([rows[1:] for rows in latents.split(group)])
    inside = torch.nn.functional.interpolate(masks[:, None], size=latents.shape[-2:])
    return float(((edits - source).abs() * (1 - inside)).max())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_equals_blending_after_every_step(sampler: str) -> None:
    settings = WIDE.but(sampler_name=sampler)
    edits = [(SWAP, WORDS)]
    expected, masks = blended(shared_unet(), shared_clip(), edits, settings, (12, 16))
    got = run_blended(edits, settings)
    share = float(masks[0].float().mean())
    assert 0.02 < share < 0.9, "a mask of everything or nothing tests nothing"
    assert distance(got["latents"], expected) < 1e-5
    assert outside_difference(got["latents"], got["blend"], 2) == 0
    unblended = run_blended([(SWAP, None)], settings)["latents"]
    assert distance(got["latents"], unblended) > 1e-3, "the blend does something"


def test_start_subtract_several_edits_and_seeds() -> None:
    settings = WIDE.but(batch=2)
    words = Blend("cat, bench", "dog", "photo", threshold=0.7, start_blend=0.5)
    edits = [(SWAP, words), (Edit("refine", "a photo of a big red cat on a bench"), None)]
    expected, masks = blended(shared_unet(), shared_clip(), edits, settings, (12, 16))
    got = run_blended(edits, settings)
    assert distance(got["latents"], expected) < 1e-5
    assert got["blend"].shape == (4, 192, 256)
    torch.testing.assert_close(got["blend"][:, ::8, ::8], torch.stack(masks).float())
    assert outside_difference(got["latents"], got["blend"], 3) == 0


@pytest.mark.parametrize(("width", "height"), [(128, 128), (136, 200), (320, 184)])
def test_any_size_keeps_the_outside(width: int, height: int) -> None:
    settings = Settings(width=width, height=height, steps=4)
    got = run_blended([(SWAP, WORDS)], settings)
    assert got["blend"].shape == (1, height // 8 * 8, width // 8 * 8)
    assert outside_difference(got["latents"], got["blend"], 2) == 0
    assert got["images"].shape[0] == 2
    assert got["mask"].shape[0] == 2
    source = plain(SOURCE, settings)
    assert distance(got["latents"][:1], source) < 1e-4


def test_a_mask_by_hand_alone_and_with_words() -> None:
    region = torch.zeros(1, 50, 70)  # another size than the picture's
    region[:, :25] = 1
    alone = Blend("", "", start_blend=0.0)
    s = scene(WIDE)
    mask = s.graph.value(region)
    for blend, expected in ((alone, 0.5), (WORDS, None)):
        link = blend_node(s, SWAP, blend, mask=mask)
        control = s.graph.add("P2PAttentionController", model=s.model, latent=s.latent, edit=link)
        samples = s.sample(control, control[1], control[2])
        maps = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words="cat")
        used = run(s.graph, maps[2])
        assert used[:, 96:].sum() == 0
        if expected is not None:
            assert float(used.mean()) == expected


def test_inpainting_mask_and_img2img() -> None:
    s = scene(WIDE.but(denoise=0.6, sampler_name="ddim"))
    picture = s.graph.value({"samples": torch.randn(1, 4, 24, 32)})
    box = torch.zeros(1, 192, 256)
    box[:, 48:144, 64:192] = 1
    latent = s.graph.add("SetLatentNoiseMask", samples=picture, mask=s.graph.value(box))
    control = s.graph.add(
        "P2PAttentionController", model=s.model, latent=latent, edit=blend_node(s, SWAP, WORDS)
    )
    samples = s.sample(control, control[1], control[2])
    maps = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words="cat")
    alone = s.sample(s.model, s.text(SOURCE), latent)
    latents, used, source = run(s.graph, samples, maps[2], alone)
    assert outside_difference(latents["samples"], used, 2) == 0
    assert distance(latents["samples"][:1], source["samples"]) < 1e-4


@pytest.mark.parametrize("sampler", ["uni_pc", "sa_solver", "euler_cfg_pp", "dpm_adaptive"])
def test_samplers_that_cannot_keep_it_are_refused(sampler: str) -> None:
    with pytest.raises(GraphError, match=f"{sampler}.*Use euler"):
        run_blended([(SWAP, WORDS)], WIDE.but(sampler_name=sampler, steps=3))


@pytest.mark.parametrize(
    ("blend", "message"),
    [
        (Blend("dog", "dog"), "'dog' is not in the prompt.*Its words are"),
        (Blend("cat", "cat"), "'cat' is not in the prompt"),
        (Blend("cat", "dog", "house"), "'house' is not in the prompt"),
        (Blend("", ""), "neither words nor a mask"),
    ],
)
def test_words_that_are_not_there(blend: Blend, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        run_blended([(SWAP, blend)], WIDE)


def test_bad_numbers_and_masks() -> None:
    s = scene(WIDE)
    with pytest.raises(GraphError, match="threshold"):
        run(s.graph, blend_node(s, SWAP, Blend("cat", "dog", threshold=1.5)))
    s = scene(WIDE)
    with pytest.raises(GraphError, match="mask is empty"):
        run(s.graph, blend_node(s, SWAP, WORDS, mask=s.graph.value(torch.zeros(1, 8, 8))))
    s = scene(WIDE)
    twice = s.graph.add("P2PLocalBlendMask", edit=blend_node(s, SWAP, WORDS), source_words="cat")
    with pytest.raises(GraphError, match="already"):
        run(s.graph, twice)
    s = scene(WIDE)
    three = s.graph.value(torch.ones(3, 8, 8))
    control = s.graph.add(
        "P2PAttentionController",
        model=s.model, latent=s.latent, edit=blend_node(s, SWAP, WORDS, mask=three),
    )  # fmt: skip
    with pytest.raises(GraphError, match="batch of 3"):
        run(s.graph, s.sample(control, control[1], control[2]))


@pytest.mark.parametrize(
    ("record_maps", "message"), [(False, "holds no maps"), (True, "were not made by a run")]
)
def test_maps_need_a_record_of_their_own_run(record_maps: bool, message: str) -> None:
    s = scene(WIDE.but(steps=2))
    control = s.control(SWAP, record_maps=record_maps)
    samples = s.sample(control, control[1], control[2])
    other = s.graph.add("LatentMultiply", samples=samples, multiplier=2.0)
    maps = s.graph.add("P2PAttentionMaps", record=control[3], samples=other, words="cat")
    with pytest.raises(GraphError, match=message):
        run(s.graph, maps)


def test_a_plain_prompt_is_mapped_without_an_edit() -> None:
    s = scene(WIDE)
    edit = s.graph.add("P2PPlainPrompt", clip=s.clip, prompt=SOURCE)
    control = s.graph.add("P2PAttentionController", model=s.model, latent=s.latent, edit=edit)
    samples = s.sample(control, control[1], control[2])
    maps = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words="red cat")
    latents, mask, blend_mask = run(s.graph, samples, maps[1], maps[2])
    assert latents["samples"].shape[0] == 1
    assert distance(latents["samples"], plain(SOURCE, WIDE)) < 1e-6
    assert mask.shape == (1, 192, 256) and 0.99 < float(mask.max()) <= 1
    assert bool((blend_mask == 1).all())
    s = scene(WIDE)
    edit = s.graph.add("P2PPlainPrompt", clip=s.clip, prompt=SOURCE)
    with pytest.raises(GraphError, match="no edit to confine"):
        run(s.graph, s.graph.add("P2PLocalBlendMask", edit=edit, source_words="cat"))
