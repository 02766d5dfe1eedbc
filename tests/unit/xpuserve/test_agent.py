"""An instance's reports to a gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from xpuserve.agent import Agent, weight


@pytest.mark.parametrize(
    ("running", "waiting", "percent"), [(0, 0, 100), (8, 0, 100), (8, 1, 50), (8, 8, 50), (8, 9, 25), (0, 1, 25)]
)
def test_an_instance_gets_less_the_more_waits(running: int, waiting: int, percent: int) -> None:
    assert weight(running, waiting) == percent


def agent(tmp_path: Path, *, serving: bool = True) -> Agent:
    engine: Any = SimpleNamespace(running=2, waiting=1)
    return Agent(engine, tmp_path / "drain-0", lambda: serving)


def test_a_file_drains_an_instance_and_its_end_brings_it_back(tmp_path: Path) -> None:
    (tmp_path / "drain-0").touch()
    assert agent(tmp_path).line() == "drain"
    (tmp_path / "drain-0").unlink()
    assert agent(tmp_path).line() == "ready up 50%"


def test_an_instance_that_ends_drains(tmp_path: Path) -> None:
    assert agent(tmp_path, serving=False).line() == "drain"


def test_each_connection_gets_one_line(tmp_path: Path) -> None:
    async def ask() -> list[bytes]:
        server = await agent(tmp_path).start("127.0.0.1", 0)
        lines = []
        async with server:
            for _ in range(2):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                lines.append(await reader.read())
                writer.close()
        return lines

    assert asyncio.run(ask()) == [b"ready up 50%\n"] * 2


def test_an_instance_that_was_drained_gets_few_requests_at_first(tmp_path: Path) -> None:
    now, drain = [0.0], tmp_path / "drain-0"
    engine: Any = SimpleNamespace(running=0, waiting=0)
    told = Agent(engine, drain, lambda: True, lambda: now[0])
    assert told.line() == "ready up 100%"
    drain.touch()
    assert told.line() == "drain"
    drain.unlink()
    lines = []
    for now[0] in (0.0, 9.0, 10.0, 19.0, 20.0):
        lines.append(told.line())
    assert lines == [f"ready up {share}%" for share in (25, 25, 50, 50, 100)]
