"""The page, the JUnit file and the comparison with earlier audits agree exactly with the report."""

from __future__ import annotations

import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.audit.before import read_earlier, trend
from ansible_collections.xpu.fleet.plugins.module_utils.audit.junit import junit
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
)
from ansible_collections.xpu.fleet.plugins.plugin_utils.audit_files import audit_files
from ansible_collections.xpu.fleet.plugins.plugin_utils.audit_page import page
from ansible_collections.xpu.fleet.tests.unit.plugins.support.audit_fleet import (
    drift,
    every_state,
    layer,
    node,
    report,
    save,
)

ROOT = Path(__file__).resolve().parents[4]
EVIL = "<script>alert('&')</script>"


class Seen(HTMLParser):
    """What a browser would make of a page: its tags, its text, its anchors and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())
        self.ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, *names: str) -> list[str]:
        """The values of attributes of these names."""
        return [value or "" for _, attributes in self.tags for name, value in attributes.items() if name in names]


def test_the_page_says_every_state_in_words() -> None:
    seen = Seen(page(every_state()))
    for words in (
        "2026-11-24 01:00 UTC",
        "Some checks could not run",
        "1 in order 2 drifted 2 partly checked 1 not reached 1 left out by --limit",
        "Left out by --limit , and not looked at: flex1",
        "running kernel 5.19.0-41-generic 6.2.0-26-generic",
        "package intel-oneapi-mkl 2023.2.0-49495 absent",
        "GRUB's default: /boot/grub/grub.cfg can only be read by root",
        "not needed the stack has none",
        "arc6 unknown not reached",
        "old5 not looked at Resolve the stack: No stack fits this node.",
        "arc-647, engine bigdl on gpu System Ubuntu 22.04 Kernel 5.19.0-41-generic",
        "Intel Arc A770 at 0000:03:00.0, 16 GiB, driver i915 5.19.0-41-generic",
    ):
        assert words in seen.text


def test_the_page_needs_nothing_else_and_its_links_lead_somewhere() -> None:
    before = {"time": "2026-11-01T00:00:00Z", "nodes": {"arc2": dict.fromkeys(NAMES, "ok"), "arc6": {"kernel": "ok"}}}
    seen = Seen(page(every_state(), trend(every_state(), [before])))
    assert "No longer looked at: 1 arc6 : not reached" in seen.text
    links = seen.values("href", "src", "srcset", "action")
    assert [link for link in links if not link.startswith("#") and link != "data:,"] == []
    assert {link[1:] for link in links if link.startswith("#")} <= set(seen.ids)
    assert len(seen.ids) == len(set(seen.ids))
    assert not {tag for tag, _ in seen.tags} & {"script", "img", "iframe", "object"}
    assert [attributes for tag, attributes in seen.tags if tag == "th" and "scope" not in attributes] == []
    assert {"main", "header", "footer", "h1"} <= {tag for tag, _ in seen.tags}


def test_what_nodes_say_is_text() -> None:
    finding = dict.fromkeys(("what", "expected", "found"), EVIL)
    unseen = {"what": EVIL, "why": EVIL}
    evil = {
        **node(kernel=layer("drift", findings=[finding], unseen=[unseen], versions={EVIL: EVIL}, reason=EVIL)),
        **dict.fromkeys(("stack", "engine", "system", "kernel", "reason"), EVIL),
        "cards": [dict.fromkeys(("name", "address", "driver", "driver_version"), EVIL)],
    }
    fleet = report({EVIL: evil}, left_out=(EVIL,))
    text = page(fleet, trend(fleet, [{"time": "2026-11-01T00:00:00Z", "nodes": {EVIL + "2": {}}}]))
    assert "<script" not in text
    assert Seen(text).text.count(EVIL) > 15


@pytest.mark.parametrize("write", [page, junit])
def test_what_is_no_text_at_all_does_no_harm(write: Any) -> None:
    finding = {"what": "a", "expected": "\x00\x1b[31m", "found": "\udcff"}
    write(report({"a": node(model=drift(finding))})).encode()


def test_junit_has_a_suite_for_each_node_and_a_case_for_each_layer() -> None:
    root = ElementTree.fromstring(junit(every_state()))  # noqa: S314
    assert {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "63",
        "failures": "3",
        "errors": "19",
        "skipped": "10",
    }
    assert [suite.get("name") for suite in root] == ["arc1", "arc2", "arc3", "arc4", "old5", "arc6", "flex1"]
    assert {tuple(case.get("name") for case in suite) for suite in root} == {NAMES}
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    assert list(cases["arc1", "kernel"]) == [] and cases["arc1", "kernel"].get("time") == "0.250"
    failure = cases["arc2", "kernel"].find("failure")
    assert failure is not None and "found 6.2.0-26-generic\nhold of x: expected held" in (failure.text or "")
    assert [cases[place][0].tag for place in (("arc3", "oneapi"), ("arc4", "kernel"), ("arc4", "oneapi"))] == [
        "failure",
        "error",
        "skipped",
    ]
    assert cases["arc6", "model"][0].get("message") == "not reached"
    assert cases["flex1", "model"][0].get("message") == "left out by --limit"


def test_characters_that_xml_has_no_place_for_are_replaced() -> None:
    finding = {"what": "answer", "expected": "Paris & <b>", "found": "\x00\x1b\ufffe\ud800é😀"}
    root = ElementTree.fromstring(junit(report({"a": node(service=drift(finding))})))  # noqa: S314
    (failure,) = root.iter("failure")
    assert failure.text == "answer: expected Paris & <b>, found ����é😀"


def test_what_changed_since_the_newest_earlier_audit_is_told(tmp_path: Path) -> None:
    broken = {"driver": drift(), "model": drift()}
    paths = [
        save(tmp_path, "2026-11-22T00:00:00Z", {"a": node(**broken), "gone": node()}, "b"),
        save(tmp_path, "2026-11-20T00:00:00Z", {"a": node()}),
        save(tmp_path, "2026-11-21T00:00:00Z", {"a": node(**broken)}),
    ]
    now = report({"a": node(driver=drift(), kernel=layer("missing"), access=layer("not_looked_at")), "b": node()}, "c")
    found = trend(now, [read_earlier(path) for path in paths])
    assert (found["since"], found["gone"]) == ("2026-11-22T00:00:00Z", ["gone"])
    changes = found["changes"]["a"]
    assert changes["driver"] == {"change": "same", "was": "drift", "since": "2026-11-21T00:00:00Z"}
    assert {name: changes[name]["change"] for name in ("kernel", "model", "access", "python")} == {
        **{"kernel": "drifted", "model": "repaired", "access": "no longer checked", "python": "same"},
    }
    assert found["changes"]["b"]["kernel"] == {"change": "other", "was": "not_looked_at", "since": ""}
    assert found["changes"]["c"] == {}
    assert [(entry["time"][8:10], entry["drift"], entry["not_looked_at"]) for entry in found["history"]] == [
        ("20", 0, 0),
        ("21", 2, 0),
        ("22", 2, 9),
        ("24", 2, 10),
    ]
    text = Seen(page(now, found)).text
    assert "Newly drifted: 1 a, kernel : missing, was ok" in text
    assert "Repaired: 1 a, model : ok, was drift" in text
    assert "since 2026-11-21 00:00 UTC or longer" in text
    assert "2026-11-22 00:00 UTC: 2 not in order, 9 not looked at" in text
    assert "In no earlier audit: 1 c" in text and "No longer asked for: 1 gone" in text


def test_a_first_audit_has_no_trend() -> None:
    fleet = every_state()
    assert "Newly drifted" not in page(fleet, trend(fleet, []))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No earlier report at"),
        ("{", "is not JSON"),
        ("[]", "is not a report of an earlier audit"),
        ('{"time": "yesterday", "nodes": {}}', "is not a report of an earlier audit"),
        (
            '{"time": "2026-11-22T00:00:00Z", "nodes": {"a": {"layers": {"x": {"status": "fine"}}}}}',
            "is not a report of an earlier audit",
        ),
    ],
)
def test_an_earlier_report_that_is_none_is_named(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    (problem,) = audit_files({}, str(path))["problems"]
    assert str(path) in problem and says in problem


def test_a_glob_finds_earlier_reports_and_may_find_none(tmp_path: Path) -> None:
    save(tmp_path, "2026-11-22T00:00:00Z", {"a": node()})
    found = audit_files({}, [f"{tmp_path}/*.json", f"{tmp_path}/*.none"])
    assert found["problems"] == []
    assert json.loads(json.dumps(found["earlier"])) == [
        {"time": "2026-11-22T00:00:00Z", "nodes": {"a": dict.fromkeys(NAMES, "ok")}}
    ]


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left_of_the_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = {"json": f"{tmp_path}", "html": "no/such.html", "junit": "one.xml", "again": "one.xml", "none": ""}
    found = audit_files(wanted)
    assert found["problems"] == [
        f"json: {tmp_path} is a directory.",
        f"html: {tmp_path}/no/such.html cannot be written: No such file or directory.",
        f"{tmp_path}/one.xml is the path of two reports: set different paths.",
    ]
    assert found["places"]["none"] == "" and list(tmp_path.iterdir()) == []


def test_colours_are_readable_in_light_and_dark() -> None:
    """WCAG asks 4.5:1 of text; every state's colour stands on its own ground."""
    light, dark = re.findall(r":root \{(.*?)\n *\}", page(every_state()), re.S)
    for scheme in (light, dark):
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", scheme))
        grounds = {"good": "good-page", "bad": "bad-page", "open": "open-page", "quiet": "side", "main": "side"}
        for text, ground in {**grounds, "text": "page"}.items():
            first, second = sorted(map(luminance, (colours[text], colours[ground])))
            assert (second + 0.05) / (first + 0.05) >= 4.5, (text, ground)


def luminance(colour: str) -> float:
    """The relative luminance of a colour."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def run_audit(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the playbook from a folder on two nodes, of which --limit leaves one; it is not reached."""
    ssh = folder / "ssh"
    ssh.write_text("#!/bin/sh\necho away >&2\nexit 255\n")
    ssh.chmod(0o755)
    (folder / "hosts.ini").write_text(f"[all]\na\nb\n[all:vars]\nansible_ssh_executable={ssh}\n")
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    command = ["ansible-playbook", "-i", "hosts.ini", str(ROOT / "playbooks/audit.yml"), "--limit", "a", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_playbook_writes_all_of_it_where_the_operator_stands_and_in_check_mode(tmp_path: Path) -> None:
    earlier = save(tmp_path, "2026-11-22T00:00:00Z", {"a": node()})
    files = ["xpu_audit_json=now.json", "xpu_audit_html=now.html", "xpu_audit_junit=now.xml"]
    files.append("xpu_audit_before=*.json")
    run = run_audit(tmp_path, "--check", *(option for file in files for option in ("-e", file)))
    assert run.returncode == 2, run.stdout + run.stderr
    assert "left out by --limit: b" in run.stdout
    found = json.loads((tmp_path / "now.json").read_text())
    assert (found["nodes"]["a"]["reached"], found["left_out"]) == (False, ["b"])
    assert found["nodes"]["a"]["reason"].startswith("not reached: ")
    seen = Seen((tmp_path / "now.html").read_text()).text
    assert "Since 2026-11-22 00:00 UTC" in seen and "a unknown not reached" in seen and "not looked at: b" in seen
    assert ElementTree.parse(tmp_path / "now.xml").getroot().get("errors") == "9"  # noqa: S314
    assert earlier.is_file()


def test_files_that_cannot_be_had_end_the_run_before_a_node_is_looked_at(tmp_path: Path) -> None:
    run = run_audit(tmp_path, "-e", "xpu_audit_html=no/page.html", "-e", "xpu_audit_before=none.json")
    assert run.returncode == 2
    # ansible-core before 2.19 breaks lines, and doubles quotes within quotes.
    said = " ".join((run.stdout + run.stderr).split()).replace("''", "'")
    assert f"{tmp_path}/no/page.html cannot be written: No such file or directory. No earlier report at" in said
    assert "Read the node's system" not in run.stdout
