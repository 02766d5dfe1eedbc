"""Tokenizers of transformers, loaded by the service without the model and without PyTorch."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from xpuserve.engine.backend import Tokenizer
from xpuserve.engine.prompts import PromptError, for_template
from xpuserve.engine.request import PLAIN, ChatOptions, Message

if TYPE_CHECKING:
    from xpuserve.settings import Settings


# Renders a conversation, given the messages and, by name, tools and extra arguments of the template.
Write = Callable[..., str]


class HFTokenizer(Tokenizer):
    """A transformers tokenizer. `write` renders a conversation in the chat template `source`, if there is one."""

    def __init__(self, tokenizer: Any, write: Optional[Write], source: str = "") -> None:
        self._tokenizer = tokenizer
        self.bos_id = tokenizer.bos_token_id
        self.eos_id = tokenizer.eos_token_id
        self._write = write
        self.template = source

    def encode(self, text: str, *, special: bool) -> list[int]:
        """See Tokenizer."""
        return list(self._tokenizer.encode(text, add_special_tokens=special))

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def pieces(self) -> Sequence[str]:
        """See Tokenizer."""
        return [piece or "" for piece in self._tokenizer.convert_ids_to_tokens(list(range(len(self._tokenizer))))]

    def render(self, messages: Sequence[Message], options: ChatOptions = PLAIN) -> Optional[str]:
        """See Tokenizer."""
        if self._write is None:
            return None
        history = [for_template(message, self.template) for message in messages]
        tools = [dict(tool) for tool in options.tools] or None
        try:
            return self._write(history, tools=tools, **options.template)
        except (TemplateError, TypeError, ValueError, AttributeError) as error:
            raise PromptError(f"the model's chat template refuses these messages: {error}") from None


def load(settings: Settings) -> Tokenizer:
    """The tokenizer of the settings' model, for engines bigdl and torch."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - openvino has none; in engine bigdl after IPEX, which it patches

    path, code = Path(settings.model.path), settings.model.trust_remote_code
    tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=code)
    if settings.engine == "torch":
        found: Any = tokenizer.chat_template
        write = functools.partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
        # Of several named templates, transformers takes the one for tools if there are tools.
        source = found.get("tool_use", found.get("default")) if isinstance(found, dict) else found
        return HFTokenizer(tokenizer, write if found else None, str(source or ""))
    file = path / "chat_template.jinja"
    text: Any = file.read_text(encoding="utf-8") if file.is_file() else tokenizer.init_kwargs.get("chat_template")
    if isinstance(text, list):  # several, by name
        text = {item["name"]: item["template"] for item in text}.get("default")
    return HFTokenizer(tokenizer, writer(tokenizer, text), text) if text else HFTokenizer(tokenizer, None)


def writer(tokenizer: Any, template: str) -> Write:
    """transformers 4.31 has no chat templates, so this renders them, with the context of later versions."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _json
    environment.globals.update(raise_exception=_refuse, strftime_now=_now)
    compiled = environment.from_string(template)

    def write(messages: list[dict[str, Any]], **more: Any) -> str:
        given = {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token or ""}
        return compiled.render({**given, **more, "messages": messages, "add_generation_prompt": True})

    return write


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _json(value: Any, indent: Optional[int] = None) -> str:
    """Jinja's own filter would escape HTML characters."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)
