"""Tokens to text by a table of their bytes: 1 microsecond instead of a library's 30 to 70.

A table is used only if its results equal the library's, for texts and for tokens in any order; if not, the library
decodes.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Optional, Union

from xpuserve.engine.backend import Tokenizer

Decode = Callable[[Sequence[int]], str]
# Sizes of the comparison: tokens in any order, and texts.
SAMPLES = 300
TEXTS = ("The capital of France is Paris.\n\n", "  def f(x): return x\t# 1+1", "Größe 😀 你好, naïve", "a b  c")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def fast_decode(tokenizer: Tokenizer) -> Decode:
    """A function that decodes as the tokenizer does; the tokenizer's own if no table matches it."""
    return _table(tokenizer) or tokenizer.decode


def token_bytes(tokenizer: Tokenizer) -> Optional[Sequence[bytes]]:
    """The bytes of each token, none if it is special; None if no table matches the library."""
    found = _table(tokenizer)
    return found.known if found else None


def special_texts(tokenizer: Tokenizer) -> list[str]:
    """The texts of special tokens, which decoding omits."""
    texts = [piece if isinstance(piece, str) else piece.decode("utf-8", "replace") for piece in tokenizer.pieces()]
    return [
        text for n, text in enumerate(texts) if len(text) > 1 and _looks_special(text) and not tokenizer.decode([n])
    ]


class Table:
    """Decodes by the bytes of each token; special ones have none."""

    def __init__(self, known: Sequence[bytes], errors: str, stripped: bool) -> None:
        """`errors` is the spelling of bytes that are no character, as in bytes.decode(); `stripped` drops the space
        at the beginning of a text.
        """
        self.known = known
        self.errors = errors
        self.stripped = stripped

    def __call__(self, ids: Sequence[int]) -> str:
        text = b"".join([self.known[n] for n in ids]).decode("utf-8", self.errors)
        return text[1:] if self.stripped and text[:1] == " " else text


def _table(tokenizer: Tokenizer) -> Optional[Table]:
    """The table that matches the library."""
    pieces = tokenizer.pieces()
    if not pieces:
        return None
    decode = tokenizer.decode
    samples = [(ids, decode(ids)) for ids in _samples(tokenizer, len(pieces))]
    special = {n for n, piece in enumerate(pieces) if _looks_special(piece) and decode([n]) == ""}
    # Some write bytes that are no character as U+FFFD and some omit them; some drop the space before a first word.
    ways = itertools.product(_spellings(pieces), ("replace", "ignore"), (False, True))
    for spelling, errors, stripped in ways:
        known = [b"" if n in special else each for n, each in enumerate(spelling)]
        table = Table(known, errors, stripped)
        if all(table(ids) == text for ids, text in samples):
            return table
    return None


def _samples(tokenizer: Tokenizer, tokens: int) -> Iterator[list[int]]:
    dice = random.Random(0)  # noqa: S311 - no secret
    for _turn in range(SAMPLES):
        yield [dice.randrange(tokens) for _turn in range(dice.randint(1, 8))]
    for text in TEXTS:
        ids = tokenizer.encode(text, special=False)
        yield ids
        yield from ([each] for each in ids)


def _spellings(pieces: Sequence[Union[str, bytes]]) -> Iterator[list[bytes]]:
    """The ways in which vocabularies write bytes: raw, as GPT-2's letters, and as SentencePiece's."""
    if all(isinstance(piece, bytes) for piece in pieces):
        yield [piece for piece in pieces if isinstance(piece, bytes)]
        return
    texts = [piece if isinstance(piece, str) else piece.decode("utf-8", "replace") for piece in pieces]
    letters = _gpt2_letters()
    yield [bytes(letters[c] for c in text) if set(text) <= letters.keys() else text.encode() for text in texts]
    yield [_sentencepiece(text) for text in texts]


def _sentencepiece(text: str) -> bytes:
    byte = _BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("\u2581", " ").encode()


def _gpt2_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others are letters from 256 on."""
    printing = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _looks_special(piece: Union[str, bytes]) -> bool:
    """Whether a token may be special: such tokens are in brackets, or empty."""
    text = piece.decode("utf-8", "replace") if isinstance(piece, bytes) else piece
    return not text or (text[0] in "<[" and text[-1] in ">]" and not _BYTE.fullmatch(text))


def hidden(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[int, str]:
    """The special ones of these texts, which decoding omits, by their ids."""
    wanted: dict[Union[str, bytes], str] = {text: text for text in texts} | {text.encode(): text for text in texts}
    found = {n: wanted[piece] for n, piece in enumerate(tokenizer.pieces()) if piece in wanted} if texts else {}
    return {n: text for n, text in found.items() if not tokenizer.decode([n])}


def showing(decode: Decode, shown: Mapping[int, str]) -> Decode:
    """Decodes as `decode` does, and includes these special tokens."""
    return partial(_with_shown, decode, shown) if shown else decode


def _with_shown(decode: Decode, shown: Mapping[int, str], ids: Sequence[int]) -> str:
    text, start = "", 0
    for n, number in enumerate(ids):
        if number in shown:
            text += decode(ids[start:n]) + shown[number]
            start = n + 1
    return text + decode(ids[start:])
