"""The folder of a data set that is being made: what is done, what is missing, what failed.

Captions come in blocks; a block is one shard. Every finished caption is a part until its block is
whole; then the shard is written, after it the block's note, and the parts go. Each file appears
whole or not at all, so that a run can end anywhere and the next one goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from p2p_pairs.captions import Caption
from p2p_pairs.files import remove_unfinished, write_bytes
from p2p_pairs.rows import Outcome, read_outcome, read_part
from p2p_pairs.settings import Settings, read_settings
from p2p_pairs.shards import write_shard


class Folder:
    """A data set's folder under a lock that the caller holds."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        captions: Sequence[Caption],
        formats: Sequence[str],
    ) -> None:
        """Take stock; ValueError if the folder belongs to another data set."""
        self.path, self.formats = path, tuple(formats)
        self.captions = {caption.key: caption for caption in captions}
        keys, size = list(self.captions), settings.block
        self.blocks = [keys[start : start + size] for start in range(0, len(keys), size)]
        self.block_of = {key: number for number, block in enumerate(self.blocks) for key in block}
        remove_unfinished(path)
        self._claim(settings, keys)
        self.outcomes: dict[str, Outcome] = {}
        self.kept = self.failed = 0  # pairs; captions
        for number in range(len(self.blocks)):
            self._take_stock(number)

    def missing(self) -> list[Caption]:
        """What is still to be made, in order."""
        return [caption for key, caption in self.captions.items() if key not in self.outcomes]

    def failures(self) -> list[Outcome]:
        """Captions that could not be made."""
        return [one for one in self.all_outcomes() if one.error is not None]

    def all_outcomes(self) -> list[Outcome]:
        """What became of every caption that is done, in order."""
        return [self.outcomes[key] for key in self.captions if key in self.outcomes]

    def add(self, key: str, part: bytes) -> None:
        """Keep a caption's part, and finish its block if that was the last; twice does nothing."""
        if key in self.outcomes:
            return
        path = self._part(key)
        write_bytes(path, part)
        self._count(read_outcome(path))
        self._finish_if_whole(self.block_of[key])

    def _count(self, outcome: Outcome) -> None:
        self.outcomes[outcome.key] = outcome
        self.kept += outcome.kept
        self.failed += outcome.error is not None

    def _claim(self, settings: Settings, keys: Sequence[str]) -> None:
        """Settings and captions stay what they were."""
        listed = hashlib.sha256("\n".join(keys).encode()).hexdigest()
        about = {"captions": len(keys), "digest": listed, "formats": list(self.formats)}
        now = {"settings": json.loads(settings.to_json()), "captions": about}
        for name, fields in now.items():
            file = self.path / f"{name}.json"
            if not file.exists():
                write_bytes(file, (json.dumps(fields, indent=2) + "\n").encode())
                continue
            if name == "settings":
                there = json.loads(read_settings(file).to_json())
            else:
                there = json.loads(file.read_text(encoding="utf-8"))
            if told := _difference(there, fields):
                raise ValueError(
                    f"{self.path} holds a data set that was begun with other {name} ({told}). "
                    "Choose another folder, or go on with those."
                )

    def _take_stock(self, number: int) -> None:
        """Read what a block has; captions that failed are to be tried again."""
        note = self._note(number)
        if note.exists():
            outcomes = [Outcome(**one) for one in json.loads(note.read_text(encoding="utf-8"))]
            if all(one.error is None for one in outcomes):
                self._remove_parts(number)  # of a run that ended just before
                for one in outcomes:
                    self._count(one)
                return
            note.unlink()
        for key in self.blocks[number]:
            path = self._part(key)
            outcome = _outcome_of(path)
            if outcome is None or outcome.error is not None:
                path.unlink(missing_ok=True)
            else:
                self._count(outcome)
        self._finish_if_whole(number)

    def _finish_if_whole(self, number: int) -> None:
        """Once every caption of a block is done: its shard, its note, and its parts go.

        A block with failures keeps its parts, so that they can be joined by what fails no more.
        """
        keys = self.blocks[number]
        if any(key not in self.outcomes for key in keys):
            return
        outcomes = [self.outcomes[key] for key in keys]
        paths = [self._part(one.key) for one in outcomes if one.error is None]
        if paths:
            table = pa.concat_tables([_plain(read_part(path)[0]) for path in paths])
            write_shard(self.path, self.formats, number, len(self.blocks), table)
        text = json.dumps([vars(one) for one in outcomes], ensure_ascii=False, default=dict)
        write_bytes(self._note(number), text.encode())
        if all(one.error is None for one in outcomes):
            self._remove_parts(number)

    def _remove_parts(self, number: int) -> None:
        for key in self.blocks[number]:
            self._part(key).unlink(missing_ok=True)

    def _part(self, key: str) -> Path:
        return self.path / "parts" / f"{key}.parquet"

    def _note(self, number: int) -> Path:
        return self.path / "blocks" / f"{number:05d}.json"


def _outcome_of(path: Path) -> Outcome | None:
    """Of a part that is there and readable."""
    try:
        return read_outcome(path)
    except (OSError, pa.ArrowException, KeyError, TypeError):
        return None


def _plain(table: pa.Table) -> pa.Table:
    """A part's table without its outcome, so that all parts have one schema."""
    metadata = table.schema.metadata or {}
    return table.replace_schema_metadata({b"huggingface": metadata[b"huggingface"]})


def _difference(old: dict, new: dict) -> str:
    """Which fields of two JSON objects differ, and how."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name}: {old.get(name)} there, {new.get(name)} here" for name in names)
