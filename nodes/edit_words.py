"""What the edit nodes share: their inputs, and how texts become an edit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..p2p_core.alignment import Aligner, align_replace
from ..p2p_core.description import describe, warning
from ..p2p_core.edits import prompt_edit, with_word_window
from ..p2p_core.inversion import Inversion
from ..p2p_core.prompt import Prompt
from ..p2p_core.record import Record
from ..p2p_core.schedule import checked_window, parse_word_windows
from ..p2p_core.word_table import word_table
from .first_prompts import SOURCE
from .host.edits import Edit
from .host.families.texts import find_columns, read_prompt
from .host.messages import text_on
from .host.wires import wired
from .sockets import EditSocket, InversionSocket

CROSS_REPLACE_STEPS = 0.8
SELF_REPLACE_STEPS = 0.4
EMPTY = "{name} is empty. Describe the picture in words; those can be edited."


class TwoPrompts(io.ComfyNode):
    """A node that edits a source prompt into a target prompt; its kinds differ in ``align``."""

    align: Aligner

    @classmethod
    def validate_inputs(
        cls,
        source_prompt: str | None = None,
        target_prompt: str | None = None,
        word_windows: str | None = None,
        input_types: Mapping[str, str] | None = None,
    ) -> bool:
        elsewhere = {"source_edit", "inversion"} & wired(cls, input_types)
        prompts = {"source_prompt": None if elsewhere else source_prompt}
        return check_texts({**prompts, "target_prompt": target_prompt}, word_windows)

    @classmethod
    def execute(
        cls,
        clip: Any,
        source_prompt: str,
        target_prompt: str,
        cross_replace_steps: float = CROSS_REPLACE_STEPS,
        self_replace_steps: float = SELF_REPLACE_STEPS,
        word_windows: str = "",
        source_edit: Edit | None = None,
        inversion: Inversion | None = None,
    ) -> io.NodeOutput:
        source = source_text(source_prompt, source_edit, inversion)
        steps = cross_replace_steps, self_replace_steps
        edit = make_edit(clip, source, target_prompt, cls.align, *steps, word_windows)
        return shown(cls, edit)


def edit_inputs(target: str) -> list[io.Input]:
    """Inputs of a node that edits a source prompt into a target prompt; target: to begin with."""
    return [
        io.Clip.Input("clip", tooltip="The CLIP of the checkpoint that will be sampled."),
        io.String.Input(
            "source_prompt",
            multiline=True,
            default=SOURCE,
            tooltip="The prompt of the source picture. Weights, embeddings and long prompts work.",
        ),
        io.String.Input(
            "target_prompt",
            multiline=True,
            default=target,
            tooltip="The prompt of the edited picture; it may have more or fewer words.",
        ),
        share_input(
            "cross_replace_steps",
            CROSS_REPLACE_STEPS,
            "Share of the steps, from the first, in which the edited picture looks at the words "
            "where the source does. Higher keeps more of the layout (paper: 0.2 to 0.8).",
        ),
        share_input(
            "self_replace_steps",
            SELF_REPLACE_STEPS,
            "Share of the steps, from the first, in which the edited picture takes the source's "
            "self-attention. Higher keeps more of the shapes (paper: 0 to 0.8; 0.4 is usual).",
        ),
        io.String.Input(
            "word_windows",
            default="",
            multiline=True,
            optional=True,
            advanced=True,
            tooltip="Optional. One line per word of the target prompt, 'word: start-end' as shares "
            "of the steps, instead of cross_replace_steps for that word. With "
            "cross_replace_steps 0 only the named words keep the source's attention.",
        ),
        EditSocket.Input(
            "source_edit",
            optional=True,
            tooltip="Another edit of the same picture: its source prompt is taken instead of "
            "source_prompt, so that it is typed once. Bypassed, this node passes it on.",
        ),
        InversionSocket.Input(
            "inversion",
            optional=True,
            tooltip="A photograph's inversion: the prompt that it was made under is taken instead "
            "of source_prompt, if P2P DDIM Invert was given it as text.",
        ),
    ]


def source_text(typed: str, edit: Edit | None, inversion: Inversion | None) -> str:
    """The source prompt: of another edit, else of an inversion that knows its text, else typed."""
    if edit is not None:
        return edit.prompt_edit.source.text
    if inversion is not None and inversion.text:
        return inversion.text
    return typed


def edit_output() -> io.Output:
    """The output of every node that makes an edit."""
    return EditSocket.Output(
        display_name="edit",
        tooltip="To a P2P Attention Controller, or to a Reweight or Local Blend Mask before it.",
    )


def shown(node: type[io.ComfyNode], edit: Edit, note: str | None = None) -> io.NodeOutput:
    """The output of an edit node, with the edit told on the node before anything is sampled.

    note: what the user should know of this node's own part.
    """
    text = describe(edit.prompt_edit)
    why = None if edit.plain else note or warning(edit.prompt_edit)
    if why:
        logging.warning(why)
        text = f"{why}\n{text}"
    text_on(node)(text)
    table = {**word_table(edit.prompt_edit), "note": why}
    return io.NodeOutput(edit, ui={"p2p_alignment": [table]})  # the page draws it, as chips


def share_input(name: str, default: float, tooltip: str, advanced: bool = False) -> io.Input:
    return io.Float.Input(
        name,
        default=default,
        min=0.0,
        max=1.0,
        step=0.05,
        round=False,
        optional=True,
        advanced=advanced,
        tooltip=tooltip,
    )


def make_edit(
    clip: Any,
    source_prompt: str,
    target_prompt: str,
    align: Aligner,
    cross_replace_steps: float,
    self_replace_steps: float,
    word_windows: str,
) -> Edit:
    """The P2P_EDIT of two prompts; ValueError for an empty prompt or a bad window."""
    source = _nonempty(read_prompt(clip, source_prompt), "source_prompt")
    target = _nonempty(read_prompt(clip, target_prompt), "target_prompt")
    edit = prompt_edit(
        source,
        target,
        align,
        checked_window(0.0, cross_replace_steps, "cross_replace_steps"),
        checked_window(0.0, self_replace_steps, "self_replace_steps"),
    )
    for word, window in parse_word_windows(word_windows):
        [columns] = find_columns(clip, [target], word)
        edit = with_word_window(edit, columns, window)
    return Edit(clip, edit)


def check_texts(prompts: Mapping[str, str | None], word_windows: str | None = None) -> bool:
    """What can be known of an edit before a graph runs: True, or ValueError.

    prompts: by the names of their inputs. None: the text comes from another node. An error is
    raised, since the host tells one that is returned once for every input that a validation names,
    and the page keeps its sentence from the message that pops up.
    """
    for name, text in prompts.items():
        if text is not None and not text.strip():
            raise ValueError(EMPTY.format(name=name))
    parse_word_windows(word_windows or "")
    return True


def identity_edit(clip: Any, prompt: str) -> Edit:
    """The edit of a prompt into itself, with the usual windows."""
    _nonempty(read_prompt(clip, prompt), "prompt")
    windows = CROSS_REPLACE_STEPS, SELF_REPLACE_STEPS
    return make_edit(clip, prompt, prompt, align_replace, *windows, word_windows="")


def _nonempty(prompt: Prompt, name: str) -> Prompt:
    if not prompt.words:
        raise ValueError(EMPTY.format(name=name))
    return prompt


def split_phrases(words: str) -> list[str]:
    """The phrases of a text, separated by commas or lines."""
    return [phrase.strip() for phrase in re.split(r"[,\n]", words) if phrase.strip()]


def asked_later(
    record: Record | None, phrases: Sequence[str], others: Mapping[str, Any], lazy: Sequence[str]
) -> list[str]:
    """What a node that shows words asks for, once it knows that the prompts have them.

    others: the lazy inputs that are wired, None while they are not made yet. ValueError for a word
    that no prompt has.
    """
    if record is not None:
        for phrase in phrases:
            record.columns(phrase)
    return [name for name in lazy if others.get(name, ()) is None]


def columns_of_all(clip: Any, prompts: Sequence[Prompt], words: str) -> list[tuple[int, ...]]:
    """Columns of phrases separated by commas or lines, together, for each of the prompts.

    Raises ValueError for a phrase that none of the prompts has.
    """
    found = [find_columns(clip, prompts, phrase) for phrase in split_phrases(words)]
    by_prompt = zip(*found, strict=True) if found else [()] * len(prompts)
    return [tuple(sorted(set().union(*columns))) for columns in by_prompt]
