"""Default sampling of requests: the operator's, else the model's, else a general one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError

# Without settings for a small model, every token is possible at temperature 1, and many answers go astray.
FALLBACK: dict[str, Any] = {"temperature": 0.7, "min_p": 0.1}


class SamplingDefaults(BaseModel):
    """Settings for operators; the names are those of a request's fields."""

    model_config = ConfigDict(strict=True, extra="forbid")

    temperature: Optional[float] = Field(default=None, ge=0, le=2)
    top_p: Optional[float] = Field(default=None, gt=0, le=1)
    top_k: Optional[int] = Field(default=None, ge=0, le=2**31 - 1)
    min_p: Optional[float] = Field(default=None, ge=0, lt=1)
    repetition_penalty: Optional[float] = Field(default=None, ge=0.01, le=10)
    presence_penalty: Optional[float] = Field(default=None, ge=-2, le=2)
    frequency_penalty: Optional[float] = Field(default=None, ge=-2, le=2)


def defaults(operator: SamplingDefaults, model: Path) -> dict[str, Union[int, float]]:
    """The defaults of requests, by field name."""
    said = {**_model_s(model), **operator.model_dump(exclude_none=True)}
    return said or dict(FALLBACK)


def _model_s(path: Path) -> dict[str, Any]:
    """The model's generation_config.json, without values that no request may have."""
    try:
        said = json.loads((path / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = {}
    for name in SamplingDefaults.model_fields if isinstance(said, dict) else ():
        try:
            found.update(SamplingDefaults.model_validate({name: said.get(name)}).model_dump(exclude_none=True))
        except ValidationError:
            continue
    return found
