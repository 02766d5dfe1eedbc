from __future__ import annotations

import errno
import socket
from pathlib import Path
from unittest.mock import Mock

import pytest
from xpuserve import systemd


def test_notify_reaches_the_service_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        systemd.notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_a_manager_that_does_not_read_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        for _ in range(10000):
            systemd.notify("WATCHDOG=1", wait=False)
        assert manager.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("wait", [True, False])
def test_a_manager_that_is_gone_is_no_reason_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    systemd.notify("WATCHDOG=1", wait=wait)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
    systemd.notify("WATCHDOG=1", wait=wait)  # the socket's file exists, but nobody listens
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))
        systemd.notify("WATCHDOG=1", wait=wait)


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
