"""From a caption of the picture book back to its data."""

from __future__ import annotations

from book.things import COLOURS, KINDS
from book.world import CLOTHES, PENCIL, SETTINGS, Noun, Prompt


def read_prompt(text: str) -> Prompt:
    """The one-thing prompt whose text this is; ValueError if there is none.

    Only the usual words and no sizes or sides, as instructions have them.
    """
    rest = text
    pencil, rest = rest.startswith(PENCIL), rest.removeprefix(f"{PENCIL} ")
    autumn, rest = rest.endswith(" in autumn"), rest.removesuffix(" in autumn")
    setting = next((s for s, (usual, _) in SETTINGS.items() if rest.endswith(f" {usual}")), None)
    if setting:
        rest = rest.removesuffix(f" {SETTINGS[setting][0]}")
    clothes = next((c for c, (usual, _) in CLOTHES.items() if rest.endswith(f" {usual}")), None)
    if clothes:
        rest = rest.removesuffix(f" {CLOTHES[clothes][0]}")
    [*articles, thing] = rest.split() or [""]
    colour = articles[-1] if articles and articles[-1] in COLOURS else None
    if thing in KINDS:
        prompt = Prompt((Noun(thing, colour, clothes=clothes),), setting, autumn, pencil)
        if prompt.text == text:
            return prompt
    raise ValueError(f"{text!r} is not a one-thing caption of the picture book.")
