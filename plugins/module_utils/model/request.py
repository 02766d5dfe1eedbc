"""The expected content of a model's directory, its source, and the limits for fetching it."""

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
    """The weights cannot be fetched or used; the message says why and what to do."""


@dataclass(frozen=True)
class WeightsRequest:
    """The expected content of ``directory``, its source, and the limits for fetching it."""

    directory: Path
    source: Mapping[str, Any]
    formats: Sequence[str]
    code: bool = False
    token: str = ""
    endpoint: str = ""
    # Whether the token may go over the network unencrypted.
    plain_http: bool = False
    use: Use = field(default_factory=Use)
    # Remarks for the operator that are no failures.
    notes: list[str] = field(default_factory=list, compare=False)
    # Interpreter whose pip fetches wheels, and their location.
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
        """Location of the source, as its kind defines it."""
        return str(self.source["location"])

    @property
    def wanted_files(self) -> list[str]:
        """Weights that the operator selected."""
        named = self.source.get("files") or ([self.source["file"]] if self.source.get("file") else [])
        return [str(name) for name in named]

    @property
    def url_name(self) -> str:
        """The name of the file behind a URL."""
        return str(self.source.get("file") or PurePosixPath(urlsplit(self.location).path).name)

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies a source: not its token, mirror or estimated size."""
        left_out = ("gated", "download_bytes")
        source = {key: value for key, value in sorted(self.source.items()) if key not in left_out}
        if self.listing:
            source["listing"] = {name: list(numbers) for name, numbers in sorted(self.listing.items())}
        return {"source": source, "code": self.code}

    def client(self) -> Client:
        """HTTP for this source; the hub's token is for the hub only, not for the host of a URL."""
        return Client(self.token if self.kind == "huggingface" else "", plain_http=self.plain_http, notes=self.notes)

    @cached_property
    def place(self) -> Place:
        """The directory, opened once; its paths lead nowhere else."""
        return Place(self.directory)

    @property
    def incoming(self) -> Path:
        """Name of the directory for new weights until they are complete, for other tools."""
        return self.directory.with_name(self.place.gathering)
