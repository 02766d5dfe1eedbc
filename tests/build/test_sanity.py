"""``ansible-test sanity`` on the artifact, without containers, for the ansible-core whose ansible-test is in PATH.

ansible-test makes its own environments, with its own pins; the cache keeps them. Settings without a variable
are in a separate home folder there.
"""

from __future__ import annotations

import os
import shutil
from ast import literal_eval
from configparser import ConfigParser
from pathlib import Path

from tests.build.artifact import COLLECTION, ROOT, ansible, install, run
from tests.pythons import of_nodes

CACHE = Path(os.environ.get("XPU_FLEET_CACHE") or Path.home() / ".cache/xpu-fleet")
#: ansible-test downloads get-pip.py unless it is in its cache. The pip that Python brings can do the same.
BOOTSTRAP = '''"""Install the pip that ansible-test asks for, with the one that Python brings."""
import runpy
import subprocess
import sys

subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.argv = [sys.argv[0], "install", "--quiet", *wanted]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
'''
PIP_VERSION = """
from types import SimpleNamespace
from ansible_test._internal.python_requirements import get_venv_packages
print(get_venv_packages(SimpleNamespace(version="3.11"))["pip"])
"""


def test_ansible_test_finds_nothing(tmp_path: Path) -> None:
    command = shutil.which("ansible-test")
    assert command, "ansible-test is part of ansible-core"
    home = CACHE / "sanity"
    prepare(home, Path(command).with_name("python3"), tmp_path)
    collection = install(tmp_path)
    shutil.copytree(ROOT / "tests/sanity", collection / "tests/sanity")
    shutil.copy(ROOT / "tests/config.yml", collection / "tests")
    sanity = [command, "sanity", "--color", "no"]
    result = run(sanity, tmp_path, COLLECTION, HOME=str(home), PATH=os.pathsep.join(path()))
    said = [line for line in result.stdout.splitlines() if not line.startswith("WARNING")]
    assert result.returncode == 0, "\n".join(said) + result.stderr
    assert not [line for line in said if line.startswith(("ERROR", "FATAL"))]
    # It also succeeds if it finds no file of the collection.
    assert 'Running sanity test "validate-modules"' in result.stdout + result.stderr
    assert "skipped" not in result.stdout + result.stderr


def prepare(home: Path, python: Path, folder: Path) -> None:
    """Make a home for ansible-test: its way to pip, and this machine's pip settings, which it passes on as files."""
    version = ansible([str(python), "-c", PIP_VERSION], folder).strip()
    bootstrap = home / f".ansible/test/cache/get_pip_{version.replace('.', '_')}.py"
    bootstrap.parent.mkdir(parents=True, exist_ok=True)
    bootstrap.write_text(BOOTSTRAP, encoding="utf-8")
    settings = ConfigParser(interpolation=None)
    for line in ansible([str(python), "-m", "pip", "config", "list"], folder).splitlines():
        name, _sign, value = line.partition("=")
        settings.read_dict({"global": {name.rpartition(".")[2]: literal_eval(value)}})
    (home / ".config/pip").mkdir(parents=True, exist_ok=True)
    with (home / ".config/pip/pip.conf").open("w", encoding="utf-8") as file:
        settings.write(file)


def path() -> list[str]:
    """Return the folders of PATH with those of the nodes' Pythons that are here, without pyenv's."""
    own, *others = os.environ["PATH"].split(os.pathsep)
    pythons = [str(place.parent) for place in of_nodes().values()]
    # pyenv's folder has a shim for each version, and most of them only report that it is not selected.
    return list(dict.fromkeys([own, *pythons, *(folder for folder in others if Path(folder).name != "shims")]))
