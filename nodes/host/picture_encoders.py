"""The host's nodes that read a prompt with pictures, found by their inputs, and how one reads."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

USUAL = "TextEncodeQwenImageEditPlus"
GROWING = "COMFY_AUTOGROW_V3"
KINDS = {"CLIP", "STRING", "IMAGE", "VAE"}
Path = tuple[str, ...]  # an input's name; (group, name) of one in a growing group
Tokens = dict[str, list]  # a CLIP's, by its text encoders
Pictures = Sequence[Any]  # IMAGE (B, H, W, 3), or None for an input that has none


@dataclass(frozen=True)
class PictureEncoder:
    """A node that encodes one prompt with pictures, and the names of its inputs.

    needed: of its pictures, those that it does not run without. vae: None where it takes none.
    """

    name: str
    clip: str
    prompt: str
    images: tuple[Path, ...]
    needed: frozenset[Path]
    vae: str | None

    def read(
        self, tokenize: Callable[..., Tokens], text: str, pictures: Pictures, vae: Any = None
    ) -> tuple[Tokens, dict[str, Any]]:
        """The tokens that the node makes of a text, and what it adds to their encoding.

        tokenize: a CLIP's. vae: None for no reference latents, which are such an addition.
        """
        recorder = _Recorder(tokenize)
        inputs: dict[str, Any] = {self.clip: recorder, self.prompt: text}
        if vae is not None and self.vae is not None:
            inputs[self.vae] = vae
        for path, picture in zip(self.images, pictures, strict=False):
            if picture is not None:
                _put(inputs, path, picture)
        node = _registered()[self.name]
        try:
            made = getattr(node(), node.FUNCTION)(**inputs)
            [conditioning] = getattr(made, "args", made)
            return recorder.recorded(conditioning)
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"{self.name} does more than tokenise and encode its prompt, so words cannot be "
                f"edited in it ({error}). Choose another text_encoder."
            ) from error


class _Recorder:
    """Stands for a CLIP in the node: it tokenises, and keeps what it should encode."""

    def __init__(self, tokenize: Callable[..., Tokens]) -> None:
        self.tokenize = tokenize
        self.tokens: Tokens = {}

    def encode_from_tokens_scheduled(self, tokens: Tokens) -> list[list]:
        self.tokens = tokens
        return [[tokens, {}]]

    def recorded(self, conditioning: list[list]) -> tuple[Tokens, dict[str, Any]]:
        """TypeError for a conditioning that is more than these tokens' encoding."""
        if len(conditioning) != 1 or conditioning[0][0] is not self.tokens:
            raise TypeError("it changes the encoding")
        [(tokens, extras)] = conditioning
        return tokens, extras


def encoder_names() -> list[str]:
    """The nodes that read one prompt with pictures, the usual one first."""
    found = (name for name, node in list(_registered().items()) if _encoder(name, node))
    return sorted(found, key=lambda name: (name != USUAL, name))


def encoder_named(name: str) -> PictureEncoder:
    node = _registered().get(name)
    found = _encoder(name, node) if node is not None else None
    if found is None:
        raise ValueError(
            f"{name} is no node that reads one prompt with pictures. There are: "
            f"{', '.join(encoder_names()) or 'none'}."
        )
    return found


def _registered() -> dict[str, Any]:
    """All nodes; the host's module has the name of a package of ours."""
    return importlib.import_module("nodes").NODE_CLASS_MAPPINGS


def _encoder(name: str, node: Any) -> PictureEncoder | None:
    """A node that makes one conditioning of a CLIP, a text, pictures and perhaps a VAE, if it is.

    Whatever else it takes must be optional. Two conditionings are two prompts.
    """
    try:
        if tuple(node.RETURN_TYPES) != ("CONDITIONING",):
            return None
        declared = node.INPUT_TYPES()
    except Exception:  # a node of another pack that cannot say what it is
        return None
    slots = list(_slots(declared))
    by_kind = {kind: [path for path, own, _ in slots if own == kind] for kind in KINDS}
    needed = frozenset(path for path, _, required in slots if required)
    known = {path for paths in by_kind.values() for path in paths}
    clips, texts, vaes = by_kind["CLIP"], by_kind["STRING"], by_kind["VAE"]
    fits = len(clips) == len(texts) == 1 and len(vaes) <= 1 and needed <= known
    if not fits or not by_kind["IMAGE"] or needed & set(vaes):
        return None
    images = tuple(by_kind["IMAGE"])
    vae = vaes[0][0] if vaes else None
    return PictureEncoder(name, clips[0][0], texts[0][0], images, needed & set(images), vae)


def _slots(declared: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Path, Any, bool]]:
    """(path, type, whether it is required) of every input, growing groups input by input."""
    for part in ("required", "optional"):
        for name, (kind, *options) in declared.get(part, {}).items():
            if kind != GROWING:
                yield (name,), kind if isinstance(kind, str) else "COMBO", part == "required"
                continue
            template = options[0]["template"]
            [(own, *_)] = [spec for inner in template["input"].values() for spec in inner.values()]
            prefix, most = template.get("prefix"), template.get("max", 0)
            names = template.get("names") or [f"{prefix}{number}" for number in range(most)]
            for number, inner in enumerate(names):
                yield (name, inner), own, number < template["min"]


def _put(inputs: dict[str, Any], path: Path, value: Any) -> None:
    *groups, name = path
    for group in groups:
        inputs = inputs.setdefault(group, {})
    inputs[name] = value
