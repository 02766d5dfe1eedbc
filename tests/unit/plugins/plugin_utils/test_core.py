"""An unsupported ansible-core ends the run in one sentence, before anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.release import __version__
from ansible_collections.xpu.fleet.plugins.plugin_utils.core import OLDEST, require_core

ROOT = Path(__file__).resolve().parents[4]
PROMISED = ".".join(map(str, OLDEST))


@pytest.mark.parametrize("version", ["2.16.19", "2.9.27", "2.16.0rc1"])
def test_an_older_core_is_refused_by_its_name(version: str) -> None:
    with pytest.raises(AnsibleError, match=f"ansible-core {version}, and xpu.fleet needs {PROMISED} or newer"):
        require_core(version)


@pytest.mark.parametrize("version", [__version__, "2.17.0", "2.22.0.dev0", "3.0"])
def test_the_oldest_and_newer_ones_are_taken(version: str) -> None:
    require_core(version)


def test_all_that_says_which_core_is_needed_says_the_same() -> None:
    assert yaml.safe_load((ROOT / "meta/runtime.yml").read_text()) == {"requires_ansible": f">={PROMISED}.0"}
    roles = [yaml.safe_load(path.read_text()) for path in sorted(ROOT.glob("roles/*/meta/main.yml"))]
    assert roles and {role["galaxy_info"]["min_ansible_version"] for role in roles} == {PROMISED}
    assert f"ansible-core {PROMISED} or newer" in " ".join((ROOT / "README.md").read_text().split())


@pytest.mark.parametrize("playbook", sorted(path.name for path in (ROOT / "playbooks").glob("*.yml")))
def test_every_playbook_asks_before_its_first_task(playbook: str) -> None:
    first = yaml.safe_load((ROOT / "playbooks" / playbook).read_text())[0]
    while imported := first.get("ansible.builtin.import_playbook"):
        first = yaml.safe_load((ROOT / "playbooks" / imported).read_text())[0]
    assert "xpu.fleet.checked_run(" in first["hosts"]
