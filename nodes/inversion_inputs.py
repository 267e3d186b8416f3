"""Inputs and outputs that the inversion nodes share."""

from __future__ import annotations

from comfy_api.latest import io

from ..p2p_core.inversion import Inversion
from .host.inversion.invert import scheduler_names
from .sockets import InversionSocket


def schedule_inputs() -> list[io.Input]:
    """steps, scheduler, denoise, sigmas: the run that the inversion is for."""
    return [
        io.Int.Input(
            "steps", default=20, min=1, max=10000, tooltip="Steps of the sampler (papers: 50)."
        ),
        io.Combo.Input(
            "scheduler",
            options=scheduler_names(),
            default=scheduler_names()[0],
            tooltip="Scheduler of the sampler.",
        ),
        io.Float.Input(
            "denoise",
            default=1.0,
            min=0.01,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="Denoise of the sampler. Below 1 the inversion stops short of pure noise, "
            "which keeps more of the picture.",
        ),
        io.Sigmas.Input(
            "sigmas",
            optional=True,
            tooltip="The sampler's own noise levels, instead of steps, scheduler and denoise.",
        ),
    ]


def text_input(more: str = "") -> io.Input:
    return io.String.Input(
        "text",
        default="",
        multiline=True,
        optional=True,
        tooltip="The source prompt: what the photograph shows. Edit nodes to which this inversion "
        f"is wired take it as theirs, so that it is typed once. {more}".strip(),
    )


def inversion_outputs(
    use: str = "To a P2P Attention Controller, or P2P Null-Text Optimize.",
) -> list[io.Output]:
    """inversion, latent, sigmas. use: what the inversion is for."""
    return [
        InversionSocket.Output(
            display_name="inversion",
            tooltip=use,
        ),
        io.Latent.Output(
            display_name="latent",
            tooltip="The noisiest latent, where sampling starts. To the AttentionController; a "
            "sampler without one needs its own noise switched off.",
        ),
        io.Sigmas.Output(display_name="sigmas", tooltip="To SamplerCustom: the same noise levels."),
    ]


def results(inversion: Inversion) -> tuple[Inversion, dict, object]:
    """The values of these outputs."""
    return inversion, {"samples": inversion.start}, inversion.sigmas
