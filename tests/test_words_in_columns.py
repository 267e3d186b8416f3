"""Which columns of an encoding belong to which words, for the host's text encoders."""

from __future__ import annotations

from types import ModuleType

import newer_host
import pytest
import torch
from families.watching import pack
from safetensors.torch import save_file
from text_encoders import encoder, make_encoder

pytestmark = pytest.mark.usefixtures("host")

TEXT = "a red cat sat on the green bench beside a dog"
# The column of the text's first token: template columns that stay, or begin; read in the host.
FIRST = {
    "SD1.5": 1, "SDXL": 1, "Flux.1": 0, "Chroma": 0, "Anima": 0, "Klein": 3, "Z-Image": 3,
    "Qwen-Image": 0, "Krea 2": 0, "Mage-Flow": 0, "HunyuanImage": 0, "Ideogram 4": 3, "LongCat": 0,
    "JoyImage": 2, "OmniGen 2": 23, "Boogu": 29, "Lumina 2": 1, "Ovis": 1,
}  # fmt: skip
CAUSAL = [name for name in FIRST if name not in ("Flux.1", "Chroma", "Anima", "SD1.5", "SDXL")]


def words() -> ModuleType:
    return pack("nodes.host.words.reading")


def reading(family: str, text: str = TEXT, clip=None):
    clip = clip or encoder(family)
    with torch.inference_mode():
        cond = clip.encode_from_tokens(clip.tokenize(text))
        return words().read(clip, text, cond.shape[1]), cond[0]


@pytest.mark.parametrize("family", FIRST)
def test_first_column(family: str) -> None:
    made, _ = reading(family)
    assert made.columns(0, 1)[0] == FIRST[family]
    assert made.text == TEXT


@pytest.mark.parametrize("family", CAUSAL)
def test_a_changed_word_changes_nothing_before_its_columns(family: str) -> None:
    """Causal encoders, at every word: its first column is the first that moves."""
    made, cond = reading(family)
    for word in TEXT.split()[1::3]:
        [(start, end), *_] = made.find(word)
        other = f"{TEXT[:start]}lasagne{TEXT[end:]}"
        changed, other_cond = reading(family, other)
        shared = min(len(cond), len(other_cond))
        moved = (cond[:shared] - other_cond[:shared]).norm(dim=-1) > 1e-3
        first = made.columns(start, end)[0]
        assert int(moved.nonzero()[0]) == first == changed.columns(start, start + 7)[0]


def test_two_sets_of_columns() -> None:
    """SD3: l and g make 77 columns together, T5 those behind; a long prompt makes more of both."""
    made, _ = reading("SD3")
    assert made.columns(2, 5) == (2, 79)
    assert made.length == 154
    long, cond = reading("SD3", "tree " * 80 + "red")
    [(start, end)] = long.find("red")
    assert len(cond) == 154 + 82
    assert long.columns(start, end) == (77 + 6, 154 + 80)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("don't", {"don": (1, 77), "'t": (2, 78, 79)}),
        ("50mm lens", {"50mm": (1, 2, 3, 77, 78), "lens": (4, 79)}),
    ],
)
def test_words_that_one_part_of_an_encoder_cuts_where_the_other_does_not(
    text: str, expected: dict[str, tuple[int, ...]]
) -> None:
    """CLIP takes digits one by one, and 't for one token."""
    made = pack("nodes.host.families.texts").read_prompt(encoder("SD3"), text)
    assert {word.text: word.columns for word in made.words} == expected


def test_weights_are_not_part_of_the_text() -> None:
    for family in ("SD1.5", "Flux.1", "Anima"):
        made, _ = reading(family, r"a (red:1.3) cat \(here\)")
        assert made.text == "a red cat (here)"
    for family in ("Qwen-Image", "Z-Image"):
        made, _ = reading(family, r"a (red:1.3) cat \(here\)")
        assert made.text == "a (red:1.3) cat (here)"


@pytest.mark.parametrize("family", ["Qwen-Image", "LongCat"])
def test_pictures_become_many_columns(family: str) -> None:
    """Models that edit: the text's columns stand behind those of the picture."""
    clip = encoder(family)
    picture = torch.rand(1, 56, 84, 3, generator=torch.Generator().manual_seed(1))

    def tokenize(text: str):
        return clip.tokenize(text, return_word_ids=True, images=[picture])

    with torch.inference_mode():
        cond, other = (
            clip.encode_from_tokens(clip.tokenize(text, images=[picture]))[0]
            for text in (TEXT, TEXT.replace("green", "lasagne"))
        )
        made = words().read(clip, TEXT, len(cond), tokenize)
        if len(cond) == len(clip.encode_from_tokens(clip.tokenize(TEXT))[0]):
            newer_host.skip(f"pictures for the encoder of {family}")
    [(start, end)] = made.find("green")
    shared = min(len(cond), len(other))
    moved = (cond[:shared] - other[:shared]).norm(dim=-1) > 1e-3
    # 6 words before it, begin and end of the picture, and its 2 x 3 patches of 28 pixels
    assert made.columns(start, end)[0] == int(moved.nonzero()[0]) == 6 + 2 + 6


def test_cjk_is_refused_where_the_encoder_does_not_know_it() -> None:
    made, _ = reading("Flux.1", "a 猫 and a dog")
    with pytest.raises(ValueError, match="does not know '猫'"):
        made.columns(*made.find("猫")[0])
    assert made.columns(*made.find("dog")[0])
    other, _ = reading("Qwen-Image", "a 猫 and a dog")
    assert other.columns(*other.find("猫")[0])


def test_a_word_that_is_not_there() -> None:
    made, _ = reading("Z-Image")
    with pytest.raises(ValueError, match="'hat' is not .* Its words are: a, red, cat"):
        made.find("hat")


def test_a_tokeniser_that_loses_spaces_is_refused() -> None:
    with pytest.raises(ValueError, match="loses spaces"):
        reading("HunyuanVideo")


def test_embeddings(tmp_path) -> None:
    """As many columns as vectors; one of another width would be dropped by the encoder."""
    vectors = torch.randn(3, 64, generator=torch.Generator().manual_seed(4))
    save_file({"emb_params": vectors}, tmp_path / "toy.safetensors")
    save_file({"emb_params": vectors[:, :32].contiguous()}, tmp_path / "thin.safetensors")
    clip = make_encoder("SD1.5", embeddings=str(tmp_path))
    clip.tokenizer.clip_l.embedding_size = 64
    made, _ = reading("SD1.5", "a red embedding:toy on a bench", clip)
    assert made.columns(*made.find("embedding:toy")[0]) == (3, 4, 5)
    assert made.columns(*made.find("bench")[0]) == (8,)
    with pytest.raises(ValueError, match="width 32"):
        reading("SD1.5", "a red embedding:thin on a bench", clip)
