from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import ByteTokenizer
from xpuserve.engine.detokenizer import Detokenizer
from xpuserve.engine.generation import Generation
from xpuserve.engine.request import Event, Piece, Request, SamplingParams, Token
from xpuserve.engine.runner import Output
from xpuserve.metrics import Metrics


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


def test_a_text_goes_on_with_its_first_space() -> None:
    words = ["\u2581The", "\u2581capital", "\u2581of", "\u2581is", "\u2581Paris", "."]

    def decode(ids: Sequence[int]) -> str:
        return "".join(words[n] for n in ids).replace("\u2581", " ").lstrip()

    for many in (1, 3, 20):
        detokenizer = Detokenizer(decode, before=[0, 1, 2, 3] * many)
        assert [*map(detokenizer.push, (4, 5, 4, 5)), detokenizer.finish()] == [" Paris", ".", " Paris", ".", ""]
        assert Detokenizer(decode, before=[0, 1, 2, 3] * many).each([4, 5]) == [" Paris", "."]


def test_a_text_goes_on_whatever_it_was_cut_within() -> None:
    """Like Llama's, which takes bytes that follow each other for no text at all where some are no character."""

    def decode(ids: Sequence[int]) -> str:
        try:
            return bytes(ids).decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(ids)

    for text in ("", "a", "é", "a€", "😀😀", "a😀€😀", "\ufffd"):
        detokenizer = Detokenizer(decode, before=list(text.encode()))
        out = [detokenizer.push(token) for token in "😀é b".encode()]
        assert "".join(out) == "😀é b"
        assert detokenizer.finish() == ""


def test_a_long_answer_is_decoded_little_by_little() -> None:
    decoded: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        decoded.append(len(ids))
        return "".join(f"\u2581{n}" for n in ids).replace("\u2581", " ").lstrip()

    detokenizer = Detokenizer(decode)
    assert "".join(map(detokenizer.push, range(100))) == " ".join(map(str, range(100)))
    assert max(decoded) <= 8
    assert len(decoded) < 120  # a call of a tokenizer takes its time


def test_bytes_that_never_become_a_character_are_decoded_little_by_little() -> None:
    decoded: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        decoded.append(len(ids))
        return ByteTokenizer().decode(ids)

    detokenizer = Detokenizer(decode)
    out = [detokenizer.push(0xF0) for _ in range(1000)]
    assert max(decoded) <= 8 + 4
    assert out[:4] == ["", "", "", "\ufffd"]
    assert "".join(out) + detokenizer.finish() == "\ufffd" * 1000


def test_a_character_after_bytes_that_are_none_comes_whole() -> None:
    for many in range(12):
        detokenizer = Detokenizer(ByteTokenizer().decode)
        out = [detokenizer.push(token) for token in [0xF0] * many + list("😀é".encode())]
        assert "".join(out) + detokenizer.finish() == "\ufffd" * many + "😀é"


def test_log_probabilities_go_with_the_text_after_bytes_that_are_no_character() -> None:
    events: list[Event] = []
    request = Request("r", [1], SamplingParams(100, logprobs=0), events.append)
    answer = Generation(request, Detokenizer(ByteTokenizer().decode, ("END",)), Metrics())
    written = [0xF0] * 20 + list(b"ab END")
    assert answer.take(Output(request, [Token(token, -1.0) for token in written]), []) == "stop"
    told = [token for event in events if isinstance(event, Piece) for token in event.tokens]
    assert [token.text.strip("\ufffd") for token in told[-3:]] == ["a", "b", " "]
    assert [token.offset for token in told[-2:]] == [21, 22]


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
