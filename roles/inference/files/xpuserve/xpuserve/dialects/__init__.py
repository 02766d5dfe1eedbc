"""Syntax of tool calls and thoughts by model family, and which family a chat template belongs to.

A dialect is recognised by words in the template. If a template does not support tools, they are described in the
conversation's text, and a grammar forces the answer into a readable form.
"""

from __future__ import annotations

from xpuserve.dialects.base import Dialect
from xpuserve.dialects.generic import Generic
from xpuserve.dialects.hermes import Hermes
from xpuserve.dialects.llama import Llama
from xpuserve.dialects.mistral import Mistral

# The more specific first.
NATIVE: tuple[type[Dialect], ...] = (Mistral, Hermes, Llama)


def of(template: str) -> Dialect:
    """The dialect of a chat template's models."""
    found: type[Dialect] = next((each for each in NATIVE if each.writes(template)), Generic)
    return found(template)
