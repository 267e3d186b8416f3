"""Models whose words nobody can follow are refused in a sentence, wherever they are wired in."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from families import others
from families.edits import SOURCE, SWAP, How, edited, plain
from families.tiny import Family
from host_run import Graph, GraphError, Link, run
from text_encoders import encoder

pytestmark = pytest.mark.usefixtures("host", "models")


@pytest.mark.parametrize(
    "family", [*others.UNREACHABLE, others.HUNYUAN_DIT], ids=lambda family: family.name
)
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_families_beyond_the_hook(family: Family, cfg: float) -> None:
    """They run as ever without an edit."""
    how = How(cfg=cfg)
    assert plain(family, SOURCE, how).isfinite().all()
    with pytest.raises(GraphError, match="none of its attention calls passes through") as refused:
        edited(family, [SWAP], how)
    assert refused.value.is_sentence
    assert type(family.load().model.diffusion_model).__name__ in str(refused.value)


def swapped(graph: Graph, model: Link, clip: Link, latent: Link) -> tuple[Link, Link, Link]:
    edit = graph.add(
        "P2PWordSwap", clip=clip, source_prompt=SOURCE, target_prompt=SWAP.target,
        cross_replace_steps=0.8, self_replace_steps=0.4,
    )  # fmt: skip
    control = graph.add("P2PAttentionController", model=model, latent=latent, edit=edit)
    return control, control[1], control[2]


def weighted(graph: Graph, model: Link, clip: Link, latent: Link) -> tuple[Link, Link, Link]:
    made = graph.add("P2PPromptWeights", model=model, clip=clip, text="a (red:1.5) cat")
    return made, made[1], latent


def unchanged(graph: Graph, model: Link, clip: Link, latent: Link) -> tuple[Link, Link, Link]:
    return model, graph.add("CLIPTextEncode", clip=clip, text=SOURCE), latent


@pytest.mark.parametrize("wire", [swapped, weighted])
def test_a_model_that_is_its_own_text_encoder(wire: Callable) -> None:
    """HiDream O1, through its own tokeniser."""
    model, clip = others.HIDREAM_O1.load(), encoder("HiDream O1")

    def samples(wire: Callable) -> torch.Tensor:
        graph = Graph()
        latent = graph.value({"samples": others.HIDREAM_O1.latent(128, 160)})
        made, positive, rows = wire(graph, graph.value(model), graph.value(clip), latent)
        made = graph.add(
            "KSampler", model=made, positive=positive, negative=positive, latent_image=rows,
            seed=7, steps=2, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0,
        )  # fmt: skip
        return run(graph, made)["samples"]

    assert samples(unchanged).isfinite().all()
    message = re.escape(
        "(HiDreamO1TE): the model gets token numbers and reads the prompt by itself"
    )
    with pytest.raises(GraphError, match=message) as refused:
        samples(wire)
    assert refused.value.is_sentence
