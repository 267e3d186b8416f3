"""Instructions and edited captions by a language model that ComfyUI runs (its Generate Text node).

InstructPix2Pix (arXiv:2211.09800, section 3.1.1) has a language model write both for a caption.
What does not parse is counted and kept apart, with the reason; a run that ended goes on.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from p2p_pairs.captions import LONGEST, Caption, read_lines

PROMPT = Path(__file__).with_name("caption_prompt.txt")
MOST_TOKENS = 256  # of an answer, and the temperature: as the paper's appendix has them
TEMPERATURE = 0.7
LONGEST_INSTRUCTION = 200  # letters
FIELDS = ("instruction", "edited")
Answer = Callable[[str, int], str]  # a caption and a seed to the model's text


class Unusable(ValueError):
    """An answer that is no instruction and edited caption; the text says why."""


def parse_answer(source: str, answer: str) -> Caption:
    """The triple of exactly the two lines that the prompt asks for; Unusable for anything else."""
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    if len(lines) != 2:
        raise Unusable("not two lines")
    found = {}
    for name, line in zip(FIELDS, lines, strict=True):
        label, colon, text = line.partition(":")
        if not colon or label.lower() != name or not text.strip():
            raise Unusable(f"no {name} in its line")
        found[name] = " ".join(text.split())
    if len(found["instruction"]) > LONGEST_INSTRUCTION or len(found["edited"]) > LONGEST:
        raise Unusable("too long")
    before, after = (_words(text) for text in (source, found["edited"]))
    if before == after:
        raise Unusable("nothing changed")
    if not set(before) & set(after):
        raise Unusable("the captions have no word in common")
    return Caption(source, **found)


def _words(text: str) -> list[str]:
    letters = (letter if letter.isalnum() else " " for letter in text.lower())
    return "".join(letters).split()


class HostWriter:
    """Asks the host's Generate Text for a caption's edit. clip: a language model, by CLIPLoader."""

    def __init__(self, pack: Any, clip: Any, temperature: float = TEMPERATURE) -> None:
        from p2p_pairs.host_sets import load_extra

        load_extra(pack, "textgen")
        self.node, self.clip = pack.host.NODE_CLASS_MAPPINGS["TextGenerate"], clip
        self.temperature, self.prompt = temperature, PROMPT.read_text(encoding="utf-8")

    def __call__(self, caption: str, seed: int) -> str:
        """The model's text, from a seed."""
        sampling = {
            "sampling_mode": "on", "temperature": self.temperature, "top_k": 64, "top_p": 0.95,
            "min_p": 0.05, "repetition_penalty": 1.0, "seed": seed,
        }  # fmt: skip
        text = self.prompt.replace("{caption}", caption)
        return self.node.execute(self.clip, text, MOST_TOKENS, sampling).args[0]


def write_captions(
    sources: Iterable[str], answer: Answer, out: Path, seed: int = 0
) -> Counter[str]:
    """Append a line for every caption to `out`, or with its reason to `out`.skipped.jsonl.

    Captions that stand in either file are not asked for again. Returns how many were written, and
    how many skipped for what, in both runs together.
    """
    skipped = out.with_name(f"{out.name}.skipped.jsonl")
    for path in (out, skipped):
        _cut_torn_line(path)
    counts: Counter[str] = Counter()
    done = set()
    for path in (out, skipped):
        for line in _stored(path):
            done.add(line["source"])
            counts[line.get("reason", "written")] += 1
    with out.open("a", encoding="utf-8") as good, skipped.open("a", encoding="utf-8") as bad:
        for number, source in enumerate(sources):
            if source in done:
                continue
            done.add(source)
            text = answer(source, seed + number)
            try:
                _append(good, parse_answer(source, text).as_dict())
                counts["written"] += 1
            except Unusable as error:
                _append(bad, {"source": source, "reason": str(error), "answer": text})
                counts[str(error)] += 1
    if not skipped.stat().st_size:
        skipped.unlink()
    return counts


def read_sources(path: Path) -> Iterator[str]:
    """One caption a line of a text file, without empty ones; ValueError if there are none."""
    found = False
    for _, line in read_lines(path):
        if text := " ".join(line.split()):
            found = True
            yield text
    if not found:
        raise ValueError(f"{path} holds no captions, one a line.")


def _append(file: Any, fields: dict[str, str]) -> None:
    file.write(json.dumps(fields, ensure_ascii=False) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _stored(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _cut_torn_line(path: Path) -> None:
    """A killed run may have left half a line."""
    content = path.read_bytes() if path.exists() else b""
    path.write_bytes(content[: content.rfind(b"\n") + 1])
