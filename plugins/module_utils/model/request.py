"""What shall be in a model's directory, from where, and how it may be fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.xpu.fleet.plugins.module_utils.model.client import Client
from ansible_collections.xpu.fleet.plugins.module_utils.model.judge import Use
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.python_environment import Sources
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError
from ansible_collections.xpu.fleet.plugins.module_utils.system.place import Place


class StoreError(FleetError):
    """The weights cannot be brought or used; the message says why and what to do."""


@dataclass(frozen=True)
class WeightsRequest:
    """What shall be in ``directory``, from where, and how it may be fetched."""

    directory: Path
    source: Mapping[str, Any]
    formats: Sequence[str]
    code: bool = False
    token: str = ""
    endpoint: str = ""
    # Whether the token may go over the network without encryption.
    plain_http: bool = False
    use: Use = field(default_factory=Use)
    # What the operator should hear though nothing failed.
    notes: list[str] = field(default_factory=list, compare=False)
    # Interpreter whose pip brings wheels, and where they are.
    python: str = ""
    sources: Sources = field(default_factory=Sources)
    # Space that a later step needs beside the download.
    extra_bytes: int = 0
    # Files of a controller_path, name to [size, mtime].
    listing: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Kind of the source."""
        return str(self.source["kind"])

    @property
    def location(self) -> str:
        """Where the source is, in the way of its kind."""
        return str(self.source["location"])

    @property
    def wanted_files(self) -> list[str]:
        """Weights that the operator narrowed the choice down to."""
        named = self.source.get("files") or ([self.source["file"]] if self.source.get("file") else [])
        return [str(name) for name in named]

    @property
    def url_name(self) -> str:
        """The name of the file behind a URL."""
        return str(self.source.get("file") or PurePosixPath(urlsplit(self.location).path).name)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two sources the same: neither token nor mirror, neither a size that was only estimated."""
        left_out = ("gated", "download_bytes")
        source = {key: value for key, value in sorted(self.source.items()) if key not in left_out}
        if self.listing:
            source["listing"] = {name: list(numbers) for name, numbers in sorted(self.listing.items())}
        return {"source": source, "code": self.code}

    def client(self) -> Client:
        """HTTP for this source; the hub's token is for the hub, not for whatever host a URL names."""
        return Client(self.token if self.kind == "huggingface" else "", plain_http=self.plain_http, notes=self.notes)

    @cached_property
    def place(self) -> Place:
        """The directory as what was opened once; its paths lead nowhere else."""
        return Place(self.directory)

    @property
    def incoming(self) -> Path:
        """Where new weights are gathered until they are whole, by its name: for others to find it."""
        return self.directory.with_name(self.place.gathering)
