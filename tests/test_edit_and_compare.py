"""P2P Edit stands for the nodes it names; P2P Compare takes a run's pictures apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host_run import GraphError, Link, host_nodes, run
from scenes import SOURCE, Edit, Scene, Settings, distance, plain, scene

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=5, width=64, height=64)
TARGET = "a photo of a blue dog on a wooden bench"


def edit_node(s: Scene, **inputs: Any) -> Link:
    wired = {
        "model": s.model, "clip": s.clip, "latent": s.latent, "source_prompt": SOURCE,
        "target_prompt": TARGET,
    }  # fmt: skip
    return s.graph.add("P2PEdit", **{**wired, **inputs})


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.8, 1.0])
def test_it_stands_for_the_other_nodes(strength: float) -> None:
    s = scene(SHORT)
    one = edit_node(s, strength=strength)
    several = s.control(Edit("swap", TARGET, cross=strength, self_=strength / 2))
    ours, theirs = run(
        s.graph, s.sample(one, one[1], one[2]), s.sample(several, several[1], several[2])
    )
    assert distance(ours["samples"], theirs["samples"]) <= 1e-6
    assert distance(ours["samples"][0], plain(SOURCE, SHORT)[0]) <= 1e-5
    assert distance(ours["samples"][1], ours["samples"][0]) > 1e-2


def test_blend_words_of_either_prompt() -> None:
    s = scene(SHORT)
    one = edit_node(s, blend_words="cat, dog")
    swap = Edit("swap", TARGET).build(s.graph, s.clip)
    words = {"source_words": "cat", "target_words": "dog"}
    blended = s.graph.add("P2PLocalBlendMask", edit=swap, **words)
    several = s.graph.add("P2PAttentionController", model=s.model, latent=s.latent, edit=blended)
    ours, theirs = run(
        s.graph, s.sample(one, one[1], one[2]), s.sample(several, several[1], several[2])
    )
    assert distance(ours["samples"], theirs["samples"]) <= 1e-6


def test_a_photograph() -> None:
    s = scene(SHORT)
    photograph = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    inversion = s.graph.add(
        "P2PDDIMInvert", model=s.model, positive=s.text(SOURCE), steps=5, scheduler="normal",
        latent=s.graph.value({"samples": photograph}),
    )  # fmt: skip
    one = edit_node(s, inversion=inversion, latent=inversion[1])
    out = run(s.graph, s.sample(one, one[1], one[2]))["samples"]
    assert torch.equal(out[:1], photograph)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"source_prompt": " "}, "source_prompt is empty"),
        ({"blend_words": "horse"}, "'horse' is not in the prompt"),
        ({"strength": float("nan")}, "strength must lie in 0…1"),
        ({"clip": None}, "clip"),
    ],
)
def test_bad_inputs(inputs: dict[str, Any], message: str) -> None:
    s = scene(SHORT)
    with pytest.raises(GraphError, match=message):
        run(s.graph, edit_node(s, **inputs))


def compare(s: Scene, record: Link, pictures: torch.Tensor, **inputs: Any) -> list[torch.Tensor]:
    node = s.graph.add("P2PCompare", record=record, images=s.graph.value(pictures), **inputs)
    return run(s.graph, node[0], node[1], node[2])


@pytest.mark.parametrize("difference", [False, True])
def test_sources_edits_and_a_sheet(difference: bool) -> None:
    s = scene(SHORT)
    control = s.control(Edit("swap", TARGET), Edit("reweight", scales=(("red", 2.0),)))
    pictures = torch.rand(6, 64, 64, 3)
    source, edits, sheet = compare(s, control[3], pictures, difference=difference)
    assert torch.equal(source, pictures[[0, 3]])
    assert torch.equal(edits, pictures[[1, 2, 4, 5]])
    rows, panels = (4 if difference else 2), 3
    assert sheet.shape[2] >= panels * 256 and sheet.shape[1] >= rows * 256
    enlarged = pictures[4].repeat_interleave(4, 0).repeat_interleave(4, 1)
    windows = sheet[0].unfold(0, 256, 1).unfold(1, 256, 1)
    left = 256 + 2 * 2
    column = windows[:, left].permute(0, 2, 3, 1)
    assert any(torch.equal(window, enlarged) for window in column), "the second seed's first edit"


def test_a_row_for_every_word_that_is_asked_for() -> None:
    s = scene(SHORT)
    control = s.control(Edit("swap", TARGET))
    samples = s.sample(control, control[1], control[2])
    made = run(s.graph, samples)["samples"]
    pictures = torch.rand(2, 64, 64, 3)
    record, latent = run(s.graph, control[3], samples)
    node = host_nodes.NODE_CLASS_MAPPINGS["P2PCompare"]
    plain, words = (
        node.execute(record=record, images=pictures, heat_words=words).args[2]
        for words in ("", "photo, dog")
    )
    rows = (words.shape[1] - 2) / (plain.shape[1] - 2)
    assert rows == 3 and len(made) == 2
    third = words[0, -256:]  # the dog is in the edit alone
    assert (third[:, 2:258] == 1).all() and (third[:, -258:-2] < 1).any()
    with pytest.raises(GraphError, match="'horse' is not in the prompt"):
        compare(s, control[3], pictures, heat_words="horse")
    with pytest.raises(ValueError, match="made 4 pictures"):
        node.execute(record=record, images=torch.rand(4, 64, 64, 3), heat_words="dog")


def test_a_heat_map_sheet_has_no_empty_panel() -> None:
    s = scene(SHORT)
    control = s.control(Edit("swap", TARGET))
    samples = s.sample(control, control[1], control[2])
    maps = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words="dog")
    both = s.graph.add("P2PAttentionMaps", record=control[3], samples=samples, words="photo, dog")
    one, two = run(s.graph, maps, both)
    assert one.shape[2] <= 256 + 4 < 2 * 256 <= two.shape[2]
    assert torch.equal(two[1, : one.shape[1], : one.shape[2]], one[0])
    assert (two[1, :, one.shape[2] :] == 1).all()


@pytest.mark.parametrize(
    ("target", "lines"), [(TARGET, 1), (f"{TARGET} beside a very old wooden house in the hills", 3)]
)
def test_long_labels_are_wrapped(target: str, lines: int) -> None:
    s = scene(SHORT)
    control = s.control(Edit("swap", target))
    height = compare(s, control[3], torch.zeros(2, 64, 64, 3))[2].shape[1]
    assert height == 256 + 22 * lines + 2 * 2


def test_labels_say_what_changed() -> None:
    s = scene(SHORT)
    control = s.control(Edit("swap", TARGET), Edit("reweight", scales=(("red", -2.0),)))
    record = run(s.graph, control[3])
    assert record.labels == ("source", "red cat → blue dog, + wooden", "red × -2")


def test_samples_are_decoded() -> None:
    class Decoder:
        def decode(self, samples: torch.Tensor) -> torch.Tensor:
            return samples.movedim(1, -1)

    s = scene(SHORT)
    control = s.control(Edit("swap", TARGET))
    samples = {"samples": torch.rand(2, 3, 64, 64)}
    compare_node = host_nodes.NODE_CLASS_MAPPINGS["P2PCompare"]
    record = run(s.graph, control[3])
    source, edits, _ = compare_node.execute(record=record, samples=samples, vae=Decoder()).args
    assert torch.equal(torch.cat([source, edits]), samples["samples"].movedim(1, -1))
    with pytest.raises(ValueError, match="without a VAE"):
        compare_node.execute(record=record, samples=samples)
    with pytest.raises(ValueError, match="got neither"):
        compare_node.execute(record=record)
    with pytest.raises(ValueError, match="got 3 pictures.*makes 2 for every seed"):
        compare_node.execute(record=record, images=torch.rand(3, 8, 8, 3))
