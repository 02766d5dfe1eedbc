"""The benchmark of site.yml counts the entries of journals and recaps, and its table shows the counts."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.tests.bench import fleet as bench
from ansible_collections.xpu.fleet.tests.bench.fleet import BenchError, Cost
from rig import cache
from rig.fleet import Fleet

JOURNAL = """\
Nov 24 04:00:01 n1 sshd[101]: Accepted publickey for admin from 10.77.15.1 port 40000 ssh2: ED25519 SHA256:x
Nov 24 04:00:01 n1 sudo[103]:    admin : PWD=/home/admin ; USER=root ; COMMAND=/bin/sh -c 'echo Accepted publickey'
Nov 24 04:00:02 n1 ansible-ansible.legacy.setup[104]: Invoked with gather_subset=['!all']
Nov 24 04:00:02 n1 python3[105]: ansible-ansible.legacy.command Invoked with _raw_params=old
Nov 24 04:00:03 n1 ansible-xpu.fleet.node_audit[106]: Invoked with api_key=NOT_LOGGING_PARAMETER
Nov 24 04:00:03 n1 sshd-session[107]: Accepted publickey for admin from 10.77.15.1 port 40002 ssh2: ED25519 SHA256:x
"""
RECAP = """\
PLAY RECAP *******
n1                         : ok=33   changed=0    unreachable=0    failed=0    skipped=9    rescued=0    ignored=0
n2                         : ok=33   changed=2    unreachable=0    failed=0    skipped=9    rescued=0    ignored=0
"""
COSTS = [
    Cost(1, "converged", 5.0, 4.0, 5, 3, 1),
    Cost(1, "converged, forced", 25.0, 16.0, 150, 120, 1),
    Cost(20, "converged", 12.5, 11.6, 5, 3, 1),
]
PINGS = [Cost(1, "ping", 1.0, 0.5, 1, 1, 1), Cost(20, "ping", 2.0, 2.4, 1, 1, 1)]


def test_a_journal_is_counted_without_the_connection_that_reads_it() -> None:
    assert bench.counted(JOURNAL) == (3, 1)


def test_changes_are_counted_by_node_and_a_failure_is_no_result() -> None:
    assert bench.recap(RECAP) == {"n1": (0, 42), "n2": (2, 42)}
    for output in ("ERROR! no such playbook", RECAP.replace("failed=0", "failed=1", 1)):
        with pytest.raises(BenchError, match="the run failed"):
            bench.recap(output)
    with pytest.raises(BenchError, match="the run failed"):
        bench.recap(RECAP.replace("unreachable=0", "unreachable=1", 1))


def test_medians_of_times_and_the_most_of_counts() -> None:
    costs = [Cost(5, "converged", wall, 10 * wall, 5, modules, 1) for wall, modules in ((3.0, 3), (1.0, 4), (2.0, 3))]
    assert bench.median(costs) == Cost(5, "converged", 2.0, 20.0, 5, 4, 1)


def test_the_table_compares_with_the_forced_run_where_there_is_one() -> None:
    assert bench.rows(COSTS) == [
        ["1", "converged", "5.0", "4.0", "5", "3", "1", "0.20", "0.25"],
        ["1", "converged, forced", "25.0", "16.0", "150", "120", "1", "-", "-"],
        ["20", "converged", "12.5", "11.6", "5", "3", "1", "-", "-"],
    ]
    head, *lines = bench.text(COSTS).splitlines()
    assert head.split()[:2] == ["nodes", "run"] and {len(line) for line in lines} == {len(head)}


def test_many_nodes_are_compared_with_few() -> None:
    assert bench.growth(COSTS) == ["converged: 20 nodes take 2.50 times the wall time, 2.90 times the CPU of 1"]


def test_a_converged_node_is_compared_with_a_ping() -> None:
    assert bench.against_ping(COSTS + PINGS) == [
        "a further converged node takes 0.40 s of CPU, 4.0 times the 0.10 s of a ping",
        "20 converged nodes take 2.50 times the wall time of 1, 1.25 times what it is for ping (2.00)",
    ]
    assert bench.against_ping(COSTS) == bench.against_ping(COSTS + PINGS[:1]) == []


def test_nodes_that_answered_a_ping_are_counted() -> None:
    answers = 'n1 | SUCCESS => {\n    "ping": "pong"\n}\nn2 | UNREACHABLE! => {}\n'
    assert bench.pinged(answers) == {"n1": (0, 1)}


def test_the_document_has_command_date_and_machine() -> None:
    when = datetime(2026, 11, 24, 4, 30, tzinfo=timezone.utc)
    said = bench.markdown(COSTS, "make bench-fleet", when, "2 processors")
    assert "`make bench-fleet` on 2026-11-24 04:30 UTC, 2 processors." in said
    table = [line for line in said.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {len(bench.HEAD) + 1} and len(table) == 2 + len(COSTS)
    assert said.endswith("of 1\n")


@pytest.mark.parametrize(("words", "says"), [(["--nodes", "0"], "from 1 to 200"), (["--fresh", ""], "from 1 to 200")])
def test_numbers_that_make_no_fleet_are_refused(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench.parser().parse_args(words)
    assert says in capsys.readouterr().err


def test_a_fleet_of_copies_starts_from_the_disk_that_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rig.node.layer", lambda userland: Path("/layer"))
    monkeypatch.setattr("rig.node.base", lambda suite: Path("/base"))
    for name, folder in {"ROOT": "", "RUN": "run"}.items():
        monkeypatch.setattr(cache, name, tmp_path / folder)
    monkeypatch.setattr(Fleet, "_clear_leftovers", lambda self: None)  # nothing runs
    fleet = bench.fleet_of(2)
    written = fleet.nodes[0].folder / "upper/etc/xpuserve"
    written.mkdir(parents=True)
    disk = fleet.keep("n1")
    assert (disk / "etc/xpuserve").is_dir() and not written.exists()
    copies = bench.fleet_of(20, disk)
    assert len({node.address for node in copies.nodes}) == 20 and copies.gateway == "10.77.15.1"
    assert copies.nodes[19].layers() == [disk, Path("/layer"), Path("/base")]
    assert bench.fleet_of(1).nodes[0].layers() == [Path("/layer"), Path("/base")]
