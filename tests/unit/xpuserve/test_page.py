"""The chat page as it is served. What it does in a browser is tested in tests/page."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.zip_tree import build_archive
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import LIMITS, MODEL
from fastapi.testclient import TestClient
from xpuserve.api import page
from xpuserve.api.app import create_app
from xpuserve.engine.loop import Engine
from xpuserve.keys import Keys

SERVICE = Path(__file__).parents[3] / "roles/inference/files/xpuserve"
STATIC = SERVICE / "xpuserve/api/static"


@pytest.mark.parametrize("path", sorted(page.PATHS))
def test_a_file_of_the_page_is_served_with_a_strict_policy(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == client.head(path).status_code == 200
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert not re.search("unsafe|https?:|data:|[*]", " ".join(policy))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.content == (STATIC / (path.rpartition("/")[2] or "index.html")).read_bytes()


def test_all_that_the_page_names_is_there_and_nothing_is_elsewhere() -> None:
    named = set()
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://\S+?(?=[\"'\s])", text)) <= {"http://www.w3.org/2000/svg"}
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b| style=| on[a-z]+=", text
        )
        if file.suffix == ".html":
            named |= {f"/{name}" for name in re.findall(r"(?:src|href)=\"([^\"#]+)\"", text)}
        elif file.suffix == ".js":
            named |= {f"/static/{name}" for name in re.findall(r"from \"\./([^\"]+)\"", text)}
    assert named | {"/"} == page.PATHS


def test_the_page_needs_no_key_and_all_else_does(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "api_keys"
    path.touch(0o600)
    path.write_text("secret-of-anna-0123456789\n")
    client = TestClient(create_app(engine, MODEL, LIMITS, Keys(path)))
    for name in page.PATHS:
        assert client.get(name).status_code == 200
    for name in ("/static/", "/static/../v1/models", "/static/none.js", "/index.html", "/v1/models"):
        assert client.get(name).status_code == 401
    assert client.post("/", json={}).status_code == 405


@pytest.mark.parametrize(
    "path", ["/static/..%2f..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/"]
)
def test_no_other_file_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_page_is_in_the_archive_that_nodes_get(tmp_path: Path) -> None:
    archive = tmp_path / "xpuserve.pyz"
    archive.write_bytes(build_archive(SERVICE, "xpuserve"))
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from xpuserve.api import page
        assert page.__file__.startswith(sys.argv[1])
        print(*sorted(page.PATHS))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(archive)]
    assert set(subprocess.check_output(command, text=True).split()) == page.PATHS
