"""Text to token ids and back, as in vLLM's server."""

from __future__ import annotations

from typing import Annotated, Optional

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xpuserve.api.conversation import ChatMessage, Text
from xpuserve.api.schema import TokenId


class TokenizeRequest(BaseModel):
    """The body of /tokenize: a text, or a conversation."""

    model_config = ConfigDict(strict=True)

    model: Optional[Text] = None
    prompt: Optional[Text] = None
    messages: Optional[Annotated[list[ChatMessage], Field(min_length=1)]] = None
    add_special_tokens: Optional[bool] = Field(default=None, description="such as BOS, before a text; true by default")

    @model_validator(mode="after")
    def _is_one_of_the_two(self) -> TokenizeRequest:
        if (self.prompt is None) is (self.messages is None):
            raise ValueError("set either prompt or messages")
        return self


class DetokenizeRequest(BaseModel):
    """The body of /detokenize."""

    model_config = ConfigDict(strict=True)

    model: Optional[Text] = None
    tokens: list[TokenId]
