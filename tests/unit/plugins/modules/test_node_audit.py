"""The audit finds one changed thing of a converged node, under its layer, and reports nothing as ok unchecked."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.audit.audits import (
    audit,
    summary,
)
from ansible_collections.xpu.fleet.plugins.module_utils.audit.node import AuditedNode
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import Report
from ansible_collections.xpu.fleet.plugins.module_utils.boot.files import (
    CONFIRMED,
)
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_settings import EnvironmentBlock
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
)
from ansible_collections.xpu.fleet.tests.unit.plugins.support.aptrepo import SigningKey
from ansible_collections.xpu.fleet.tests.unit.plugins.support.audited import (
    ENVIRONMENT,
    GRUB_SETTING,
    KERNEL,
    KEYRING,
    MODEL,
    NEWER,
    PID,
    PIN,
    SETTINGS,
    SOURCES,
    UNIT,
    UUID,
    Audited,
    service,
)
from ansible_collections.xpu.fleet.tests.unit.plugins.support.certificates import make
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module


@pytest.fixture
def node(tmp_path: Path, vendor: SigningKey) -> Iterator[Audited]:
    with service() as answers:
        yield Audited(tmp_path / "root", vendor, answers)


def states(layers: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: layer["status"] for name, layer in layers.items()}


def test_a_converged_node_is_in_order(node: Audited, tmp_path: Path) -> None:
    node.add_python(tmp_path / "wheels")
    found = node.audit()
    assert {name: layer["findings"] + layer["unseen"] for name, layer in found.items()} == {name: [] for name in NAMES}
    assert (set(states(found).values()), summary(found)) == ({"ok"}, "ok")


def edit(path: str, old: str, new: str) -> Callable[[Audited], object]:
    return lambda node: node.replace(path, old, new)


def remove(path: str) -> Callable[[Audited], object]:
    return lambda node: node.at(path).unlink()


def package(name: str, version: str) -> Callable[[Audited], object]:
    return lambda node: node.packages.update({name: version})


def unheld(name: str) -> Callable[[Audited], object]:
    return lambda node: node.held.remove(name)


def unit(**state: str) -> Callable[[Audited], object]:
    return lambda node: node.unit.update(state)


def grub_takes(entry: str) -> Callable[[Audited], object]:
    own = f"gnulinux-advanced-{UUID}>gnulinux-{KERNEL}-advanced-{UUID}"
    return edit("/boot/grub/grub.cfg", f'set default="{own}"', f'set default="{entry}"')


def next_boot(entry: str) -> Callable[[Audited], object]:
    def change(node: Audited) -> None:
        block = EnvironmentBlock()
        block.set("next_entry", entry)
        node.write("/boot/grub/grubenv", block.content())

    return change


def answers(**more: Any) -> Callable[[Audited], object]:
    return lambda node: node.answers.__dict__.update(more)


def other_weights(node: Audited) -> None:
    """Alter a byte; the size stays."""
    node.write(f"{MODEL}/tiny.gguf", "GGUF w3ights")
    os.utime(node.at(f"{MODEL}/tiny.gguf"), ns=(1, 1))


def second_card(node: Audited) -> None:
    node.expected["platform"]["gpus"].append({"address": "0000:07:00.0", "id": "8086:56a0"})


def other_password(node: Audited) -> None:
    plain = "https://repository.example.com"
    node.expected["repository"]["repositories"][0]["uris"] = [f"{plain.replace('//', '//user:new@')}/ubuntu"]
    node.replace(SOURCES, plain, plain.replace("//", "//user:old@"))


def restarted_late(node: Audited) -> None:
    os.utime(node.at(SETTINGS), (4e9, 4e9))


#: What is changed, the layer that has to notice, what it calls it, and what it says that it found.
DRIFT: dict[str, tuple[Callable[[Audited], object], str, str, str]] = {
    "distribution": (edit("/etc/os-release", "22.04", "24.04"), "platform", "release", "24.04"),
    "gpu gone": (second_card, "platform", "GPU at 0000:07:00.0", "none"),
    "dpkg cut off": (
        lambda node: node.write("/var/lib/dpkg/updates/0000", "x"), "platform", "interrupted work of dpkg", "0000",
    ),
    "sources edited": (edit(SOURCES, "arc", "main"), "repository", f"content of {SOURCES}", "Components: main"),
    "sources unreadable": (lambda node: node.at(SOURCES).chmod(0o600), "repository", f"mode of {SOURCES}", "0600"),
    "password of a mirror": (other_password, "repository", f"content of {SOURCES}", "others"),
    "sources removed": (remove(SOURCES), "repository", SOURCES, "absent"),
    "keyring unreadable": (lambda node: node.at(KEYRING).chmod(0o600), "repository", f"mode of {KEYRING}", "0600"),
    "leftover source": (
        lambda node: node.write("/etc/apt/sources.list.d/intel.list", "deb https://repository.example.com/u jammy arc"),
        "repository", f"sources files that contradict {SOURCES}", "/etc/apt/sources.list.d/intel.list",
    ),
    "proxy left": (
        lambda node: node.write("/etc/apt/apt.conf.d/51xpu-fleet-proxy", ""),
        "repository", "/etc/apt/apt.conf.d/51xpu-fleet-proxy", "present",
    ),
    "other kernel runs": (edit("/proc/sys/kernel/osrelease", KERNEL, NEWER), "kernel", "running kernel", NEWER),
    "default moved": (
        grub_takes(f"gnulinux-advanced-{UUID}>gnulinux-{NEWER}-advanced-{UUID}"), "kernel", "GRUB's default", NEWER,
    ),
    "default not booted": (
        lambda node: [node.write(f"/{path}", "boot-2\n") for path in ("proc/sys/kernel/random/boot_id", CONFIRMED)],
        "kernel", "boot of GRUB's default as such", "not since its trial",
    ),
    "default in recovery": (
        grub_takes(f"gnulinux-advanced-{UUID}>gnulinux-{KERNEL}-recovery-{UUID}"),
        "kernel", "GRUB's default entry", "-recovery-",
    ),
    "default by position": (remove(GRUB_SETTING), "kernel", f"content of {GRUB_SETTING}", "none"),
    "firmware at the next boot": (next_boot("uefi-firmware"), "kernel", "kernel for the next boot alone", "uefi-f"),
    "kernel at the next boot": (next_boot("0"), "kernel", "kernel for the next boot alone", NEWER),
    "kernel package changed": (
        package("linux-image-5.19.0-41-generic", "5.19.0-41.99"),
        "kernel", "package linux-image-5.19.0-41-generic", "5.19.0-41.99",
    ),
    "kernel let go": (
        unheld("linux-image-5.19.0-41-generic"), "kernel", "hold of linux-image-5.19.0-41-generic", "not held",
    ),
    "newer kernel came": (
        package("linux-image-6.8.0-45-generic", "6.8.0-45.45"),
        "kernel", "newer kernels and their metapackages", "linux-image-6.8.0-45-generic",
    ),
    "metapackage came": (
        package("linux-generic-hwe-22.04", "6.8"),
        "kernel", "newer kernels and their metapackages", "linux-generic-hwe-22.04",
    ),
    "initramfs gone": (remove(f"/boot/initrd.img-{KERNEL}"), "kernel", f"/boot/initrd.img-{KERNEL}", "absent"),
    "menu made without the initramfs": (
        edit("/boot/grub/grub.cfg", f"initrd\t/boot/initrd.img-{KERNEL}", ""),
        "kernel", "kernels whose initramfs is not in GRUB's menu", KERNEL,
    ),
    "driver upgraded": (package("intel-opencl-icd", "25.1"), "driver", "package intel-opencl-icd", "25.1"),
    "driver removed": (
        lambda node: node.packages.pop("intel-opencl-icd"), "driver", "package intel-opencl-icd", "absent",
    ),
    "driver let go": (unheld("intel-opencl-icd"), "driver", "hold of intel-opencl-icd", "not held"),
    "pin edited": (edit(PIN, "23.17", "*"), "driver", f"content of {PIN}", "sha256"),
    "file of another size": (
        lambda node: node.expected["driver"]["files"].update({PIN: {"size": 5}}), "driver", f"size of {PIN}", "45",
    ),
    "pin of another mode": (lambda node: node.at(PIN).chmod(0o600), "driver", f"mode of {PIN}", "0600"),
    "module not built": (
        remove(f"/var/lib/dkms/intel-i915-dkms/kernel-{KERNEL}-x86_64"),
        "driver", f"DKMS module intel-i915-dkms for {KERNEL}", "absent",
    ),
    "module not in place": (
        remove(f"/lib/modules/{KERNEL}/updates/dkms/i915.ko"),
        "driver", f"DKMS module intel-i915-dkms for {KERNEL}", "not in place: i915.ko",
    ),
    "other module loaded": (
        lambda node: node.write("/sys/module/i915/srcversion", "OLD\n"),
        "driver", "loaded module i915", "source version OLD",
    ),
    "gpu without driver": (
        remove("/sys/devices/0000:03:00.0/driver"), "driver", "driver of the GPU at 0000:03:00.0", "none",
    ),
    "render node gone": (remove("/dev/dri/renderD128"), "driver", "render node of the GPU at 0000:03:00.0", "absent"),
    "person left the group": (
        edit("/etc/group", "render:x:7109:alice,", "render:x:7109:"), "access", "alice in group render", "not a member",
    ),
    "service left the group": (
        edit("/etc/group", "video:x:7044:alice,xpuserve", "video:x:7044:alice"),
        "access", "xpuserve in group video", "not a member",
    ),
    "process without the group": (
        edit(f"/proc/{PID}/status", " 7109", ""), "access", f"process of {UNIT} in group render", "not a member",
    ),
    "service in another group": (
        edit("/etc/group", "xpuserve:x:7990:", "docker:x:7050:xpuserve\nxpuserve:x:7990:"),
        "access", "other groups of xpuserve", "docker",
    ),
    "process in another group": (
        edit(f"/proc/{PID}/status", " 7109", " 7109 7050"), "access", f"other groups of the process of {UNIT}", "7050",
    ),
    "service with a shell": (
        edit("/etc/passwd", "/usr/sbin/nologin", "/bin/sh"), "access", "shell of xpuserve", "/bin/sh",
    ),
    "user removed": (edit("/etc/passwd", "xpuserve:x", "other:x"), "access", "user xpuserve", "absent"),
    "oneapi upgraded": (package("intel-oneapi-mkl", "2024.0"), "oneapi", "package intel-oneapi-mkl", "2024.0"),
    "oneapi environment edited": (
        edit("/opt/intel/oneapi/setvars.sh", "/opt/intel/oneapi/mkl", "/opt/intel/oneapi/mkl2"),
        "oneapi", "/etc/xpuserve/oneapi.env: MKLROOT", "MKLROOT=/opt/intel/oneapi/mkl",
    ),
    "model corrupted": (other_weights, "model", f"weights in {MODEL}", "tiny.gguf was altered"),
    "model truncated": (
        lambda node: node.write(f"{MODEL}/tiny.gguf", "GGUF"), "model", f"weights in {MODEL}", "4 bytes instead of 12",
    ),
    "model of another source": (
        lambda node: node.expected["model"]["source"].update(location="https://models.example.com/other.gguf"),
        "model", f"weights in {MODEL}", "another source",
    ),
    "weights closed": (
        lambda node: node.at(f"{MODEL}/tiny.gguf").chmod(0o640),
        "model", f"files of {MODEL} that the service cannot read", f"{MODEL}/tiny.gguf",
    ),
    "way to the weights closed": (
        lambda node: node.at("/var/lib/xpu").chmod(0o750),
        "model", f"files of {MODEL} that the service cannot read", "/var/lib/xpu",
    ),
    "unit edited": (
        edit("/etc/systemd/system/xpuserve@.service", "/opt/xpu", "/tmp"),
        "service", "content of /etc/systemd/system/xpuserve@.service", "sha256",
    ),
    "keys readable": (
        lambda node: node.at("/etc/xpuserve/api_keys").chmod(0o644),
        "service", "mode of /etc/xpuserve/api_keys", "0644",
    ),
    "other weights in the settings": (
        edit(SETTINGS, "tiny.gguf", "other.gguf"), "service", f"{SETTINGS}: model.path", f"{MODEL}/other.gguf",
    ),
    "port changed": (edit(SETTINGS, "8000", "9000"), "service", f"{SETTINGS}: port", "9000"),
    "setting added": (edit(SETTINGS, '{"port"', '{"more": "/x", "port"'), "service", f"{SETTINGS}: more", "/x"),
    "setting removed": (edit(SETTINGS, '"port": 8000, ', ""), "service", f"{SETTINGS}: port", "not set"),
    "unit masked": (unit(LoadState="masked"), "service", UNIT, "masked"),
    "unit disabled": (unit(UnitFileState="disabled"), "service", f"{UNIT} at boot", "disabled"),
    "unit stopped": (unit(ActiveState="inactive"), "service", UNIT, "inactive"),
    "unit not read again": (unit(NeedDaemonReload="yes"), "service", f"unit file of {UNIT}", "changed since"),
    "settings newer than the process": (restarted_late, "service", f"{UNIT} with what is installed", "before it"),
    "instance too many": (
        lambda node: node.write("/etc/systemd/system/multi-user.target.wants/xpuserve@3.service", ""),
        "service", "instances that should not be there", "xpuserve@3.service",
    ),
    "environment of the process": (
        edit(f"/proc/{PID}/environ", "SYCL_CACHE_PERSISTENT=1", "SYCL_CACHE_PERSISTENT=0"),
        "service", f"SYCL_CACHE_PERSISTENT in the process of {UNIT}", "0",
    ),
    "wedged": (answers(ready=503), "service", "state of instance 0", "HTTP status 503"),
    "nonsense": (answers(text="#### ####"), "service", "answer of instance 0", "####"),
    "an error": (answers(status=500), "service", "answer of instance 0", "HTTP status 500"),
    "slow": (answers(tokens=0), "service", "speed of instance 0", "0.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", DRIFT)
def test_one_change_is_found_under_its_layer_and_nowhere_else(node: Audited, name: str) -> None:
    change, layer, what, says = DRIFT[name]
    change(node)
    found = node.audit()
    findings = {name: entry["findings"] for name, entry in found.items() if entry["findings"]}
    assert set(findings) == {layer}, findings
    (finding,) = findings[layer]
    assert finding["what"] == what
    assert says in finding["found"] and finding["expected"] != finding["found"]
    assert found[layer]["status"] == "drift"
    assert {status for other, status in states(found).items() if other != layer} <= {"ok", "not_applicable"}


def test_a_gpu_of_which_only_the_address_is_known_is_missed(node: Audited) -> None:
    node.expected["platform"]["gpus"].append({"address": "0000:07:00.0", "id": ""})
    (finding,) = node.audit()["platform"]["findings"]
    assert finding == {"what": "GPU at 0000:07:00.0", "expected": "a GPU", "found": "none"}


def kernel_findings(node: Audited, oldest: str) -> dict[str, str]:
    node.expected["kernel"] = {"at_least": oldest}
    return {finding["what"]: finding["found"] for finding in node.audit()["kernel"]["findings"]}


def test_a_kernel_that_is_new_enough_is_in_order_whichever_it_is(node: Audited) -> None:
    assert kernel_findings(node, "5.19.0-41") == {}
    old = kernel_findings(node, "5.19.0-42")
    assert old == {"running kernel": KERNEL, "GRUB's default": KERNEL}
    next_boot("0")(node)
    assert kernel_findings(node, "5.19.0-41")["kernel for the next boot alone"] == NEWER


def test_a_kernel_that_is_too_new_is_found(node: Audited) -> None:
    node.expected["kernel"] = {"at_least": "5.15", "before": "5.16"}
    found = {finding["what"]: finding for finding in node.audit()["kernel"]["findings"]}
    assert set(found) == {"running kernel", "GRUB's default"}
    assert found["running kernel"]["expected"] == "5.15 or newer and older than 5.16"
    node.expected["kernel"] = {"at_least": "5.19", "before": "5.20"}
    assert node.audit()["kernel"]["findings"] == []


def test_a_known_bad_combination_that_is_accepted_is_noted_only(node: Audited) -> None:
    node.expected["driver"]["stack"] = "arc-647"
    package("intel-opencl-icd", "25.18.33578.77-1")(node)
    node.expected["driver"]["packages"] = {}
    card = node.at("/sys/devices/0000:03:00.0")
    (card / "resource").write_text("\n".join(["0x0 0x0 0x0"] * 2 + ["0x4000000000 0x400fffffff 0x14220c"]))
    node.expected["driver"]["known_bad_accepted"] = ["small-bar-and-25.18"]
    driver = node.audit()["driver"]
    assert driver["findings"] == [] and any("small-bar-and-25.18" in note for note in driver["notes"])


def test_a_known_bad_combination_and_a_blocked_driver_are_found(node: Audited) -> None:
    node.expected["driver"]["stack"] = "arc-647"
    assert node.audit()["driver"]["findings"] == []
    package("intel-opencl-icd", "25.18.33578.77-1")(node)
    node.expected["driver"]["packages"] = {}
    card = node.at("/sys/devices/0000:03:00.0")
    (card / "resource").write_text("\n".join(["0x0 0x0 0x0"] * 2 + ["0x4000000000 0x400fffffff 0x14220c"]))
    node.write("/etc/modprobe.d/gpu.conf", "blacklist i915\n")
    driver = node.audit()["driver"]
    assert [finding["what"] for finding in driver["findings"]] == ["known-bad combinations"]
    assert "Resizable BAR" in driver["findings"][0]["found"]
    assert any("'blacklist i915' in /etc/modprobe.d/gpu.conf" in note for note in driver["notes"])
    remove("/sys/devices/0000:03:00.0/driver")(node)
    found = {finding["what"]: finding["found"] for finding in node.audit()["driver"]["findings"]}
    assert "blacklist i915" in found["obstacle for a driver at GPU 0000:03:00.0"]


def test_a_drained_instance_is_noted_and_no_drift(node: Audited) -> None:
    node.write("/etc/xpuserve/drain-0", "fan is broken\n")
    found = node.audit()["service"]
    assert found["status"] == "ok"
    assert found["notes"] == ["gateways send instance 0 nothing: fan is broken (since an unknown time)"]


def test_a_node_that_uses_no_gpu_may_have_one(node: Audited) -> None:
    del node.expected["platform"]["gpus"]
    assert node.audit()["platform"]["status"] == "ok"


@pytest.mark.parametrize(
    ("change", "what", "says"),
    [
        ("alpha.py", f"{ENVIRONMENT}: alpha-1.0.dist-info", "damaged"),
        ("alpha-1.0.dist-info", f"{ENVIRONMENT}: alpha", "absent"),
    ],
)
def test_the_environment_of_the_engine_is_compared_file_by_file(
    node: Audited, tmp_path: Path, change: str, what: str, says: str
) -> None:
    node.add_python(tmp_path / "wheels")
    (place,) = node.at(ENVIRONMENT).glob(f"lib/python*/site-packages/{change}")
    if place.is_dir():
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
    else:
        place.unlink()
    found = node.audit()["python"]
    assert found["status"] == "drift"
    assert (what, says) in [(finding["what"], finding["found"]) for finding in found["findings"]]


def test_a_file_of_the_engine_that_was_altered_is_found_by_its_content(node: Audited, tmp_path: Path) -> None:
    node.add_python(tmp_path / "wheels")
    (place,) = node.at(ENVIRONMENT).glob("lib/python*/site-packages")
    content, later = (place / "alpha.py").read_text(), (place / "alpha-1.0.dist-info/RECORD").stat().st_mtime + 1
    for text, status in ((content.replace("1.0", "6.6"), "drift"), (content, "ok")):
        (place / "alpha.py").write_text(text)
        os.utime(place / "alpha.py", (later, later))
        assert node.audit()["python"]["status"] == status


def test_versions_are_those_that_are_there_also_where_others_are_expected(node: Audited, tmp_path: Path) -> None:
    node.add_python(tmp_path / "wheels")
    node.packages["intel-opencl-icd"] = "99"
    del node.packages["intel-oneapi-mkl"]
    found = node.audit()
    assert found["driver"]["versions"] == {"intel-opencl-icd": "99"}
    assert found["oneapi"]["versions"] == {}
    assert found["python"]["versions"]["alpha"] == "1.0"


def test_foreign_keys_in_a_keyring_are_found(node: Audited, stranger: SigningKey) -> None:
    node.write(KEYRING, stranger.binary)
    (finding,) = node.audit()["repository"]["findings"]
    assert finding == {
        "what": f"keys of {KEYRING}",
        "expected": node.expected["repository"]["repositories"][0]["fingerprints"][0],
        "found": stranger.fingerprint,
    }


def test_a_mirrors_password_is_in_no_report(node: Audited) -> None:
    other_password(node)
    (finding,) = node.audit()["repository"]["findings"]
    assert finding["expected"] == "the mirror's user and password"
    node.replace(SOURCES, "arc", "main")
    mirror = "https://user:new@repository.example.com/ubuntu"
    node.write("/etc/apt/sources.list.d/mixed.list", f"deb {mirror} jammy arc\ndeb {mirror}-more jammy arc\n")
    found = node.audit()["repository"]
    assert "https://***@repository.example.com/ubuntu-more" in found["unseen"][0]["why"]
    assert ":new" not in str(found) and ":old" not in str(found)


def test_a_service_that_is_gone_gives_no_answer(node: Audited) -> None:
    node.expected["service"]["urls"] = ["http://127.0.0.1:9"]
    (finding,) = node.audit()["service"]["findings"]
    assert (finding["what"], finding["found"][:5]) == ("state of instance 0", "no an")


def test_a_service_is_known_by_its_certificate_whatever_name_that_is_for(tmp_path: Path, vendor: SigningKey) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*make(tmp_path, "node.example.com"))
    with service(tls) as answers:
        node = Audited(tmp_path / "root", vendor, answers)
        node.expected["service"]["certificate"] = "/etc/xpuserve/tls.pem"
        node.write("/etc/xpuserve/tls.pem", (tmp_path / "tls.pem").read_text())
        assert node.audit()["service"]["status"] == "ok"
        node.write("/etc/xpuserve/tls.pem", make(tmp_path, "node.example.com").certificate.read_text())
        (finding,) = node.audit()["service"]["findings"]
        assert "CERTIFICATE_VERIFY_FAILED" in finding["found"]


def test_a_service_that_has_enough_to_do_is_not_called_broken(node: Audited) -> None:
    node.answers.status = 429
    node.expected["service"]["prompt"]["seconds"] = 1.5
    found = node.audit()["service"]
    assert len(node.answers.asked) == 2
    assert (found["status"], found["findings"]) == ("not_looked_at", [])
    assert found["unseen"] == [{"what": "answer of instance 0", "why": "its queue is full"}]


def test_a_service_that_has_room_again_is_asked_again(node: Audited) -> None:
    node.answers.full_for = 1
    found = node.audit()["service"]
    assert (found["status"], len(node.answers.asked)) == ("ok", 2)


def test_the_service_is_asked_with_its_key(node: Audited) -> None:
    node.audit()
    audit(AuditedNode(node.root, node.expected, node.run, api_key="secret"), ["service"])
    assert [question["key"] for question in node.answers.asked] == ["", "Bearer secret"]


def test_a_slow_answer_is_asked_for_once_more(node: Audited) -> None:
    node.expected["service"]["prompt"]["tokens_per_second"] = 1e9
    assert [finding["what"] for finding in node.audit()["service"]["findings"]] == ["speed of instance 0"]
    assert len(node.answers.asked) == 2
    node.expected["service"]["prompt"]["tokens_per_second"] = 0.5
    node.audit()
    assert len(node.answers.asked) == 3


def test_a_layer_that_is_wholly_absent_is_missing(node: Audited) -> None:
    node.expected = {"oneapi": {"packages": {"intel-oneapi-ccl": "1"}, "files": {"/etc/xpuserve/none.env": {}}}}
    assert node.audit()["oneapi"]["status"] == "missing"


def test_what_nothing_is_expected_of_is_never_ok(node: Audited) -> None:
    node.expected = {"kernel": {"not_applicable": "it belongs to the host"}, "oneapi": {}, "model": {"name": "x"}}
    found = node.audit()
    assert states(found) == {
        **dict.fromkeys(NAMES, "not_looked_at"),
        "kernel": "not_applicable",
        "oneapi": "not_applicable",
    }
    assert found["kernel"]["reason"] == "it belongs to the host"
    assert found["service"]["reason"] == "no expected state is set"
    assert summary(found) == "not_looked_at"


def test_an_expectation_that_a_layer_does_not_know_is_never_ok(node: Audited) -> None:
    node.expected["oneapi"]["pakages"] = {}
    found = node.audit()["oneapi"]
    assert found["status"] == "not_looked_at"
    assert found["unseen"][0]["why"] == "ExpectationError: layer oneapi does not know pakages"


@pytest.mark.parametrize("layer", NAMES)
def test_an_error_inside_a_layer_is_never_ok(node: Audited, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("https://user:pa55word@mirror.example.com broke")

    node.expected["python"] = {"directory": ENVIRONMENT, "interpreter": "/usr/bin/python3", "requirements": ""}
    monkeypatch.setattr(Report, "compare", fails)
    found = node.audit()[layer]
    assert found["status"] == "not_looked_at"
    assert {unseen["why"] for unseen in found["unseen"]} == {"RuntimeError: https://***@mirror.example.com broke"}


def test_without_packages_to_read_nothing_about_packages_is_known(node: Audited) -> None:
    node.audit()
    node.at("/var/lib/dpkg/status").unlink()
    found = audit(AuditedNode(node.root, node.expected, node.run), ["driver"])["driver"]
    assert found["status"] == "not_looked_at"
    assert "no /var/lib/dpkg/status" in found["unseen"][0]["why"]


def test_dpkg_is_read_once_and_systemd_asked_once(node: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read: list[str] = []
    content, answer = AuditedNode.content, node.run

    def remember(self: AuditedNode, path: str) -> bytes | None:
        read.append(path)
        return content(self, path)

    def ask(command: list[str]) -> tuple[int, str, str]:
        asked.append(command[0])
        return answer(command)

    monkeypatch.setattr(AuditedNode, "content", remember)
    monkeypatch.setattr(node, "run", ask)
    assert summary(node.audit()) == "ok"
    assert (read.count("/var/lib/dpkg/status"), asked.count("systemctl")) == (1, 1)


def test_what_only_root_can_read_is_named_as_not_looked_at(node: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    private = ("/etc/xpuserve/api_keys", f"/proc/{PID}/environ")
    content = AuditedNode.content

    def read(self: AuditedNode, path: str) -> bytes | None:
        if path in private:
            raise PermissionError(13, "Permission denied", path)
        return content(self, path)

    monkeypatch.setattr(AuditedNode, "content", read)
    found = node.audit()["service"]
    assert (found["status"], found["findings"]) == ("not_looked_at", [])
    assert [unseen["what"] for unseen in found["unseen"]] == [private[0], f"environment of {UNIT}"]
    assert found["unseen"][0]["why"] == f"{private[0]} can only be read by another user"
    node.unit["ActiveState"] = "failed"
    assert node.audit()["service"]["status"] == "drift"


def test_what_lies_in_a_private_directory_is_neither_absent_nor_damaged(
    node: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.add_python(tmp_path / "wheels")
    private = ("/opt/xpu", MODEL, "/etc/apt/apt.conf.d")
    stat, content = Path.stat, AuditedNode.content

    def refuse(path: str) -> None:
        if path.startswith(private):
            raise PermissionError(13, "Permission denied", path)

    def look(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        refuse(f"/{self.relative_to(node.root)}" if self.is_relative_to(node.root) else "")
        return stat(self, follow_symlinks=follow_symlinks)

    def read(self: AuditedNode, path: str) -> bytes | None:
        refuse(path)
        return content(self, path)

    node.audit()
    monkeypatch.setattr(Path, "stat", look)
    monkeypatch.setattr(AuditedNode, "content", read)
    found = audit(AuditedNode(node.root, node.expected, node.run))
    assert [entry for layer in found.values() for entry in layer["findings"]] == []
    assert {name for name, status in states(found).items() if status == "not_looked_at"} >= {"repository", "python"}
    assert found["model"]["status"] == "not_looked_at"


@pytest.mark.parametrize(("mode", "status"), [(0o600, "drift"), (0o666, "ok")])
def test_a_device_is_opened_as_the_service(mode: int, status: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        device = Path(directory) / "renderD128"
        Path(directory).chmod(0o755)
        device.touch()
        device.chmod(mode)
        expected = {"service": {"name": "nobody"}, "devices": [str(device)]}
        found = audit(AuditedNode(Path("/"), {"access": expected}), ["access"])["access"]
    if os.geteuid() != 0:
        assert (found["status"], found["unseen"][0]["why"]) == ("not_looked_at", "only root can check as another user")
        return
    assert found["status"] == status
    assert [finding["found"] for finding in found["findings"]] == (
        [f"[Errno 13] Permission denied: '{device}'"] if status == "drift" else []
    )


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_mtime_ns, path.lstat().st_size, path.lstat().st_mode)
        for path in sorted(root.rglob("*"))
    }


def test_the_audit_changes_nothing(node: Audited, tmp_path: Path) -> None:
    node.add_python(tmp_path / "wheels")
    node.audit()
    before = snapshot(node.root)
    run_module("node_audit", root=str(node.root), expected=node.expected)
    assert snapshot(node.root) == before


def test_the_module_names_the_state_and_takes_layers(node: Audited) -> None:
    node.audit()
    result = run_module("node_audit", root=str(node.root), expected=node.expected, layers=["platform", "model"])
    assert (result["changed"], result["status"], set(result["layers"])) == (False, "ok", {"platform", "model"})
    refused = run_module("node_audit", root=str(node.root), expected={}, layers=["drivers"])
    assert "value of layers must be one or more of" in refused["msg"]
