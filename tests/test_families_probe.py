"""Where text and image stand, found by probing: every family of the host, and invented ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from families import invented, others, refiners, streams
from families.tiny import Family
from families.watching import ask, layout, pack
from tiny_model import WIDTH, shared_unet
from torch import Tensor

pytestmark = pytest.mark.usefixtures("host")

ALL = [*streams.FAMILIES, *refiners.FAMILIES, *others.FAMILIES]
TEXT = 21
# The order in a call's keys: t text, i image, o neither. Known from the host's source.
JOINT = {
    **{family.name: "ti" for family in ALL},
    "Z-Image": "toio", "HiDream": "ito", "Lens": "it", "JoyImage": "it", "AuraFlow": "oti",
    **dict.fromkeys(["Anima", "Cosmos-Predict2", "Wan 2.1", "Kandinsky 5"], "t"),
}  # fmt: skip
COLUMNS = {"Flux.2 dev": 512, "Flux.2 Klein": 512, "Anima": 512}  # the host pads them
CALLS = {
    "Flux.1 dev": 4, "SD3": 2, "SD3.5 medium": 3, "Z-Image": 3, "Krea 2": 3, "Qwen-Image": 3,
    "Anima": 2, "Boogu": 4, "HiDream": 4, "Wan 2.1": 2, "AuraFlow": 3, "Chroma Radiance": 4,
}  # fmt: skip


def order(runs: Any) -> str:
    return "".join("t" if run.role >= 0 else {-1: "i", -2: "o", -3: "r"}[run.role] for run in runs)


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_a_family_is_found_and_passes_the_self_check(family: Family) -> None:
    found = layout(family.load(), family.conditioning(TEXT), family.latent())
    reading = [found.calls[index] for index in found.reading]
    assert {order(call.keys) for call in reading} == {JOINT[family.name]}
    assert len(reading) == CALLS.get(family.name, len(reading)) and reading
    columns = COLUMNS.get(family.name, TEXT)
    for call in reading:
        [text] = [run for run in call.keys if run.text]
        assert (text.role, text.length) == (0, columns)
        assert call.patch == {3: 16, 4: 2, 16: 2, 64: 1, 128: 1}[family.channels]
    assert found.raster


@pytest.mark.parametrize(
    "family", [streams.QWEN_IMAGE, refiners.Z_IMAGE, refiners.ANIMA, streams.LENS]
)
def test_a_small_latent_says_the_same_as_the_true_one(family: Family) -> None:
    """Carried to the true size, positions equal those of a probe over the whole latent."""
    probe = pack("nodes.host.families.probe")

    def question(model: Any, inputs: Any, options: dict) -> tuple:
        one = inputs.rows([0])
        small = probe.probe(model._apply_model, one, options, "")
        whole = probe._probed(model._apply_model, one, options, "")
        return small, whole

    small, whole = ask(family.load(), family.conditioning(TEXT), family.latent(12, 20), question)
    assert small.reading == whole.reading
    for index in whole.reading:
        length = sum(run.length for run in whole.calls[index].keys)
        carried = small.keys(small.calls[index], length, (12, 20))
        runs = whole.calls[index].keys
        roles = [run.role + (i if run.text else 0) for run in runs for i in range(run.length)]
        assert carried.text.tolist() == [i for i, role in enumerate(roles) if role >= 0]
        assert carried.columns.tolist() == [role for role in roles if role >= 0]
        assert carried.image.tolist() == [i for i, role in enumerate(roles) if role == -1]


def test_more_positions_than_promised_are_refused() -> None:
    found = layout(streams.QWEN_IMAGE.load(), streams.QWEN_IMAGE.conditioning(TEXT),
                   streams.QWEN_IMAGE.latent())  # fmt: skip
    call = found.calls[0]
    assert len(found.keys(call, TEXT + 60, (12, 20)).image) == 60
    with pytest.raises(ValueError, match="has 80 positions where .* promised 81"):
        found.keys(call, TEXT + 59, (12, 20))


@pytest.mark.parametrize("tokens", [3, 11, 64])
@pytest.mark.parametrize("network", invented.SOUND, ids=lambda network: network.__name__)
def test_invented_networks_are_found(network: type, tokens: int) -> None:
    references = network is invented.References
    positive = invented.conditioning(tokens, references=references)
    found = layout(invented.shared(network), positive, torch.zeros(1, 4, 9, 11))
    reading = [found.calls[index] for index in found.reading]
    expected = {
        invented.ImageFirst: {"it"}, invented.Registers: {"otio"}, invented.References: {"tri"},
        invented.CrossAttention: {"t"}, invented.Flipped: {"ti", "it"},
    }.get(network, {"ti"})  # fmt: skip
    assert {order(call.keys) for call in reading} == expected
    assert len(reading) == 3
    kinds = [call.kind.name for call in found.calls]
    assert kinds.count("SELF") == {invented.Refined: 1, invented.CrossAttention: 3}.get(network, 0)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (invented.AllHidden, "none of its attention calls passes through ComfyUI's attention hook"),
        (invented.HiddenLayer, "not confirmed: .* leaves a difference of"),
        (
            invented.Reversed,
            "not certain: in attention call 0 the prompt's columns do not stand in",
        ),
        (invented.Split, "not certain: in attention call 0 the prompt's columns do not stand"),
        (invented.Illustrated, "not certain: .* with the prompt and the picture"),
        (invented.Exploding, "not finite .attention call 0"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_told_is_refused(network: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout(invented.invented(network), invented.conditioning(), torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize("family", others.UNREACHABLE, ids=lambda family: family.name)
def test_families_beyond_the_hook_are_refused(family: Family) -> None:
    with pytest.raises(ValueError, match="Words cannot be followed in this model .*attention hook"):
        layout(family.load(), family.conditioning(TEXT), family.latent(64, 64))


def spoiled(call: Any, mutant: str) -> Any:
    """One position off, text and image exchanged, or a call that is not known to read text."""
    if mutant == "missed":
        return replace(call, kind=pack("nodes.host.families.record").Kind.OTHER)
    text, *rest = call.keys
    place = next(i for i, run in enumerate(rest) if run.role == -1)
    before, image, after = rest[:place], rest[place], rest[place + 1 :]
    if mutant == "swapped":
        return replace(call, keys=(*before, image, text, *after))
    shorter, other = text._replace(length=text.length - 1), type(text)(-2, 1)
    return replace(call, keys=(shorter, *before, image, other, *after))


@pytest.mark.parametrize(
    "family", [streams.QWEN_IMAGE, streams.FLUX_DEV, streams.SD3, refiners.Z_IMAGE]
)
@pytest.mark.parametrize("mutant", ["position", "swapped", "missed"])
def test_the_self_check_notices_a_wrong_layout(family: Family, mutant: str) -> None:
    def question(model: Any, inputs: Any, options: dict) -> None:
        one = inputs.rows([0])
        found = pack("nodes.host.families.probe").probe(model._apply_model, one, options, "")
        last = found.reading[-1]
        calls = tuple(spoiled(call, mutant) if call.index == last else call for call in found.calls)
        wrong = replace(found, calls=calls)
        check = pack("nodes.host.families.check").check
        assert check(model._apply_model, found, one, options, "") <= 1e-6
        with pytest.raises(
            ValueError, match="not confirmed: .* leaves a difference of|not follow the"
        ):
            check(model._apply_model, wrong, one, options, "mutant")

    ask(family.load(), family.conditioning(TEXT), family.latent(), question)


def test_unets_are_found_as_their_own_path_knows_them() -> None:
    """One call that reads text for every layer that the UNet path lists, with all 77 columns."""
    unet = pack("nodes.host.families.unet")
    model = shared_unet()
    positive = [[torch.randn(1, 77, WIDTH, generator=torch.Generator().manual_seed(1)), {}]]
    probe = pack("nodes.host.families.probe")

    def question(base: Any, inputs: Any, options: dict) -> Any:
        return probe.probe(base._apply_model, inputs.rows([0]), options, "UNet")

    found = ask(model, positive, torch.zeros(1, 4, 16, 16), question)
    reading = [found.calls[index] for index in found.reading]
    assert len(reading) == len(unet.unet_family(model).layers)
    assert {call.keys for call in reading} == {((0, 77),)}
    assert {call.kind.name for call in reading} == {"CROSS"}
    assert [call.kind.name for call in found.calls] == ["SELF", "CROSS"] * len(reading)


def test_a_layout_is_kept_with_the_network() -> None:
    model = invented.invented(invented.SingleStream)
    latent, positive = torch.zeros(1, 4, 8, 8), invented.conditioning()
    found = layout(model, positive, latent)
    assert layout(model.clone(), invented.conditioning(seed=9), torch.zeros(2, 4, 6, 8)) is found
    assert layout(model, invented.conditioning(12), latent) is not found


def test_foreign_patches_do_not_disturb_the_probe() -> None:
    model = invented.invented(invented.SingleStream).clone()

    def breaking(func: Any, q: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return func(q, *args, **kwargs) * 0

    model.model_options["transformer_options"]["optimized_attention_override"] = breaking
    found = layout(model, invented.conditioning(), torch.zeros(1, 4, 8, 8))
    assert len(found.reading) == 3


@pytest.mark.parametrize("size", [(4, 4), (9, 11), (2, 3)])
def test_all_zero_text_and_odd_sizes(size: tuple[int, int]) -> None:
    positive = [[torch.zeros(1, 11, invented.TEXT), {}]]
    found = layout(invented.invented(invented.Registers), positive, torch.zeros(1, 4, *size))
    assert order(found.calls[0].keys) == "otio"
