"""P2P Prompt Pictures: every prompt is read as the host's own node reads it with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import weights_oracle
from families.pictured import KINDS, Place, SmallVae, text_encoder, words
from families.watching import pack
from host_run import Graph, GraphError, Link, host_nodes, run
from newer_host import skip
from scenes import distance
from text_encoders import encoder

from headless import load_pack

pytestmark = pytest.mark.usefixtures("host", "models")
CLEAN, WEIGHTED = "a red cat on a blurry bench", "a (red:1.7) cat on a (blurry:-1) bench"
TWO = KINDS["Plus, two"]


def same(made: list[list], expected: list[list]) -> None:
    """Two conditionings, bit for bit."""
    [[cross, extras]], [[other, others]] = made, expected
    assert torch.equal(cross, other) and set(extras) == set(others)
    for mine, theirs in zip(
        extras.get("reference_latents", ()), others.get("reference_latents", ()), strict=True
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_host_s_own_text_encode_gives_what_its_node_gives(kind: Any) -> None:
    place = Place(kind)
    text = place.graph.add("CLIPTextEncode", clip=place.pictured(), text=CLEAN)
    alone = place.graph.add("CLIPTextEncode", clip=place.clip, text=CLEAN)
    made, expected, without = run(place.graph, text, place.text(CLEAN), alone)
    same(made, expected)
    assert len(made[0][1].get("reference_latents", ())) == 2 * kind.vae
    assert without[0][0].shape[1] + 20 < made[0][0].shape[1], "the clip wired in has none"


@torch.inference_mode()
def test_pictures_that_come_in_a_growing_group() -> None:
    name, graph = "TextEncodeJoyImageEdit", Graph()
    file = Path(host_nodes.__file__).parent / "comfy_extras" / "nodes_joyimage.py"
    if not file.exists():
        skip(name)
    load_pack(file, "comfy_extras")
    clip = graph.value(encoder("JoyImage"))
    image = graph.value(torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(2)))
    given = {"clip": clip, "vae": graph.value(SmallVae())}
    made = graph.add("P2PPromptPictures", text_encoder=name, image1=image, **given)
    texts = (CLEAN, CLEAN.replace("cat", "lasagne"))
    encoded = [graph.add("CLIPTextEncode", clip=made, text=text) for text in texts]
    wanted = graph.add(name, prompt=CLEAN, **given, **{"images.image0": image})
    pictured, cond, other, expected = run(graph, made, *encoded, wanted)
    same(cond, expected)
    shared = min(cond[0][0].shape[1], other[0][0].shape[1])
    moved = (cond[0][0][0, :shared] - other[0][0][0, :shared]).norm(dim=-1) > 1e-3
    prompt = pack("nodes.host.families.texts").read_prompt(pictured, CLEAN)
    assert prompt.words[2].columns[0] == int(moved.nonzero()[0]) > 20


def lora(clip: Any) -> Any:
    """What a LoRA loader does with a clip."""
    made, name = clip.clone(), "qwen25_7b.transformer.model.layers.1.mlp.down_proj.weight"
    weight = clip.patcher.model.state_dict()[name]
    assert made.add_patches({name: ("diff", (torch.ones_like(weight) / 4,))}, 1.0)
    return made


def last_layer(graph: Graph, clip: Link) -> Link:
    return graph.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-2)


@pytest.mark.parametrize(
    "change", [lambda g, c: g.call(lora, c), last_layer], ids=("LoRA", "layer")
)
def test_nodes_that_change_a_clip_may_stand_behind_it(change: Any) -> None:
    place = Place(KINDS["Plus, VAE"])
    behind = change(place.graph, place.pictured())
    text = place.graph.add("CLIPTextEncode", clip=behind, text=CLEAN)
    expected = place.text(CLEAN, change(place.graph, place.clip))
    made, wanted, unchanged = run(place.graph, text, expected, place.text(CLEAN))
    same(made, wanted)
    assert distance(made[0][0], unchanged[0][0]) > 1e-3


def test_word_weights_equal_the_written_out_maps() -> None:
    place = Place(KINDS["Plus, VAE"])
    [[cross, _]] = run(place.graph, place.text(CLEAN))
    own = words(CLEAN, cross.shape[1])
    weights = {**dict.fromkeys(own[1], 1.7), **dict.fromkeys(own[5], -1.0)}
    every = [column for word in own for column in word]
    model = run(place.graph, place.model)
    written_out = weights_oracle.joint(model, weights, every, cross.shape[1], lambda _: 24)

    def weighted(text: str) -> torch.Tensor:
        given = {"model": place.model, "clip": place.pictured(), "text": text}
        node = place.graph.add("P2PPromptWeights", **given)
        return place.sampled(node, node[1], place.latent)

    plain, made = place.plain(CLEAN), weighted(WEIGHTED)
    expected = place.sampled(place.graph.value(written_out), place.text(CLEAN), place.latent)
    assert distance(made, expected) < 1e-5
    assert distance(made, plain) > 1e-4
    assert torch.equal(weighted("a (red:1) cat on a blurry bench"), plain)


def test_the_other_nodes_take_it() -> None:
    """Sources are the run of the host's own node; edits differ."""
    place = Place(KINDS["Plus, VAE"])
    clip, graph = place.pictured(), place.graph
    given = {"model": place.model, "latent": place.latent}
    edit = graph.add("P2PReweight", clip=clip, prompt=CLEAN, words="cat", scale=3.0)
    scaled = graph.add("P2PAttentionController", edit=edit, mode="hybrid", **given)
    edit = graph.add("P2PPlainPrompt", clip=clip, prompt=CLEAN)
    alone = graph.add("P2PAttentionController", edit=edit, **given)
    prompts = {"source_prompt": CLEAN, "target_prompt": "a red dog on a blurry bench"}
    edited = graph.add("P2PEdit", clip=clip, **given, **prompts)
    plain = place.plain(CLEAN)
    for node, rows in ((scaled, 2), (alone, 1), (edited, 2)):
        made = place.sampled(node, node[1], node[2])
        assert len(made) == rows
        assert distance(made[:1], plain) < 1e-6
        assert rows == 1 or distance(made[1:], plain) > 1e-5


def wired(**changes: Any) -> None:
    """The node with one picture and some inputs changed."""
    graph = Graph()
    picture = torch.full((1, 64, 64, 3), 0.5)
    inputs = {"clip": text_encoder(), "image1": picture, **changes}
    links = {
        name: value if isinstance(value, (str, Link)) or value is None else graph.value(value)
        for name, value in inputs.items()
    }
    node = graph.add("P2PPromptPictures", **{"text_encoder": TWO.node, **links})
    run(graph, graph.add("P2PPlainPrompt", clip=node, prompt=CLEAN))


ONE = "TextEncodeQwenImageEdit"
PICTURE = torch.full((1, 64, 64, 3), 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image1": None}, "has no image1: nothing is wired.*Wire a picture to it"),
        ({"text_encoder": ONE, "image2": PICTURE}, f"{ONE} takes 1 picture, but image2 is wired"),
        ({"text_encoder": "CLIPTextEncode"}, "not in"),
    ],
)
def test_bad_wires(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        wired(**changes)


@pytest.mark.parametrize("family", ["SD1.5", "Z-Image", "Flux.1"])
@pytest.mark.parametrize("node", [ONE, TWO.node])
def test_text_encoders_that_do_not_see(family: str, node: str) -> None:
    with pytest.raises(GraphError, match=r"text encoder \(\w+\) does not see the pictures.*Load"):
        wired(clip=encoder(family), text_encoder=node)


def test_pictures_twice_and_no_clip() -> None:
    place = Place(TWO)
    with pytest.raises(GraphError, match="reads pictures already.*Wire all pictures to one"):
        run(place.graph, place.pictured(place.pictured()))
    with pytest.raises(GraphError, match="There is no CLIP"):
        run(place.graph, place.pictured(place.graph.call(lambda: None)))


class Encode:
    """Another pack's node, which needs its picture and takes no VAE."""

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {"picture": ("IMAGE",), "clip": ("CLIP",), "words": ("STRING", {})},
            "optional": {"more": ("IMAGE", {}), "strength": ("FLOAT", {"default": 1.0})},
        }
    )
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"

    def encode(self, clip: Any, words: str, picture: Any, more: Any = None, strength: float = 1.0):
        images = [x[..., :3] for x in (picture, more) if x is not None]
        return (clip.encode_from_tokens_scheduled(clip.tokenize(words, images=images[:1])),)


class Averages(Encode):
    """It does more than encode."""

    def encode(self, **inputs: Any):
        [conditioning] = super().encode(**inputs)
        return ([[conditioning[0][0] * 0.5, {}]],)


class Asks(Encode):
    def encode(self, clip: Any, words: str, picture: Any, **more: Any):
        return ([[clip.encode_from_tokens(clip.tokenize(words)), {}]],)


class Broken(Encode):
    @classmethod
    def INPUT_TYPES(cls) -> dict:
        raise RuntimeError("no folder")


class Scales(Encode):
    """It needs a number."""

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {
                "image": ("IMAGE",), "clip": ("CLIP",), "text": ("STRING",), "by": ("FLOAT",),
            }
        }
    )  # fmt: skip


class Both(Encode):
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING")


def options() -> list[str]:
    schema = host_nodes.NODE_CLASS_MAPPINGS["P2PPromptPictures"].define_schema()
    return next(slot.options for slot in schema.inputs if slot.id == "text_encoder")


def test_which_nodes_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their inputs and outputs, whoever they are of, when they are asked for."""
    before = options()
    assert before[0] == TWO.node
    assert {ONE} <= set(before) <= {TWO.node, ONE, "TextEncodeJoyImageEdit"}
    for node in (Encode, Averages, Asks, Broken, Scales, Both):
        monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, node.__name__, node)
    assert set(options()) - set(before) == {"Encode", "Averages", "Asks"}


def test_nodes_of_other_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    for node in (Encode, Averages, Asks):
        monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, node.__name__, node)
    wired(text_encoder="Encode")
    for changes, message in (
        ({"image1": None, "image2": PICTURE}, "Encode needs image1. Wire a picture"),
        ({"vae": SmallVae()}, "Encode takes no VAE. Leave vae out"),
        ({"image2": PICTURE}, "does not see the pictures"),
        ({"text_encoder": "Averages"}, "Averages does more than tokenise and encode"),
        ({"text_encoder": "Asks"}, "Asks does more than tokenise.*Choose another"),
    ):
        with pytest.raises(GraphError, match=message):
            wired(**{"text_encoder": "Encode", **changes})
