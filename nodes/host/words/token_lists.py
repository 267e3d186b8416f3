"""A prompt as each of a text encoder's tokenisers reads it: its tokens, laid along its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from numbers import Integral
from os.path import commonprefix
from typing import Any

from torch import Tensor

from ....p2p_core.spelling import Spelling
from ....p2p_core.token_pieces import Piece, spell, spelled
from ....p2p_core.weighted_text import parse_weights, unescape_brackets
from .token_bytes import pieces

Tokens = dict[str, list[list[tuple[Any, ...]]]]
Tokenize = Callable[[str], Tokens]


@dataclass(frozen=True)
class TokenList:
    """One tokeniser's list of tokens, all chunks in a row.

    key: its name on the host ("l", "t5xxl", …). spelling: the text that it reads (without weights,
    if it reads those) and the tokens that spell it; their index counts the whole list. length: of
    the list, template and padding included. chunk: of each of its chunks. before, behind: indices
    of what stands around the words (begin, end, template); padding: of the rest. pictures: tokens
    that stand for a picture.
    """

    key: str
    spelling: Spelling
    length: int
    chunk: int
    before: tuple[int, ...]
    behind: tuple[int, ...]
    padding: tuple[int, ...]
    pictures: int = 0


def token_lists(tokenize: Tokenize, tokenizer: Any, text: str) -> dict[str, TokenList]:
    """The text as the host's tokenisers read it, by their names.

    tokenize: the CLIP's, with word ids. tokenizer: the CLIP's, which holds the single ones. Raises
    ValueError for a text that its tokens do not spell.
    """
    plain, other, weighted = (tokenize(sample) for sample in ("a", "b", "(a:2)"))
    made = {}
    for key, chunks in tokenize(text).items():
        own = tokenizer_of(tokenizer, key)
        if key not in plain or own is None:
            continue
        samples = [_content(own, sample[key])[1] for sample in (plain, other, weighted)]
        indices, content = _content(own, chunks)
        _check_embeddings(own, chunks, text)
        reads_weights = spelled(samples[2]) == spelled(samples[0])
        spelling = _spelling(text, content, _template(*samples[:2]), reads_weights)
        tokens = tuple(token._replace(index=indices[token.index]) for token in spelling.tokens)
        row = [token for chunk in chunks for token, *_ in chunk]
        pictures = sum(isinstance(token, dict) for token in row)
        spelling = Spelling(spelling.text, tokens)
        around = _around(own, chunks, {token.index for token in tokens})
        made[key] = TokenList(key, spelling, len(row), len(chunks[0]), *around, pictures)
    return made


def tokenizer_of(tokenizer: Any, key: str) -> Any:
    """The host's tokeniser behind a key of a tokenised prompt; None if there is none."""
    names = (key, f"clip_{key}", getattr(tokenizer, "clip", ""))
    found = (getattr(tokenizer, name, None) for name in names)
    return next((own for own in found if hasattr(own, "inv_vocab")), None)


def _content(tokenizer: Any, chunks: Sequence[Sequence[tuple]]) -> tuple[list[int], list[Piece]]:
    """Indices in the whole list and pieces of all tokens but begin, end and padding."""
    row = [token for chunk in chunks for token in chunk]
    indices = [i for i, token in enumerate(row) if not _is_special(tokenizer, token)]
    return indices, pieces(tokenizer, [row[i] for i in indices])


def _is_special(tokenizer: Any, token: tuple[Any, ...]) -> bool:
    """Begin, end or padding: word 0 on the host; some tokenisers of its do not number words."""
    number, _, *word = token
    if word:
        return word[0] == 0
    if not isinstance(number, Integral) or number != tokenizer.pad_token:
        return False
    name = tokenizer.inv_vocab.get(int(number), "")
    return name.startswith("<") and name.endswith(">")


def _around(
    tokenizer: Any, chunks: Sequence[Sequence[tuple]], words: Set[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Indices of the tokens before and behind each chunk's words, and of its padding."""
    before, behind, padding, start = [], [], [], 0
    for chunk in chunks:
        inside = [i for i in range(len(chunk)) if start + i in words]
        first = inside[0] if inside else int(tokenizer.start_token is not None)
        last = inside[-1] if inside else first - 1
        ended = False
        for i, token in enumerate(chunk):
            ends = not ended and isinstance(token[0], int) and token[0] == tokenizer.end_token
            filler = _is_special(tokenizer, token) and not ends
            if i < first:
                left = filler and tokenizer.pad_left and token[0] == tokenizer.pad_token
                (padding if left else before).append(start + i)
            elif i > last:
                (padding if filler else behind).append(start + i)
                ended = ended or ends
        start += len(chunk)
    return tuple(before), tuple(behind), tuple(padding)


def _template(one: Sequence[Piece], other: Sequence[Piece]) -> tuple[str, str]:
    """The letters before and behind the text, from the prompts "a" and "b"."""
    a, b = spelled(one), spelled(other)
    before = commonprefix([a, b])
    after = commonprefix([a[::-1], b[::-1]])[::-1]
    if a != f"{before}a{after}":
        raise ValueError(
            "This text encoder does not put prompts into one template, so their words cannot be "
            "found. Use ComfyUI's own loader of the text encoder."
        )
    return before, after


def _spelling(
    text: str, content: Sequence[Piece], template: tuple[str, str], reads_weights: bool
) -> Spelling:
    """The text as the tokens spell it: escapes kept or not, in the template or instead of it."""
    if reads_weights:
        texts = [parse_weights(text).text]
    else:
        texts = list(dict.fromkeys([unescape_brackets(text), text]))
    errors = []
    for frame in (template, ("", "")):
        for read in texts:
            try:
                return spell(read, content, *frame)
            except ValueError as error:
                errors.append(error)
    raise errors[0]


def _check_embeddings(tokenizer: Any, chunks: Sequence[Sequence[tuple]], text: str) -> None:
    """Raise ValueError for vectors that the encoder would drop, which moves all later columns."""
    widths = {token[0].shape[-1] for c in chunks for token in c if isinstance(token[0], Tensor)}
    wrong = widths - {tokenizer.embedding_size}
    if wrong:
        raise ValueError(
            f"An embedding in the prompt {text!r} has width {min(wrong)}, but the text encoder "
            f"{tokenizer.embedding_key} reads width {tokenizer.embedding_size} and would leave it "
            "out. Remove it, or use an embedding made for this model."
        )
