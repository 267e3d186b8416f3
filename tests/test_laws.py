"""What must hold whatever the picture: identities between runs with and without edits."""

from __future__ import annotations

import pytest
import torch
from host_run import Host, run
from scenes import NEGATIVE, SOURCE, Edit, Settings, controlled, distance, identity, plain, scene

pytestmark = pytest.mark.usefixtures("host")
TOLERANCE = 1e-4

SWAP = Edit("swap", "a photo of a blue dog on a bench")
REFINE = Edit("refine", "a photo of a fluffy red cat asleep on a bench")
REWEIGHT = Edit("reweight", scales=(("red, cat", 3.0),))
SHORT = Settings(steps=6, width=64, height=96)
LONG = f"{SOURCE} " + "under very old trees, with leaves and a fountain, " * 8


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings("dpmpp_2m", "karras", cfg=1.0),
        Settings("heun", steps=10, width=88, height=136),
        Settings("ddim", "ddim_uniform", batch=2, steps=10),
        Settings("uni_pc", cfg=9.0, steps=10),
    ],
    ids=lambda settings: settings.sampler_name,
)
def test_source_is_the_plain_picture(settings: Settings) -> None:
    edits = [SWAP, REFINE, REWEIGHT]
    sources = controlled(edits, settings)[:: 1 + len(edits)]
    for source, expected in zip(sources, plain(SOURCE, settings), strict=True):
        assert distance(source, expected) <= TOLERANCE


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("a (red:1.3) cat on a [bench]", "a (blue:0.6) dog on a bench"),
        (LONG, "a dog"),
        (SOURCE, LONG),
        ("ein schöner Größenvergleich, naïve café 猫 🐱", "un gato 🐱 قطة"),
    ],
    ids=["weights", "long source", "long target", "unicode"],
)
def test_source_is_the_plain_picture_for_every_kind_of_prompt(source: str, target: str) -> None:
    for kind in ("swap", "refine"):
        rows = controlled([Edit(kind, target, source)], SHORT)
        assert distance(rows[0], plain(source, SHORT)[0]) <= TOLERANCE
        assert distance(rows[1], rows[0]) > 1e-2


@pytest.mark.parametrize("source", [SOURCE, LONG, "a (red:1.3) cat, and a cat"])
@pytest.mark.parametrize("kind", ["swap", "refine"])
def test_an_edit_to_the_same_prompt_changes_nothing(source: str, kind: str) -> None:
    rows = controlled([identity(source, kind)], SHORT)
    assert distance(rows[1], rows[0]) <= TOLERANCE


def test_scale_one_changes_nothing() -> None:
    rows = controlled([Edit("reweight", scales=(("cat", 1.0),))], SHORT)
    assert distance(rows[1], rows[0]) <= TOLERANCE


@pytest.mark.parametrize(
    "edit",
    [
        Edit("swap", SWAP.target, cross=0, self_=0),
        Edit("refine", REFINE.target, cross=0, self_=0, word_windows="fluffy: 0.5-0.5"),
        Edit("swap", SWAP.target, cross=0, self_=0, scales=(("dog", 5.0),)),
        Edit("swap", LONG, cross=0, self_=0),
    ],
    ids=["swap", "refine", "scaled", "long"],
)
def test_empty_windows_leave_both_pictures_alone(edit: Edit) -> None:
    rows = controlled([edit], SHORT)
    for row, prompt in zip(rows, (SOURCE, edit.target), strict=True):
        assert distance(row, plain(prompt, SHORT)[0]) <= TOLERANCE


def test_several_edits_equal_their_single_runs() -> None:
    edits = [SWAP, REFINE, REWEIGHT]
    together = controlled(edits, SHORT.but(batch=2)).unflatten(0, (2, 4))
    for number, edit in enumerate(edits, start=1):
        alone = controlled([edit], SHORT.but(batch=2)).unflatten(0, (2, 2))
        for seed in range(2):
            assert distance(together[seed, number], alone[seed, 1]) <= TOLERANCE


def test_edits_with_different_prompt_lengths_share_a_batch() -> None:
    together = controlled([SWAP, Edit("refine", LONG)], SHORT)
    alone = controlled([SWAP], SHORT)
    assert distance(together[0], alone[0]) <= TOLERANCE
    assert distance(together[1], alone[1]) <= TOLERANCE


def test_eight_edits() -> None:
    edits = [Edit("reweight", scales=(("red", scale),)) for scale in range(-3, 5)]
    rows = controlled(edits, Settings(steps=3))
    assert len(rows) == 9
    assert distance(rows[5], rows[0]) <= TOLERANCE, "the fifth scale is 1"
    assert distance(rows[1], rows[8]) > 1e-2


def test_running_twice_gives_the_same() -> None:
    torch.testing.assert_close(controlled([SWAP], SHORT), controlled([SWAP], SHORT), rtol=0, atol=0)


def test_a_cached_controller_works_for_every_run() -> None:
    host, s = Host(), scene(SHORT)
    control = s.control(SWAP)
    first, second = (
        host.run(s.graph, s.sample(control, control[1], control[2], seed=seed))["samples"]
        for seed in (1, 2)
    )
    assert distance(first[0], second[0]) > 0.1
    for seed, rows in ((1, first), (2, second)):
        torch.testing.assert_close(rows, controlled([SWAP], SHORT.but(seed=seed)))


def test_without_the_controller_the_graph_is_plain() -> None:
    expected = plain(SOURCE, SHORT)[0]
    s = scene(SHORT)
    control = s.control(SWAP)
    _, untouched = run(
        s.graph,
        s.sample(control, control[1], control[2]),
        s.sample(s.model, s.text(SOURCE), s.latent),
    )
    torch.testing.assert_close(untouched["samples"][0], expected, rtol=0, atol=0)


def test_latents_keep_what_they_hold() -> None:
    """Image to image: the controller repeats the given samples and mask for every row."""
    s = scene(SHORT.but(denoise=0.6))
    start = {"samples": torch.randn(2, 4, 16, 16), "noise_mask": torch.zeros(1, 128, 128)}
    start["noise_mask"][:, :, 64:] = 1
    latent = s.graph.value(start)
    control = s.control(SWAP, latent=latent)
    edited, expected = run(
        s.graph,
        s.sample(control, control[1], control[2]),
        s.sample(s.model, s.text(SOURCE), latent),
    )
    for row, picture in zip(edited["samples"][::2], expected["samples"], strict=True):
        assert distance(row, picture) <= TOLERANCE
    left = edited["samples"][1, :, :, :8]
    torch.testing.assert_close(left, start["samples"][0, :, :, :8], rtol=1e-3, atol=1e-3)


def test_negative_rows_are_not_edited() -> None:
    rows = controlled([SWAP], SHORT.but(negative=SOURCE))
    other = controlled([SWAP], SHORT.but(negative=NEGATIVE))
    assert distance(rows[0], plain(SOURCE, SHORT.but(negative=SOURCE))[0]) <= TOLERANCE
    assert distance(rows[1], other[1]) > 1e-3
