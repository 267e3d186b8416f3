"""Qwen-Image-Edit: prompts in which pictures stand as hundreds of columns before the words."""

from __future__ import annotations

from difflib import SequenceMatcher

import pytest
import torch
from families.edits import SEED, STEPS, hybrid_plan, model_of, places_of
from families.pictured import FAMILY, KINDS, Kind, Place, words
from families.watching import pack
from host_run import run
from joint_oracle import oracle
from scenes import distance
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host", "models")

SOURCE, SWAPPED = "a red cat on a bench", "a red dog on a bench"
LONGER, ADDED = "a red lasagne on a bench", "a red cat on a green bench"


def columns(conds: list[list]) -> int:
    return conds[0][0].shape[1]


def mapping(node: str, target: str, lengths: list[int]) -> Tensor:
    """S, (T_s, T_t): pictures, words and template column by column."""
    made = torch.zeros(*lengths)
    texts = (SOURCE, target)
    ours, theirs = (words(text, n) for text, n in zip(texts, lengths, strict=True))
    before = range(ours[0][0])
    assert theirs[0][0] == len(before) > 100
    made[before, before] = 1
    made[range(lengths[0] - 5, lengths[0]), range(lengths[1] - 5, lengths[1])] = 1
    pairs = SequenceMatcher(None, *(text.split() for text in texts), autojunk=False).get_opcodes()
    for tag, a, b, c, d in pairs:
        if tag == "equal" or (tag == "replace" and node == "P2PWordSwap"):
            for old, new in zip(ours[a:b], theirs[c:d], strict=True):
                for column in old:
                    made[column, new] = 1 / len(new)
    return made


def expected(kind: Kind, node: str, target: str) -> Tensor:
    place = Place(kind)
    conds = [run(place.graph, place.with_references(place.text(text))) for text in (SOURCE, target)]
    lengths = [columns(cond) for cond in conds]
    made = mapping(node, target, lengths)
    beside = sum(x.shape[-2] * x.shape[-1] // 4 for x in conds[0][0][1]["reference_latents"])
    latent = FAMILY.latent(8, 12, batch=2)
    places = places_of(FAMILY, lengths, latent, beside)
    return oracle(model_of(FAMILY), conds, places, hybrid_plan(made), latent, STEPS, SEED)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@torch.inference_mode()
def test_words_stand_behind_the_pictures(kind: Kind) -> None:
    """A causal encoder: the first column that moves is the changed word's."""
    place = Place(kind)
    clip = run(place.graph, place.pictured())
    texts = pack("nodes.host.families.texts")
    cond, other = (texts.encode(clip, text)[0][0] for text in (SOURCE, LONGER))
    source, made = (texts.read_prompt(clip, text) for text in (SOURCE, LONGER))
    assert (source.length, made.length) == (cond.shape[1], other.shape[1])
    shared = min(source.length, made.length)
    moved = (cond[0, :shared] - other[0, :shared]).norm(dim=-1) > 1e-3
    assert made.words[2].columns[0] == int(moved.nonzero()[0])
    assert [list(word.columns) for word in made.words] == words(LONGER, made.length)
    found = texts.find_columns(clip, [source, made], "lasagne")
    assert found == [(), made.words[2].columns]


EDITS = [
    ("one picture", "P2PWordSwap", LONGER),
    ("Plus, one", "P2PWordSwap", SWAPPED),
    ("Plus, two", "P2PWordSwap", LONGER),
    ("Plus, VAE", "P2PRefine", ADDED),
]


@pytest.mark.parametrize(("name", "node", "target"), EDITS)
def test_edits_equal_the_written_out_maps(name: str, node: str, target: str) -> None:
    """The source is the run of the host's own node. Many columns leave few to the words."""
    kind = KINDS[name]
    new, wanted = Place(kind).edited(node, SOURCE, target), expected(kind, node, target)
    source, untied = (Place(kind).plain(text) for text in (SOURCE, target))
    assert distance(wanted[:1], source) < 1e-6 > distance(new[:1], source)
    assert distance(new, wanted) < 1e-6
    assert distance(wanted[1:], untied) > 1e-4 < distance(wanted[1:], source)
