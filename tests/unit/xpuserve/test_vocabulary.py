"""Tokens to text by a table, if it equals the library's output."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Union

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import ByteTokenizer
from xpuserve.engine.detokenizer import Detokenizer
from xpuserve.engine.vocabulary import _gpt2_letters, fast_decode

WORDS = [" the", " a", "Gr", "e", "\n", "\xe9", " \U0001f600", "Pa", "ris", "ing"]
SPECIAL = ["<|end|>", "<s>", "[INST]"]
#: Bytes, words, and tokens that no text has.
TOKENS = [bytes([n]) for n in range(256)] + [word.encode() for word in WORDS] + [name.encode() for name in SPECIAL]


class Library(ByteTokenizer):
    """A library's tokenizer: it decodes in its own way, and writes its vocabulary in one of three."""

    def __init__(
        self,
        write: Callable[[bytes], Union[str, bytes]],
        errors: str = "replace",
        *,
        stripped: bool = False,
        odd: int = -1,
    ) -> None:
        super().__init__()
        self._write = write
        self._errors = errors
        self._stripped = stripped
        self._odd = odd
        self.calls = 0

    def pieces(self) -> Sequence[Union[str, bytes]]:
        return [self._write(token) for token in TOKENS]

    def decode(self, ids: Sequence[int]) -> str:
        self.calls += 1
        last = len(TOKENS) - len(SPECIAL)
        text = b"".join(b"" if n >= last else TOKENS[n] for n in ids).decode("utf-8", self._errors)
        if self._stripped and text.startswith(" "):
            text = text[1:]
        return text + "!" if self._odd in ids else text


def as_letters(token: bytes) -> str:
    letters = {byte: letter for letter, byte in _gpt2_letters().items()}
    return token.decode() if token.decode("utf-8", "replace") in SPECIAL else "".join(letters[byte] for byte in token)


def as_sentencepiece(token: bytes) -> str:
    text = token.decode("utf-8", "replace")
    return f"<0x{token[0]:02X}>" if len(token) == 1 and token[0] > 126 else text.replace(" ", "\u2581")


@pytest.mark.parametrize("write", [bytes, as_letters, as_sentencepiece])
@pytest.mark.parametrize("errors", ["replace", "ignore"])
@pytest.mark.parametrize("stripped", [True, False])
def test_a_table_gives_what_the_library_gives(
    write: Callable[[bytes], Union[str, bytes]], errors: str, stripped: bool
) -> None:
    library = Library(write, errors, stripped=stripped)
    decode = fast_decode(library)
    dice, asked = random.Random(1), library.calls  # noqa: S311
    many = [[dice.randrange(len(TOKENS)) for _ in range(dice.randint(0, 12))] for _ in range(2000)]
    found = [decode(ids) for ids in many]
    assert library.calls == asked
    assert found == [library.decode(ids) for ids in many]


def random_ids(dice: random.Random) -> list[int]:
    return [dice.randrange(len(TOKENS)) for _ in range(dice.randint(0, 12))]


@pytest.mark.parametrize("errors", ["replace", "ignore"])
@pytest.mark.parametrize("stripped", [True, False])
def test_an_answer_by_a_table_is_the_library_s_text(errors: str, stripped: bool) -> None:
    library = Library(bytes, errors, stripped=stripped)
    table, dice = fast_decode(library), random.Random(1)  # noqa: S311
    for _ in range(1000):
        ids, text = random_ids(dice), Detokenizer(table)
        assert "".join(map(text.push, ids)) + text.finish() == library.decode(ids)


@pytest.mark.parametrize("stripped", [True, False])
def test_an_answer_by_a_table_comes_as_by_the_library(stripped: bool) -> None:
    library = Library(bytes, stripped=stripped)
    table, dice = fast_decode(library), random.Random(1)  # noqa: S311
    for _ in range(300):
        before = [each for each in random_ids(dice) if not 127 < each < 256]  # whole characters
        one, other = Detokenizer(table, before=before), Detokenizer(library.decode, before=before)
        for token in b"The 1st \xc3\xa9, " + bytes([dice.randrange(128)]):
            assert one.each([token, 65, 256]) == other.each([token, 65, 256])
            assert one.push(token) == other.push(token)
        assert one.finish() == other.finish()


def test_a_library_that_does_otherwise_decodes_itself() -> None:
    library = Library(bytes, odd=258)
    assert fast_decode(library)([258]) == "Gr!"


def test_a_library_without_a_vocabulary_decodes_itself() -> None:
    assert fast_decode(ByteTokenizer())([71, 114]) == "Gr"
