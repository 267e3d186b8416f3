"""SaveInversion and LoadInversion: an inversion is made once and used on other days."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import PurePosixPath

from comfy_api.latest import io

from ..p2p_core.inversion import Inversion
from .host.inversion.files import load_inversion, save_inversion
from .host.inversion.places import file_state, listed_files, missing
from .host.wires import lacking, wired
from .inversion_inputs import inversion_outputs, results
from .sockets import InversionSocket

NEEDS_INVERSION = "Wire a P2P DDIM Invert or P2P Noise Invert, or bypass this node too."
NONE_YET = "none yet"
NONE_TO_LOAD = (
    "There is no inversion to load. Make one with P2P Save Inversion, or copy one into ComfyUI's "
    "input folder, and reload the node definitions (R)."
)


class SaveInversion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PSaveInversion",
            display_name="P2P Save Inversion",
            category="p2p/inversion",
            description="Writes an inversion into ComfyUI's output folder, so that the photograph "
            "can be edited again without inverting it. P2P Load Inversion reads it, bit for bit.",
            search_aliases=["save inversion", "store inversion", "cache inversion"],
            inputs=[
                InversionSocket.Input(
                    "inversion",
                    optional=True,
                    tooltip="From P2P DDIM Invert or P2P Noise Invert.",
                ),
                io.String.Input(
                    "name",
                    default="inversions/picture",
                    tooltip="File name, also with folders inside the output folder. A number is "
                    "added, so nothing is overwritten. %year%, %month%, %day%, %hour%, %minute% "
                    "and %second% are filled in.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, input_types: Mapping[str, str] | None = None) -> bool:
        if "inversion" not in wired(cls, input_types):
            raise lacking(cls, "inversion", NEEDS_INVERSION)
        return True

    @classmethod
    def execute(cls, name: str, inversion: Inversion | None = None) -> io.NodeOutput:
        if inversion is None:
            raise lacking(cls, "inversion", NEEDS_INVERSION)
        saved = save_inversion(inversion, name)
        path = PurePosixPath(saved["subfolder"], saved["filename"])
        logging.info("Inversion saved in the output folder as %s", path)
        return io.NodeOutput(ui={"latents": [saved]})


class LoadInversion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PLoadInversion",
            display_name="P2P Load Inversion",
            category="p2p/inversion",
            description="Reads an inversion that P2P Save Inversion wrote, from ComfyUI's input or "
            "output folder. It gives the same pictures as the one that was saved.",
            search_aliases=["load inversion", "open inversion", "cached inversion"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=listed_files() or [NONE_YET],
                    tooltip="Inversions in the input folder and, marked [output], in the output "
                    "folder.",
                )
            ],
            outputs=inversion_outputs(),
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool:
        """file: None where it is wired."""
        if file is not None and (why := NONE_TO_LOAD if file == NONE_YET else missing(file)):
            raise ValueError(why)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> str:
        return "" if file is None else file_state(file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(*results(load_inversion(file)))


NODES = [SaveInversion, LoadInversion]
