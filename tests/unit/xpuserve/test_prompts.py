from __future__ import annotations

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import ByteTokenizer
from xpuserve.engine import prompts
from xpuserve.engine.prompts import PromptError
from xpuserve.engine.request import Message

CONVERSATION = [
    Message("system", "Be brief."),
    Message("user", "Hi"),
    Message("assistant", "Hello."),
    Message("user", " Where is Paris? "),
]


def readable(ids: list[int]) -> str:
    return "".join({256: "<s>", 257: "</s>"}.get(n) or chr(n) for n in ids)


@pytest.fixture
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


def test_llama2_conversation(tokenizer: ByteTokenizer) -> None:
    assert readable(prompts.encode_chat(tokenizer, "llama-2", CONVERSATION)) == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] Where is Paris? [/INST]"
    )


def test_llama2_single_question_has_exactly_one_bos(tokenizer: ByteTokenizer) -> None:
    ids = prompts.encode_chat(tokenizer, "llama-2", [Message("user", "Hi")])
    assert readable(ids) == "<s>[INST] Hi [/INST]"


def test_llama2_is_the_format_where_there_is_no_template(tokenizer: ByteTokenizer) -> None:
    tokenizer.template = ""
    assert readable(prompts.encode_chat(tokenizer, "tokenizer", CONVERSATION)).startswith("<s>[INST] <<SYS>>")


def test_a_template_that_writes_bos_itself_gets_no_second_one(tokenizer: ByteTokenizer) -> None:
    assert readable(prompts.encode_chat(tokenizer, "tokenizer", [Message("user", "Hi")])) == "Hi"


def test_stray_bos_are_dropped() -> None:
    class Stutter(ByteTokenizer):
        def encode(self, text: str, *, special: bool) -> list[int]:
            return [256, 256, 256, *super().encode(text, special=False)]

    assert readable(prompts.encode_text(Stutter(), "Hi")) == "<s>Hi"
    assert readable(prompts.encode_chat(Stutter(), "tokenizer", [Message("user", "Hi")])) == "<s>Hi"
    assert readable(prompts.encode_chat(Stutter(), "llama-2", CONVERSATION[1:])) == (
        "<s>[INST] Hi [/INST] Hello. </s><s>[INST] Where is Paris? [/INST]"
    )


def test_chatglm2_conversation() -> None:
    assert prompts.chatglm2([*CONVERSATION[1:3], Message("user", "Bye")]) == (
        "[Round 1]\n\n问：Hi\n\n答：Hello.\n\n[Round 2]\n\n问：Bye\n\n答："  # noqa: RUF001
    )


def test_chatglm2_system_message_opens_the_first_question(tokenizer: ByteTokenizer) -> None:
    text = prompts.chatglm2([Message("system", "Be brief."), Message("user", "Hi")])
    assert text == "[Round 1]\n\n问：Be brief.\n\nHi\n\n答："  # noqa: RUF001
    ids = prompts.encode_chat(tokenizer, "chatglm2", [Message("user", "Hi")])
    assert ids.count(256) == 1  # the tokenizer's own prefix is there


@pytest.mark.parametrize(
    "roles",
    [["system"], ["assistant"], ["user", "user"], ["user", "assistant"], ["user", "system", "user"], []],
)
def test_a_conversation_that_does_not_alternate_is_refused(tokenizer: ByteTokenizer, roles: list[str]) -> None:
    with pytest.raises(PromptError):
        prompts.encode_chat(tokenizer, "llama-2", [Message(role, "x") for role in roles])
