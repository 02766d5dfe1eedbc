"""Models of transformers that give the same tokens in a batch of unequal rows as alone."""

from __future__ import annotations

from typing import Any

# Their layers differ in their weights, not in how they use rows and positions.
_LLAMA = {"llama", "mistral", "qwen2", "qwen3"}
# Ways to stretch positions that depend only on each token's own position. The others, such as dynamic and longrope, use
# the longest row's length.
_FIXED_ROPE = {"default", "linear", "llama3", "yarn"}


def unbatchable_reason(module: str, config: Any, context_length: int) -> str:
    """Why requests must be served one at a time; empty if a batch can serve them.

    `module` has the model's class, `context_length` is the limit of a request, in tokens.
    """
    if config.model_type not in _LLAMA:
        return f"{config.model_type} is not of the Llama family"
    if not module.startswith("transformers.models."):
        return "the model's code is its own"
    rope = _rope(config)
    if rope not in _FIXED_ROPE:
        return f"positions of type {rope} depend on the longest of a batch"
    window = _window(config)
    if window and window < context_length:
        return f"attention reaches back {window} tokens and requests may have {context_length}"
    return ""


def _rope(config: Any) -> str:
    """The type of the rotary embedding, under the names of transformers 4.37 to 5."""
    said = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return str(said.get("rope_type") or said.get("type") or "default")


def _window(config: Any) -> int:
    """The span of attention in tokens; 0 for all."""
    return (getattr(config, "sliding_window", None) or 0) if getattr(config, "use_sliding_window", True) else 0
