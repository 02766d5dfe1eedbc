"""The tokenizers of transformers, which the service loads without the model and without PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from xpuserve.engine.backend import Tokenizer
from xpuserve.engine.prompts import PromptError
from xpuserve.engine.request import Message

if TYPE_CHECKING:
    from xpuserve.settings import Settings


class HFTokenizer(Tokenizer):
    """A transformers tokenizer. `template` writes a conversation in the chat template, if there is one."""

    def __init__(self, tokenizer: Any, template: Optional[Callable[[list[dict[str, str]]], str]]) -> None:
        self._tokenizer = tokenizer
        self.bos_id = tokenizer.bos_token_id
        self.eos_id = tokenizer.eos_token_id
        self._template = template

    def encode(self, text: str, *, special: bool) -> list[int]:
        """See Tokenizer."""
        return list(self._tokenizer.encode(text, add_special_tokens=special))

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def pieces(self) -> Sequence[str]:
        """See Tokenizer."""
        return [piece or "" for piece in self._tokenizer.convert_ids_to_tokens(list(range(len(self._tokenizer))))]

    def render(self, messages: Sequence[Message]) -> Optional[str]:
        """See Tokenizer."""
        if self._template is None:
            return None
        try:
            return self._template([{"role": message.role, "content": message.content} for message in messages])
        except TemplateError as error:
            raise PromptError(f"the model's chat template refuses these messages: {error}") from None


def load(settings: Settings) -> Tokenizer:
    """The tokenizer of the model that the settings name, for engines bigdl and torch."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - openvino has none; in engine bigdl after IPEX, which it patches

    path, code = Path(settings.model.path), settings.model.trust_remote_code
    tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=code)
    if settings.engine == "torch":
        template = functools.partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
        return HFTokenizer(tokenizer, template if tokenizer.chat_template else None)
    file = path / "chat_template.jinja"
    text = file.read_text(encoding="utf-8") if file.is_file() else tokenizer.init_kwargs.get("chat_template")
    if isinstance(text, list):  # several, by name
        text = {item["name"]: item["template"] for item in text}.get("default")
    return HFTokenizer(tokenizer, None if text is None else _chat_template(tokenizer, text))


def _chat_template(tokenizer: Any, template: str) -> Callable[[list[dict[str, str]]], str]:
    """transformers 4.31 knows no chat templates, so they are rendered here."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    compiled = environment.from_string(template)

    def render(messages: list[dict[str, str]]) -> str:
        return compiled.render(
            messages=messages,
            add_generation_prompt=True,
            bos_token=tokenizer.bos_token or "",
            eos_token=tokenizer.eos_token or "",
        )

    return render


def _refuse(message: str) -> None:
    raise TemplateError(message)
