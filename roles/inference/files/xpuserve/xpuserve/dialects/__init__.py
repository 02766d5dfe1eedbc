"""How families of models write tool calls and thoughts into their answers, and which of them a chat template is for.

A dialect is found by the words of the template. Where a template knows no tools, they are written into the
conversation's text, and a grammar forces the answer into a form that can be read.
"""

from __future__ import annotations

from xpuserve.dialects.base import Dialect
from xpuserve.dialects.generic import Generic
from xpuserve.dialects.hermes import Hermes
from xpuserve.dialects.llama import Llama
from xpuserve.dialects.mistral import Mistral

# The more special first.
NATIVE: tuple[type[Dialect], ...] = (Mistral, Hermes, Llama)


def of(template: str) -> Dialect:
    """The dialect of the models that a chat template is for."""
    found: type[Dialect] = next((each for each in NATIVE if each.writes(template)), Generic)
    return found(template)
