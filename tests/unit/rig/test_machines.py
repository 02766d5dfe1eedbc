"""Virtual machines of the rig, tested without starting one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import cache, cli, contents, debian, golden, host, kernels, linux, miniconda, qemu, stacks, wheels
from rig.fleet import Fleet
from rig.host import RigError
from rig.machine import Machine
from rig.node import Node

ENTRY = {"name": "m", "kind": "machine", "userland": "ubuntu2204", "address": "10.77.9.11"}


def hardware(folder: Path, accelerator: str = "tcg") -> qemu.Hardware:
    """A machine that is never started."""
    return qemu.Hardware("m", folder, folder / "disk.qcow2", "tap9", "52:54:00:00:00:01", **qemu.choice(accelerator))


def test_a_node_is_a_container_unless_it_says_otherwise() -> None:
    assert not Node.parse("f", {**ENTRY, "kind": "container"}).is_machine
    assert not Node.parse("f", {key: value for key, value in ENTRY.items() if key != "kind"}).is_machine
    assert Node.parse("f", ENTRY).is_machine


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "cloud"}, "kinds: container, machine"),
        ({"userland": "debian12"}, "have the userland ubuntu2204"),
        ({"gpus": [{"id": "56a0"}]}, "a GPU of their own"),
        ({"models": True}, "without models"),
        ({"disk": "/run/disk"}, "or disk"),
    ],
)
def test_a_wrong_machine_is_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(RigError, match=f"platform m: .*{said}"):
        Node.parse("f", {**ENTRY, **change})


def test_a_fleet_knows_whether_it_has_machines(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(json.dumps({"platforms": [ENTRY, {**ENTRY, "kind": "container", "name": "c"}]}))
    fleet = Fleet.load("x", path)
    assert fleet.has_machines
    assert [node.name for node in fleet.containers] == ["c"]
    assert not Fleet.load("demo").has_machines


def test_only_machines_need_a_hypervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert "qemu-system-x86" not in host.missing_packages()
    assert {"qemu-system-x86", "qemu-utils", "nbdkit", "e2fsprogs"} <= set(host.missing_packages(machines=True))
    assert cli.parser().parse_args(["prepare", "--machines"]).machines
    with pytest.raises(RigError, match="rig prepare --machines"):
        host.require_tools(machines=True)


def test_the_mirror_has_a_kernel_that_boots_only_for_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for module, name in ((debian, "mirror"), (miniconda, "installers"), (wheels, "house"), (wheels, "model")):
        monkeypatch.setattr(module, name, lambda *_: Path("/x"))
    monkeypatch.setattr(stacks, "vendor", lambda _: Path(__file__).parent)
    monkeypatch.setattr(contents, "public_keys", lambda: Path("/x"))
    for name in ("distribution", "machine_distribution"):
        monkeypatch.setattr(stacks, name, lambda codename, name=name: asked.append((name, codename)))
    contents.mounts([Node.parse("f", {**ENTRY, "kind": "container"})])
    contents.mounts([Node.parse("f", ENTRY)])
    assert asked == [("distribution", "jammy"), ("machine_distribution", "jammy")]


def test_two_machines_share_neither_address_nor_port() -> None:
    first, second = (Machine(Node.parse("f", {**ENTRY, "address": f"10.77.9.{n}"}), Path("/")) for n in (11, 12))
    assert (first.mac, first.tap) == ("52:54:00:4d:09:0b", "xpu9t11")
    assert first.mac != second.mac
    assert first.tap != second.tap


def test_a_machine_of_no_fleet_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "RUN", tmp_path)
    with pytest.raises(RigError, match="no fleet x is up"):
        Machine.of("x", "m")
    (tmp_path / "x").mkdir()
    state = {"definition": {"platforms": [ENTRY]}, "layers": {"m": ["/golden"]}}
    (tmp_path / "x/state.json").write_text(json.dumps(state))
    assert Machine.of("x", "m").image == Path("/golden")
    with pytest.raises(RigError, match="no virtual machine other"):
        Machine.of("x", "other")


def disk_of(command: list[str]) -> dict[str, object]:
    """The disk that a command line names."""
    return dict(json.loads(command[command.index("-blockdev") + 1]))


@pytest.mark.parametrize(("deaf", "works"), [(0, True), (2, True), (3, False)])
def test_a_copy_that_hears_nothing_begins_anew_a_few_times(
    deaf: int, works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "RUN", tmp_path)
    monkeypatch.setattr(Machine, "hardware", hardware(tmp_path))
    tried: list[float] = []
    done: list[str] = []

    def configure(_machine: Machine, _files: object, timeout: float) -> None:
        tried.append(timeout)
        if len(tried) <= deaf:
            raise RigError("the machine did not say it")

    monkeypatch.setattr(Machine, "_configure", configure)
    monkeypatch.setattr(Machine, "wait", lambda _machine, _timeout: done.append("wait"))
    monkeypatch.setattr(Machine, "save", lambda _machine, name: done.append(name))
    node = Node.parse("f", ENTRY)
    machine = Machine(node, tmp_path)
    if works:
        machine.create({})
    else:
        with pytest.raises(RigError, match="did not say it"):
            machine.create({})
    assert len(tried) == min(deaf + 1, 3)
    assert tried == sorted(tried)
    assert (done == ["wait", "ready"]) == works == node.configured.exists()


def test_a_lossy_disk_waits_for_flushes_and_an_ordinary_one_for_nothing(tmp_path: Path) -> None:
    ordinary = disk_of(hardware(tmp_path).command())
    assert ordinary["cache"] == {"no-flush": True}
    lossy = disk_of(hardware(tmp_path).command(block=tmp_path / "nbd"))
    assert "no-flush" not in json.dumps(lossy)
    assert lossy["file"] == {"driver": "nbd", "server": {"type": "unix", "path": str(tmp_path / "nbd")}}


def test_the_accelerator_is_in_the_command_line(tmp_path: Path) -> None:
    assert "tcg,thread=multi" in hardware(tmp_path).command()
    assert "kvm" in hardware(tmp_path, "kvm").command()


def test_kvm_is_tried_where_it_opens_on_a_processor_that_has_what_it_needs(tmp_path: Path) -> None:
    device, processor = tmp_path / "kvm", tmp_path / "cpuinfo"
    for extension in ("vmx", "svm"):
        processor.write_text(f"flags\t\t: fpu {extension} aes\nvmx flags\t: ept\n")
        device.unlink(missing_ok=True)
        assert qemu.candidates({}, device, processor) == ["tcg"]
        device.touch()
        assert qemu.candidates({}, device, processor) == ["kvm", "tcg"]
    assert qemu.candidates({"XPU_FLEET_ACCEL": "tcg"}, device, processor) == ["tcg"]
    processor.write_text("model name\t: vmx\nflags\t\t: fpu aes xsvm\n")
    assert qemu.candidates({}, device, processor) == ["tcg"]
    assert qemu.candidates({"XPU_FLEET_ACCEL": "kvm"}, device, processor) == ["kvm"]
    with pytest.raises(RigError, match="XPU_FLEET_ACCEL=hax: choose one of kvm, tcg"):
        qemu.candidates({"XPU_FLEET_ACCEL": "hax"}, device, processor)


def test_a_process_id_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    pidfile = tmp_path / "qemu.pid"
    assert qemu.live(pidfile, "python") is None
    pidfile.write_text(f"{os.getpid()}\n")
    assert qemu.live(pidfile, "python") is None
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", str(pidfile)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()  # a program that only begins has no command line yet
        pidfile.write_text(f"{process.pid}\n")
        assert qemu.live(pidfile, "qemu-system") is None
        assert qemu.live(pidfile, "python") == process.pid
        qemu.kill(pidfile, "python")
        assert process.wait(60) == -9


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Path]:
    """A monitor that greets, tells an event, refuses one command and knows the others."""
    path = tmp_path / "qmp"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            with connection, connection.makefile("rw") as stream:
                stream.write('{"QMP": {}}\n')
                stream.flush()
                while line := stream.readline():
                    command = json.loads(line)["execute"]
                    answer = {"error": {"desc": "no such disk"}} if command == "bad" else {"return": command}
                    stream.write(json.dumps({"event": "STOP"}) + "\n" + json.dumps(answer) + "\n")
                    stream.flush()

    threading.Thread(target=serve, daemon=True).start()
    yield path
    server.close()


def test_the_monitor_answers_one_connection_after_the_other(monitor: Path) -> None:
    for _ in range(2):
        with qemu.Monitor(monitor, timeout=60) as connection:
            assert connection.execute("query-status") == "query-status"
            with pytest.raises(RigError, match="QEMU refuses bad: no such disk"):
                connection.execute("bad")


def test_nobody_at_the_monitor_is_told(tmp_path: Path) -> None:
    with pytest.raises(RigError, match="no virtual machine answers"):
        qemu.Monitor(tmp_path / "qmp")


def test_the_disk_has_one_partition_that_boots() -> None:
    sector = golden.partition_table(1 << 30)
    assert len(sector) == 512
    assert sector[446] == 0x80
    assert int.from_bytes(sector[454:458], "little") == 2048
    assert int.from_bytes(sector[458:462], "little") == (1 << 30) // 512 - 2048


def test_the_origin_kernel_is_the_newest_but_one() -> None:
    names = [f"linux-image-6.1.0-{number}-cloud-amd64" for number in (9, 50, 47)]
    assert golden.cloud_kernels([*names, "linux-image-6.1.0-60-amd64", f"{names[0]}-dbg"]) == (
        "6.1.0-47-cloud-amd64",
        "6.1.0-50-cloud-amd64",
    )
    with pytest.raises(RigError, match="1 cloud kernel"):
        golden.cloud_kernels(names[:1])


def test_the_metapackages_follow_a_kernel() -> None:
    made = {package.name: package for package in golden.metapackages("6.1.0-47-cloud-amd64")}
    assert made["linux-image-generic-hwe-22.04"].depends == ["linux-image-6.1.0-47-cloud-amd64"]
    assert made["linux-headers-generic-hwe-22.04"].depends == ["linux-headers-6.1.0-47-cloud-amd64"]
    assert len(made["linux-generic-hwe-22.04"].depends) == 2


def test_the_kernels_makefile_gets_the_releases_numbers() -> None:
    text = "VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 3\nEXTRAVERSION =\nNAME = x\n"
    assert linux.makefile(text, "5.19.0-41-generic").splitlines()[:4] == [
        "VERSION = 5",
        "PATCHLEVEL = 19",
        "SUBLEVEL = 0",
        "EXTRAVERSION = -41-generic",
    ]
    with pytest.raises(RigError, match="SUBLEVEL"):
        linux.makefile("VERSION = 6\nPATCHLEVEL = 1\nEXTRAVERSION =\n", "5.19.0-41-generic")


def test_an_option_that_the_kernel_dropped_is_told() -> None:
    assert linux.missing(linux.settings()) == []
    assert linux.missing(linux.settings().replace("CONFIG_VIRTIO_NET=m", "")) == ["CONFIG_VIRTIO_NET=m"]


def test_the_module_of_a_dkms_package_says_which_version_it_is() -> None:
    for module in ("i915", "mei"):
        source = kernels.module_source("some-dkms", module, "1.2+i3-1")
        assert 'MODULE_VERSION("1.2+i3-1")' in source
        assert "@" not in source


def test_a_machine_starts_its_programs_at_the_same_addresses_and_runs_no_more_of_them_than_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "run", lambda command, **_: (tmp_path / "etc/ssh").mkdir(exist_ok=True))
    for name in (*golden.NOT_RUN, "etc/grub.d/10_linux"):
        host.write(tmp_path / name, "#!/bin/sh\n", 0o755)
    for folder in ("etc/systemd/system/multi-user.target.wants", "var/log", "var/lib", "var/cache"):
        (tmp_path / folder).mkdir(parents=True)
    golden._configure(tmp_path)
    assert "norandmaps" in (tmp_path / "etc/default/grub").read_text()
    assert [name for name in golden.NOT_RUN if os.access(tmp_path / name, os.X_OK)] == []
    assert os.access(tmp_path / "etc/grub.d/10_linux", os.X_OK)
