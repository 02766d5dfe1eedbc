"""Which instances are started, restarted and stopped."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.service_units import (
    Instance,
    ServiceError,
    Steps,
    carry_out,
    decide,
    newest,
    present,
    read,
)

UNIT = "xpuserve@0.service"
#: What systemctl shows of an instance that runs.
RUNS = "ActiveState=active\nUnitFileState=enabled\nExecMainStartTimestampMonotonic=50000000\n"


class Systemd:
    """Answers as systemctl would, and remembers what it was asked."""

    def __init__(self, answers: dict[str, tuple[int, str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        text = " ".join(command)
        self.asked.append(text)
        return next((answer for start, answer in self.answers.items() if text.startswith(start)), (0, ""))


def test_the_start_is_told_by_the_wall_clock() -> None:
    unit = read(Systemd({"systemctl show": (0, RUNS)}), UNIT, now=1000.0, monotonic=60.0)
    assert unit == Instance(UNIT, True, "active", 990.0)


def test_a_unit_that_does_not_run_has_no_start() -> None:
    shown = "ActiveState=failed\nUnitFileState=\nExecMainStartTimestampMonotonic=50000000\n"
    assert read(Systemd({"systemctl show": (0, shown)}), UNIT, now=1000.0, monotonic=60.0).started == 0


def test_a_node_without_systemd_is_refused() -> None:
    with pytest.raises(ServiceError, match="a node with systemd"):
        read(Systemd({"systemctl": (1, "not booted")}), UNIT, now=1.0, monotonic=1.0)


def test_only_what_is_older_than_its_inputs_restarts() -> None:
    old, new = Instance("a", True, "active", 10.0), Instance("b", True, "active", 30.0)
    assert decide([old, new], [], 20.0) == Steps(restart=["a"])
    assert not decide([new], [], 20.0).any


def test_what_systemd_has_read_before_it_changed_is_read_again_and_restarts() -> None:
    systemd = Systemd({"systemctl show": (0, f"{RUNS}NeedDaemonReload=yes\n")})
    unit = read(systemd, UNIT, now=1000.0, monotonic=60.0)
    assert "NeedDaemonReload" in systemd.asked[0]
    steps = decide([unit], [], 20.0)
    assert steps == Steps(reload=[UNIT], restart=[UNIT])
    carry_out(systemd, steps)
    assert systemd.asked.index("systemctl daemon-reload") < systemd.asked.index(f"systemctl restart {UNIT}")
    stopped = Instance("a", True, "inactive", 0.0, outdated=True)
    assert decide([stopped], [], 20.0) == Steps(reload=["a"], start=["a"])
    loading = Instance("a", True, "activating", 30.0, outdated=True)
    assert decide([loading], [], 20.0) == Steps(reload=["a"], restart=["a"])


@pytest.mark.parametrize("more", [[], [4242]])
def test_a_process_with_other_groups_than_its_user_restarts(tmp_path: Path, more: list[int]) -> None:
    user = pwd.getpwuid(os.getuid())
    groups = [*os.getgrouplist(user.pw_name, user.pw_gid), *more]
    (tmp_path / "7").mkdir()
    (tmp_path / "7/status").write_text(f"Name:\tpython\nGroups:\t{' '.join(map(str, groups))} \nSeccomp:\t2\n")

    def seen(pid: int) -> Instance:
        shown = f"{RUNS}User={user.pw_name}\nMainPID={pid}\n"
        return read(Systemd({"systemctl show": (0, shown)}), UNIT, now=1000.0, monotonic=60.0, proc=tmp_path)

    assert decide([seen(7)], [], 20.0) == Steps(restart=[UNIT] * len(more))
    assert not decide([seen(8)], [], 20.0).any  # it has ended meanwhile


def test_reading_files_again_alone_is_something_to_do() -> None:
    assert Steps(reload=[UNIT]).any


def test_one_that_is_still_loading_is_waited_for_and_one_that_keeps_failing_is_started() -> None:
    assert decide([Instance("a", True, "activating", 30.0)], [], 20.0) == Steps(start=["a"])
    assert decide([Instance("a", True, "activating", 10.0)], [], 20.0) == Steps(restart=["a"])
    shown = "ActiveState=activating\nSubState=auto-restart\nExecMainStartTimestampMonotonic=50000000\n"
    assert read(Systemd({"systemctl show": (0, shown)}), UNIT, now=1000.0, monotonic=60.0).started == 0


def test_a_stopped_unit_starts_and_others_stop() -> None:
    steps = decide([Instance("a", False, "inactive", 0.0)], {"c", "b"}, 20.0)
    assert steps == Steps(enable=["a"], start=["a"], stop=["b", "c"])


def test_the_newest_input_counts_and_absent_ones_do_not(tmp_path: Path) -> None:
    for name, time in (("one", 100), ("two", 200)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time, time))
    assert newest([f"{tmp_path}/one", f"{tmp_path}/absent"]) == 100
    assert newest([f"{tmp_path}/t*"]) == 200
    assert newest([]) == 0


def test_instances_are_found_loaded_or_enabled(tmp_path: Path) -> None:
    wants = tmp_path / "multi-user.target.wants"
    wants.mkdir()
    (wants / "xpuserve@3.service").symlink_to("/nowhere")
    loaded = "xpuserve@0.service loaded active running Model\n"
    found = present(Systemd({"systemctl list-units": (0, loaded)}), "xpuserve", str(tmp_path))
    assert found == {"xpuserve@0.service", "xpuserve@3.service"}


def test_a_failure_carries_the_last_words_of_the_service() -> None:
    systemd = Systemd({"systemctl start": (1, "Job failed."), "journalctl": (0, "no such model\n")})
    with pytest.raises(ServiceError, match=r"Job failed\.\nno such model"):
        carry_out(systemd, Steps(enable=[UNIT], start=[UNIT]))
    assert systemd.asked[0] == "systemctl daemon-reload"
    assert f"systemctl enable {UNIT}" in systemd.asked


def test_what_does_not_fit_is_disabled_and_stopped() -> None:
    systemd = Systemd({})
    carry_out(systemd, Steps(stop=["xpuserve@1.service"]))
    assert "systemctl disable --now xpuserve@1.service" in systemd.asked


@pytest.mark.parametrize("state", ["masked", "masked-runtime"])
def test_a_masked_unit_is_unmasked_before_it_is_enabled(state: str) -> None:
    systemd = Systemd({"systemctl show": (0, f"ActiveState=inactive\nUnitFileState={state}\n")})
    unit = read(systemd, UNIT, now=1000.0, monotonic=60.0)
    steps = decide([unit], [], 20.0)
    assert steps == Steps(unmask=[UNIT], enable=[UNIT], start=[UNIT])
    carry_out(systemd, steps)
    verbs = [line.removeprefix("systemctl ").removesuffix(f" {UNIT}") for line in systemd.asked]
    assert verbs.index("unmask") < verbs.index("--runtime unmask") < verbs.index("enable") < verbs.index("start")
