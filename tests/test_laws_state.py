"""The user's model stays as it was: after a run, after an error and after a cancel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from host_run import GraphError, Interrupted, run
from model_state import Disturbance, cancel, fail, snapshot
from scenes import SOURCE, Edit, Settings, controlled, plain, scene
from tiny_model import tiny_unet

pytestmark = pytest.mark.usefixtures("host")
SWAP = Edit("swap", "a photo of a blue dog on a bench")
SHORT = Settings(steps=4, width=64, height=96)


@pytest.fixture(scope="module")
def own_model() -> ModelPatcher:
    return tiny_unet(seed=5)


def run_disturbed(model: ModelPatcher, at: int, action: Callable[[], None]) -> None:
    disturbed = model.clone()
    disturbed.set_model_unet_function_wrapper(Disturbance(at, action))
    controlled([SWAP], SHORT, model=disturbed)


@pytest.mark.parametrize("how", ["run", "error", "cancel"])
def test_the_model_is_bit_identical_afterwards(own_model: ModelPatcher, how: str) -> None:
    picture = plain(SOURCE, SHORT, model=own_model)  # also loads it
    edited = controlled([SWAP], SHORT, model=own_model)
    weights, hung = snapshot(own_model)
    if how == "run":
        controlled([SWAP], SHORT, model=own_model)
    elif how == "error":
        with pytest.raises(GraphError, match="someone else fails"):
            run_disturbed(own_model, 3, fail)
    else:
        with pytest.raises(Interrupted):
            run_disturbed(own_model, 3, cancel)
    weights_after, hung_after = snapshot(own_model)
    torch.testing.assert_close(weights_after, weights, rtol=0, atol=0)
    assert hung_after == hung
    assert torch.equal(plain(SOURCE, SHORT, model=own_model), picture)
    assert torch.equal(controlled([SWAP], SHORT, model=own_model), edited)


def test_the_patched_model_works_after_a_failure(own_model: ModelPatcher) -> None:
    """The very same controlled MODEL, as the host caches it."""
    trouble = Disturbance(2, fail)
    disturbed = own_model.clone()
    disturbed.set_model_unet_function_wrapper(trouble)
    s = scene(SHORT, model=disturbed)
    control = s.control(SWAP)
    model, positive, latent = run(s.graph, control, control[1], control[2])

    def sample() -> torch.Tensor:
        again = scene(SHORT)
        parts = [again.graph.value(part) for part in (model, positive, latent)]
        return run(again.graph, again.sample(*parts))["samples"]

    with pytest.raises(GraphError, match="someone else fails"):
        sample()
    assert torch.equal(sample(), controlled([SWAP], SHORT, model=own_model))


def test_the_latent_and_the_texts_stay_as_they_were(own_model: ModelPatcher) -> None:
    start = {"samples": torch.randn(2, 4, 16, 16), "batch_index": [4, 9]}
    kept = {"samples": start["samples"].clone(), "batch_index": [4, 9]}
    s = scene(SHORT, model=own_model)
    text = s.text(SOURCE)
    control = s.control(SWAP, latent=s.graph.value(start))
    samples, latent, _ = run(s.graph, s.sample(control, control[1], control[2]), control[2], text)
    assert samples["samples"].shape[0] == 4
    assert latent["batch_index"] == [4, 4, 9, 9]
    assert start["batch_index"] == kept["batch_index"]
    assert torch.equal(start["samples"], kept["samples"])
