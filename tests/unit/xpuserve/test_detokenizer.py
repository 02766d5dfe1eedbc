from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import ByteTokenizer
from xpuserve.engine.detokenizer import Detokenizer


def pieces(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    detokenizer = Detokenizer(ByteTokenizer().decode, stop)
    out = []
    for token in text.encode():
        out.append(detokenizer.push(token))
        if detokenizer.stopped:
            break
    return [piece for piece in [*out, detokenizer.finish()] if piece], detokenizer.stopped


def test_a_character_of_several_tokens_comes_whole() -> None:
    assert pieces("aé€😀b") == (["a", "é", "€", "😀", "b"], False)


def test_an_incomplete_character_at_the_end_is_not_lost() -> None:
    detokenizer = Detokenizer(ByteTokenizer().decode)
    assert [detokenizer.push(token) for token in "é".encode()[:1]] == [""]
    assert detokenizer.finish() == "\ufffd"


def test_a_space_before_a_word_is_kept() -> None:
    # Like SentencePiece, which drops the first token's space.
    words = ["\u2581Paris", "\u2581is", "\u2581big"]
    detokenizer = Detokenizer(lambda ids: "".join(words[n] for n in ids).replace("\u2581", " ").lstrip())
    assert [detokenizer.push(n) for n in range(3)] == ["Paris", " is", " big"]


def test_a_long_answer_is_decoded_little_by_little() -> None:
    decoded: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        decoded.append(len(ids))
        return "".join(f"\u2581{n}" for n in ids).replace("\u2581", " ").lstrip()

    detokenizer = Detokenizer(decode)
    assert "".join(map(detokenizer.push, range(100))) == " ".join(map(str, range(100)))
    assert max(decoded) <= 8
    assert len(decoded) < 120  # a call of a tokenizer takes its time


def test_a_stop_sequence_ends_the_text_and_never_shows() -> None:
    assert pieces("one two END three", ("END",)) == (["o", "n", "e", " ", "t", "w", "o", " "], True)


def test_the_beginning_of_a_stop_sequence_is_held_until_it_is_not_one() -> None:
    out, stopped = pieces("an EN, EEND", ("END",))
    assert "".join(out) == "an EN, E"
    assert stopped
    assert "EN," in out  # held back, then given out at once


def test_what_is_held_at_the_end_comes_out() -> None:
    assert pieces("an EN", ("END",)) == (["a", "n", " ", "EN"], False)


def test_the_earliest_of_several_stop_sequences_wins() -> None:
    assert "".join(pieces("abcd", ("cd", "b"))[0]) == "a"
