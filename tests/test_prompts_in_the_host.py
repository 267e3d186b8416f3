"""How prompts become mappers with the host's real tokenizer, against the oracle's reading."""

from __future__ import annotations

import pytest
import torch
from host_run import run
from oracle import make_plan
from safetensors.torch import save_file
from scenes import SOURCE, Edit, Settings, controlled, distance, plain, scene
from tiny_model import WIDTH, shared_clip, tiny_clip

pytestmark = pytest.mark.usefixtures("host")
SHORT = Settings(steps=6, width=64, height=96)

PAIRS = [
    ("a cat", "a dog"),
    ("a cat on a mat", "a very small dog on a mat"),
    ("a turquoise supercalifragilistic lasagne", "a red supercalifragilistic soup"),
    ("a cat, sleeping", "a cat , sleeping. at night!"),
    ("don't blue-ish cat's 1234", "don't greenish dog's 12"),
    ("two cats and a cat", "two dogs and a cat"),
    ("a (red:1.3) cat (on (a:0.5) mat)", "a blue [cat on] a (big mat:1.2)"),
    ("the old man walks", "walks the old man"),
    ("ein Größenvergleich 猫 🐱", "ein Vergleich 犬 🐶 قطة"),
    ("a " + "very " * 60 + "long one", "a long one"),
    ("cat", "dog " * 70),
]


@pytest.mark.parametrize("kind", ["swap", "refine"])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_mappers(source: str, target: str, kind: str) -> None:
    edit = Edit(kind, target, source)
    s = scene()
    made = run(s.graph, edit.build(s.graph, s.clip)).prompt_edit
    expected = make_plan(shared_clip(), edit)
    torch.testing.assert_close(made.refine.float(), expected.refine)
    mapped = made.refine * made.mapper
    torch.testing.assert_close(mapped.float(), expected.refine * expected.mapper)


@pytest.mark.parametrize(
    ("words", "columns"),
    [
        ("cat", [3, 8]),
        ("Cat", [3, 8]),
        ("big cat", [7, 8]),
        ("cats", [5]),
        ("cat, and", [3, 4, 8]),
        ("cat\ncats", [3, 5, 8]),
        ("lasagne", [10, 11]),
        ("lasagne, cats,", [5, 10, 11]),
    ],
)
def test_words_are_found_wherever_they_stand(words: str, columns: list[int]) -> None:
    prompt = "a red cat and cats (a big:1.2) (cat:0.8) on lasagne"
    edit = Edit("reweight", prompt, scales=((words, 3.0),))
    s = scene()
    made = run(s.graph, edit.build(s.graph, s.clip)).prompt_edit
    found = (made.equalizer != 1).nonzero().flatten().tolist()
    assert found == columns


@pytest.fixture(scope="module")
def clip_with_embedding(tmp_path_factory: pytest.TempPathFactory):
    """A CLIP that knows `embedding:toy`, a textual inversion of three vectors."""
    folder = tmp_path_factory.mktemp("embeddings")
    vectors = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(4)) * 3
    save_file({"emb_params": vectors}, folder / "toy.safetensors")
    return tiny_clip(embeddings=str(folder))


def test_textual_inversions(clip_with_embedding) -> None:
    target = "a photo of a blue embedding:toy on a bench"
    swap = Edit("swap", target)
    scaled = Edit("swap", target, scales=(("embedding:toy", -2.0),))
    rows = controlled([swap, scaled], SHORT, clip=clip_with_embedding)
    assert distance(rows[0], plain(SOURCE, SHORT, clip=clip_with_embedding)[0]) <= 1e-4
    assert distance(rows[1], rows[0]) > 1e-2
    assert distance(rows[2], rows[1]) > 1e-2
    s = scene(clip=clip_with_embedding)
    made = run(s.graph, scaled.build(s.graph, s.clip)).prompt_edit
    assert (made.equalizer == -2).nonzero().flatten().tolist() == [6, 7, 8]


def test_a_phrase_across_chunks_is_found() -> None:
    filler = "tree " * 73
    edit = Edit("reweight", f"{filler}red cat on a mat", scales=(("red cat on", 3.0),))
    s = scene()
    made = run(s.graph, edit.build(s.graph, s.clip)).prompt_edit
    assert (made.equalizer == 3).nonzero().flatten().tolist() == [74, 75, 78]


def test_skipped_text_layers() -> None:
    """CLIP set last layer: the source stays the picture that this CLIP gives."""
    s = scene(SHORT)
    s.clip = s.graph.add("CLIPSetLastLayer", clip=s.clip, stop_at_clip_layer=-2)
    control = s.control(Edit("swap", "a photo of a blue dog on a bench"))
    edited, expected = run(
        s.graph,
        s.sample(control, control[1], control[2]),
        s.sample(s.model, s.text(SOURCE), s.latent),
    )
    assert distance(edited["samples"][0], expected["samples"][0]) <= 1e-4
    assert distance(expected["samples"], plain(SOURCE, SHORT)) > 1e-3
