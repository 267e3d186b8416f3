"""Text encoders that see pictures with every prompt, as ComfyUI's TextEncodeQwenImageEdit does."""

from __future__ import annotations

from typing import Any

from comfy.sd import CLIP

import nodes


class _Recorder:
    """Stands for a CLIP in one of the host's nodes, and keeps the tokens that it is to encode."""

    def __init__(self, clip: CLIP, options: dict[str, Any]) -> None:
        self.clip, self.options, self.tokens = clip, options, None

    def tokenize(self, text: str, **given: Any) -> Any:
        self.tokens = CLIP.tokenize(self.clip, text, **given, **self.options)
        return self.tokens

    def encode_from_tokens_scheduled(self, tokens: Any) -> list:
        return []


def pictured(clip: CLIP, node: str, **pictures: Any) -> CLIP:
    """The CLIP as such a node reads every prompt with it."""

    def tokenize(text: str, return_word_ids: bool = False, **options: Any) -> Any:
        recorder = _Recorder(clip, {"return_word_ids": return_word_ids, **options})
        nodes.NODE_CLASS_MAPPINGS[node].execute(clip=recorder, prompt=text, **pictures)
        return recorder.tokens

    made = clip.clone()
    made.tokenize = tokenize
    return made
