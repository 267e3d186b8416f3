"""MakePairs: pairs of pictures for training on instructions. arXiv:2211.09800, section 3.1.2."""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io

from ..p2p_core.alignment import align_replace
from ..p2p_core.pairs import CFG, SAMPLES, SHARES, Captions, Recipe, checked_range
from .edit_words import check_texts, make_edit
from .first_prompts import INSTRUCTED, SOURCE, SWAPPED
from .host.inversion.invert import scheduler_names
from .host.messages import text_on
from .host.pair_sampling import Sampling, sample_pairs, sampler_names, with_shares
from .sockets import PairsSocket

ONE_SHARE, TWO_SHARES = "one for both", "one for each"


class MakePairs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PMakePairs",
            display_name="P2P Make Pairs",
            category="p2p/data",
            description="Makes pairs of pictures before and after an edit, for training a model "
            "on instructions: the caption pair is sampled many times, each time from another seed, "
            "with random shares of the source's attention and a random cfg. P2P Filter Pairs keeps "
            "the good ones. The defaults are InstructPix2Pix's. (arXiv:2211.09800, section 3.1)",
            search_aliases=[
                "training pairs", "paired data", "instruct-pix2pix dataset", "edit dataset",
                "synthetic data",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint's model, also with LoRAs."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                io.Vae.Input("vae", tooltip="Decodes the pictures."),
                io.Latent.Input(
                    "latent",
                    tooltip="Size of the pictures, empty. A batch of n samples n pairs at once, "
                    "which is faster on a GPU; those share their random shares and cfg, but not "
                    "their noise.",
                ),
                io.String.Input(
                    "source_caption",
                    multiline=True,
                    default=SOURCE,
                    tooltip="What the picture before shows.",
                ),
                io.String.Input(
                    "edited_caption",
                    multiline=True,
                    default=SWAPPED,
                    tooltip="What the picture after shows: the same caption with other or more "
                    "words.",
                ),
                io.String.Input(
                    "instruction",
                    default=INSTRUCTED,
                    optional=True,
                    tooltip="The sentence that asks for this edit. It goes into the record; the "
                    "pictures do not depend on it, but their seeds do.",
                ),
                io.Int.Input(
                    "samples",
                    default=SAMPLES,
                    min=1,
                    max=10000,
                    optional=True,
                    tooltip="How many pairs to make (paper: 100). All are kept in memory.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=True,
                    optional=True,
                    tooltip="Of the random seeds, shares and cfgs; with the captions it determines "
                    "every pair.",
                ),
                io.Int.Input(
                    "steps",
                    default=100,
                    min=1,
                    max=10000,
                    optional=True,
                    tooltip="Of the sampler (paper: 100).",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=sampler_names(),
                    default="euler_ancestral",
                    optional=True,
                    tooltip="The paper's is euler_ancestral. Both pictures of a pair get the same "
                    "noise in every step.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=scheduler_names(),
                    default="karras",
                    optional=True,
                    tooltip="The paper's is karras.",
                ),
                *_range("cfg", CFG, 100.0, "Guidance scale", "the authors' program: 7.5 to 15"),
                *_range(
                    "share",
                    SHARES,
                    1.0,
                    "Share of the steps, from the first, in which the edited picture takes the "
                    "source's cross-attention",
                    "paper: 0.1 to 0.9",
                ),
                io.Combo.Input(
                    "shares",
                    options=[ONE_SHARE, TWO_SHARES],
                    default=ONE_SHARE,
                    optional=True,
                    advanced=True,
                    tooltip="one for both: self-attention is taken in the same steps. one for "
                    "each: its share is drawn from self_share_min … self_share_max. The authors' "
                    "program takes self-attention alone: one for each, share_min and share_max 0.",
                ),
                *_range(
                    "self_share",
                    SHARES,
                    1.0,
                    "With one for each: share of the steps in which self-attention is taken",
                    "",
                    advanced=True,
                ),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="Of the sampler; without it the empty text."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="source", tooltip="The pictures before."),
                io.Image.Output(display_name="edited", tooltip="The pictures after."),
                PairsSocket.Output(
                    display_name="pairs",
                    tooltip="Pictures, captions, seeds, shares and cfgs: to P2P Filter Pairs.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(
        cls, source_caption: str | None = None, edited_caption: str | None = None
    ) -> bool:
        return check_texts({"source_caption": source_caption, "edited_caption": edited_caption})

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        latent: dict,
        source_caption: str,
        edited_caption: str,
        instruction: str = "",
        samples: int = SAMPLES,
        seed: int = 0,
        steps: int = 100,
        sampler_name: str = "euler_ancestral",
        scheduler: str = "karras",
        shares: str = ONE_SHARE,
        negative: list | None = None,
        cfg_min: float = CFG[0],
        cfg_max: float = CFG[1],
        share_min: float = SHARES[0],
        share_max: float = SHARES[1],
        self_share_min: float = SHARES[0],
        self_share_max: float = SHARES[1],
    ) -> io.NodeOutput:
        captions = Captions(source_caption, instruction, edited_caption)
        recipe = Recipe(
            samples,
            checked_range("share_min and share_max", (share_min, share_max), 0.0, 1.0),
            (self_share_min, self_share_max) if shares == TWO_SHARES else None,
            (cfg_min, cfg_max),
            len(latent["samples"]),
        )
        edit = make_edit(clip, source_caption, edited_caption, align_replace, 1.0, 1.0, "")
        empty = clip.encode_from_tokens_scheduled(clip.tokenize(""))
        made = sample_pairs(
            model, vae, latent, negative or empty, captions, recipe.draws(seed, captions.key),
            partial(with_shares, edit), Sampling(steps, sampler_name, scheduler),
        )  # fmt: skip
        text_on(cls)(f"{samples} pairs: {source_caption} → {edited_caption}")
        return io.NodeOutput(made.source, made.edited, made)


def _range(
    name: str,
    bounds: tuple[float, float],
    most: float,
    what: str,
    paper: str,
    advanced: bool = False,
) -> list[io.Input]:
    """The two inputs name_min and name_max."""
    note = f" ({paper})" if paper else ""
    return [
        io.Float.Input(
            f"{name}_{end}",
            default=value,
            min=0.0,
            max=most,
            step=0.05,
            round=False,
            optional=True,
            advanced=advanced,
            tooltip=f"{what}: {text} of the range that every pair draws from{note}.",
        )
        for end, value, text in zip(("min", "max"), bounds, ("lower end", "upper end"), strict=True)
    ]


NODES = [MakePairs]
