"""The sockets of P2P Sweep, and how its lists become a grid."""

from __future__ import annotations

from comfy_api.latest import io

from ..p2p_core.scores import SCORES
from ..p2p_core.sweep import AXES, LAST_SEED, Grid, parse_axis
from .attention_controller import inversion_input
from .host.control.modes import MODES
from .host.sweep.sampling import sampler_names
from .score_inputs import scorer_inputs
from .sockets import EditSocket

LISTS = "A list such as '0, 0.4, 0.8' or a range 'first:last:step' such as '0:1:0.2'."


def sweep_inputs() -> list[io.Input]:
    return [
        io.Model.Input(
            "model", tooltip="The model that is edited, as for P2P Attention Controller."
        ),
        io.Latent.Input("latent", tooltip="The size, one picture; of an inversion its latent."),
        io.Conditioning.Input("negative", tooltip="As for a KSampler."),
        io.Vae.Input("vae", tooltip="Decodes the pictures."),
        EditSocket.Input("edit", optional=True, tooltip="The edit whose settings are swept."),
        inversion_input(),
        *_sampler_inputs(),
        *_axis_inputs(),
        *_keeping_inputs(),
        *scorer_inputs(),
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default="auto",
            optional=True,
            advanced=True,
            tooltip="For transformers, as in P2P Attention Controller. cross_replace_steps and "
            "windows act in hybrid alone.",
        ),
        io.String.Input(
            "blocks",
            default="",
            optional=True,
            advanced=True,
            tooltip="For transformers, as in P2P Attention Controller: layers by number.",
        ),
    ]


def _sampler_inputs() -> list[io.Input]:
    samplers, schedulers = sampler_names()
    return [
        io.Int.Input(
            "seed", default=0, min=0, max=LAST_SEED, control_after_generate=True,
            tooltip="Of all pictures; not used with seeds.",
        ),
        io.Int.Input("steps", default=20, min=1, max=10000, tooltip="As for a KSampler."),
        io.Float.Input(
            "cfg", default=7.5, min=0.0, max=100.0, step=0.1, round=0.01,
            tooltip="As for a KSampler.",
        ),
        io.Combo.Input(
            "sampler_name", options=samplers, default="euler", tooltip="As for a KSampler."
        ),
        io.Combo.Input(
            "scheduler", options=schedulers, default="normal", tooltip="As for a KSampler."
        ),
        io.Float.Input(
            "denoise", default=1.0, min=0.01, max=1.0, step=0.01, optional=True,
            tooltip="As for a KSampler.",
        ),
    ]  # fmt: skip


def _axis_inputs() -> list[io.Input]:
    def text(name: str, tooltip: str, default: str = "", advanced: bool = False) -> io.Input:
        return io.String.Input(
            name, default=default, optional=True, advanced=advanced, tooltip=tooltip
        )

    return [
        text(
            "cross_replace_steps",
            f"{LISTS} Shares of the steps, 0 to 1; empty: the edit's own. Words with a window of "
            "their own keep it.",
            "0:1:0.2",
        ),
        text("self_replace_steps", f"{LISTS} Shares of the steps, 0 to 1; empty: the edit's own."),
        text("scales", "Factors on the attention of scale_words, such as '-2:2:1' (-10 to 10)."),
        text("scale_words", "Words of the target prompt that scales is for, separated by commas."),
        text(
            "windows",
            "Windows of window_words, such as '0-0.4, 0.2-0.8', as shares of the steps.",
            advanced=True,
        ),
        text(
            "window_words",
            "Words of the target prompt that windows is for, separated by commas.",
            advanced=True,
        ),
        text("thresholds", f"{LISTS} Of the edit's local blend, 0 to 1.", advanced=True),
        text("seeds", "Seeds such as '1, 7' or '1:4'. Empty: the seed above."),
    ]


def _keeping_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "batch",
            default=4,
            min=1,
            max=64,
            optional=True,
            tooltip="Edits that are sampled together with one source. More is faster and takes "
            "more memory.",
        ),
        io.Int.Input(
            "at_most",
            default=100,
            min=1,
            max=10000,
            optional=True,
            advanced=True,
            tooltip="A sweep of more pictures is refused before it begins.",
        ),
        io.String.Input(
            "folder",
            default="sweep",
            optional=True,
            tooltip="Folder inside the output folder for pictures, scores.csv and sheet.png. A "
            "number is added when it holds another sweep; the same one goes on.",
        ),
        io.Combo.Input(
            "best_by",
            options=["auto", *SCORES],
            default="auto",
            optional=True,
            tooltip="The score that decides. auto: directional_similarity with clip_vision and "
            "score_clip; without them most change (lowest ssim) among those whose "
            "structure_distance lies in the lower half of its range.",
        ),
        io.Float.Input(
            "least_image_similarity",
            default=0.75,
            min=-1.0,
            max=1.0,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="With clip_vision: what the best must have kept of its source (0.75 in "
            "InstructPix2Pix, arXiv:2211.09800).",
        ),
    ]


def sweep_outputs() -> list[io.Output]:
    return [
        io.Image.Output(
            display_name="sheet", tooltip="All pictures with axes and scores; the best is framed."
        ),
        io.Image.Output(display_name="edits", tooltip="The pictures, in the order of the table."),
        EditSocket.Output(display_name="edit", tooltip="The edit with the best setting."),
        io.Int.Output(display_name="seed", tooltip="Of the best setting."),
        io.Float.Output(
            display_name="cross_replace_steps", tooltip="Of the best setting, where they end."
        ),
        io.Float.Output(
            display_name="self_replace_steps", tooltip="Of the best setting, where they end."
        ),
        io.Float.Output(display_name="scale", tooltip="Of the best setting; 1 without scales."),
        io.Float.Output(
            display_name="threshold", tooltip="Of the best setting; NaN without a local blend."
        ),
        io.String.Output(display_name="best", tooltip="The best setting in words, and why."),
        io.String.Output(
            display_name="csv", tooltip="All settings with all scores, as comma-separated values."
        ),
    ]


def grid_of_texts(**texts: str | None) -> Grid:
    """The grid of the lists that are filled in; None: the text comes from another node."""
    parsed = {name: parse_axis(name, texts.get(name) or "") for name in AXES}
    return Grid({name: values for name, values in parsed.items() if values})


def check_count(grid: Grid, at_most: int) -> None:
    """ValueError for more pictures than were agreed to."""
    count = 1
    for values in grid.axes.values():
        count *= len(values)
    if count > at_most:
        sizes = ", ".join(f"{len(values)} {name}" for name, values in grid.axes.items())
        raise ValueError(
            f"This sweep would make {count} pictures ({sizes}), but at_most is {at_most}. Shorten "
            "the lists, or raise at_most."
        )
