"""Conversations to token ids, in the format of the model's training."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xpuserve import dialects
from xpuserve.dialects import generic
from xpuserve.dialects.base import CLOSE_THOUGHT, OPEN_THOUGHT, Dialect
from xpuserve.dialects.mistral import Mistral
from xpuserve.engine.request import PLAIN, ChatOptions, Message

if TYPE_CHECKING:
    from xpuserve.engine.backend import Tokenizer


# Most tokens of a thought's tag and a line break after it.
_TAG_TOKENS = 8


class PromptError(ValueError):
    """The model's format cannot express the conversation; the message is for the client."""


def encode_chat(
    tokenizer: Tokenizer, prompt_format: str, messages: Sequence[Message], options: ChatOptions = PLAIN
) -> list[int]:
    """Token ids of a conversation, for the model to continue.

    `prompt_format` is tokenizer (its chat template, or the Llama-2 format without one), llama-2 or chatglm2.
    Raises PromptError.
    """
    if options.continues:
        *before, last = messages
        if last.role != "assistant" or last.calls:
            raise PromptError("continue_final_message requires a final assistant message with text")
        ids = encode_chat(tokenizer, prompt_format, before, replace(options, continues=False))
        return ids + tokenizer.encode(last.content, special=False)
    uses_tools = options.tools or any(message.calls or message.role == "tool" for message in messages)
    if uses_tools and not dialect(tokenizer, prompt_format).native:
        messages = generic.plain(messages, options)
        options = replace(options, tools=())
    if prompt_format == "chatglm2":
        return encode_text(tokenizer, chatglm2(messages))
    if prompt_format == "tokenizer":
        if not options.thinks and "enable_thinking" in tokenizer.template:
            options = replace(options, template={"enable_thinking": False, **options.template})
        text = tokenizer.render(messages, options)
        if text is not None:
            ids = _one_bos(tokenizer.encode(text, special=False), tokenizer.bos_id)
            closes = not options.thinks and begins_thought(tokenizer, ids)
            return ids + tokenizer.encode(f"\n{CLOSE_THOUGHT}\n\n", special=False) if closes else ids
    return _encode_llama2(tokenizer, messages)


def begins_thought(tokenizer: Tokenizer, prompt: Sequence[int]) -> bool:
    """Whether a prompt ends within a thought, which the answer continues."""
    return tokenizer.decode(prompt[-_TAG_TOKENS:]).rstrip().endswith(OPEN_THOUGHT)


def dialect(tokenizer: Tokenizer, prompt_format: str) -> Dialect:
    """The model's syntax of tool calls and thoughts."""
    return dialects.of(tokenizer.template if prompt_format == "tokenizer" else "")


def for_template(message: Message, template: str) -> dict[str, Any]:
    """A message in the form of chat templates."""
    result: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        result["tool_calls"] = [
            {
                "id": _call_id(call.id, template),
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.calls
        ]
    if message.role == "tool":
        result["tool_call_id"] = _call_id(message.call, template)
    more = {"name": message.name, "reasoning_content": message.thought}
    return result | {name: value for name, value in more.items() if value}


def _arguments(text: str) -> Any:
    """Templates write arguments as JSON themselves; the model sees malformed ones as they were."""
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text


def _call_id(given: str, template: str) -> str:
    """An id that the template accepts: Mistral's refuses those of other servers."""
    if not Mistral.writes(template) or re.fullmatch("[A-Za-z0-9]{9}", given):
        return given
    return hashlib.sha256(given.encode()).hexdigest()[:9]


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a plain text, begun as the model requires, but never with two BOS."""
    return _one_bos(tokenizer.encode(text, special=True), tokenizer.bos_id)


def llama2(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """The turns of a Llama-2 conversation as (question, answer); the requested answer is empty."""
    system, turns = _turns(messages)
    if system:
        question, answer = turns[0]
        turns[0] = (f"<<SYS>>\n{system}\n<</SYS>>\n\n{question}", answer)
    return [(f"[INST] {question.strip()} [/INST]", answer.strip()) for question, answer in turns]


def chatglm2(messages: Sequence[Message]) -> str:
    """A ChatGLM2 prompt; the format has no system message, so it goes before the first question."""
    system, turns = _turns(messages)
    if system:
        turns[0] = (f"{system}\n\n{turns[0][0]}", turns[0][1])
    # The colons are full-width, as in the model's training data.
    rounds = [f"[Round {n}]\n\n问：{question}\n\n答：{answer}" for n, (question, answer) in enumerate(turns, 1)]  # noqa: RUF001
    return "\n\n".join(rounds)


def _encode_llama2(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    # Each turn is BOS question answer EOS. BOS and EOS are added as ids, unless the tokenizer adds a BOS itself.
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    eos = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    *past, (question, _ignored) = llama2(messages)
    ids: list[int] = []
    for asked, answered in past:
        ids += _one_bos(bos + tokenizer.encode(f"{asked} {answered} ", special=False), tokenizer.bos_id) + eos
    return ids + _one_bos(bos + tokenizer.encode(question, special=False), tokenizer.bos_id)


def _turns(messages: Sequence[Message]) -> tuple[str, list[tuple[str, str]]]:
    """The system message and the (question, answer) turns of a conversation that ends with a question."""
    has_system = bool(messages) and messages[0].role == "system"
    system, rest = (messages[0].content, messages[1:]) if has_system else ("", messages)
    if [message.role for message in rest] != [("user", "assistant")[n % 2] for n in range(len(rest))]:
        raise PromptError("after an optional system message, user and assistant messages must alternate")
    if len(rest) % 2 == 0:
        raise PromptError("the last message must be the user's")
    contents = [message.content for message in rest] + [""]
    return system, list(zip(contents[::2], contents[1::2]))


def _one_bos(ids: list[int], bos_id: int | None) -> list[int]:
    start = 0
    while ids[start : start + 2] == [bos_id, bos_id]:
        start += 1
    return ids[start:]
