"""The disk and the memory that virtual machines start from: an installed, booted machine that waits for its name."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import time
from pathlib import Path
from typing import Any

from rig import cache, linux, qemu
from rig.deb import Package
from rig.host import RigError, run, say, unmount, write
from rig.userland import DEBIAN, USERLANDS, base, layer
from rig.wheels import stack_data

#: Packages of a bootable server, and compilers: no test is about their installation.
PACKAGES = [
    "initramfs-tools", "lz4", "grub-pc", "grub2-common", "gcc", "make", "libc6-dev", "dkms", "gawk", "e2fsprogs",
    "libpam-systemd", "kmod", "acl", "patch",
]  # fmt: skip
#: Packages for machines that containers do not need.
OFFERED = ["kexec-tools"]
IMAGE = re.compile(r"linux-image-(6\.1\.0-(\d+)-cloud-amd64)$")
FILESYSTEM = "6c6f6b61-6e6f-4d65-8d61-636872696e65"
PARTITION_START = 1 << 20
FIRST_BOOT_TIMEOUT = {"kvm": 60.0, "tcg": 900.0}
INSTALLED = "xpu-rig: the boot loader is installed"
READY = "xpu-rig: ready"

#: Slow or periodic units that no test is about.
MASKED = [
    "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "dpkg-db-backup.timer", "systemd-pstore.service",
    "systemd-networkd.service", "systemd-tmpfiles-clean.timer", "ldconfig.service",
    "systemd-binfmt.service",
    "getty@tty1.service", "serial-getty@ttyS0.service", "apt-daily.timer", "apt-daily-upgrade.timer",
    "systemd-random-seed.service", "systemd-hwdb-update.service", "user@.service",
]  # fmt: skip

#: Ansible sends every module as source in a zip archive, and Python compiles it each time: half of a task's time on an
#: emulated processor. Python 3.11's importer keeps the result here, named by the source's hash.
COMPILED = """\
import _imp, marshal, os, zipimport

FOLDER = "/var/cache/xpu-rig-compiled"
compile_source = zipimport._compile_source


def compile_once(pathname, source):
    name = f"{FOLDER}/{_imp.source_hash(zipimport._bootstrap_external._RAW_MAGIC_NUMBER, source).hex()}-{len(source)}"
    try:
        with open(name, "rb") as file:
            code = marshal.loads(file.read())
        _imp._fix_co_filename(code, pathname)
        return code
    except (OSError, ValueError, EOFError, TypeError):
        code = compile_source(pathname, source)
    try:
        with open(f"{name}.{os.getpid()}", "xb") as file:
            file.write(marshal.dumps(code))
        os.rename(f"{name}.{os.getpid()}", name)
    except OSError:
        pass
    return code


zipimport._compile_source = compile_once
"""
#: Where Debian's Python looks for automatic imports.
PACKAGES_FOLDER = "usr/lib/python3/dist-packages"

#: Every Ansible task is a sudo, and nobody reads these records of it.
SUDO = "# Fast on an emulated processor.\nDefaults !use_pty, !syslog, !pam_session\n"
#: GRUB's and the initramfs's features that do not exist here, each a dozen processes every time.
NOT_RUN = [
    "etc/grub.d/05_debian_theme", "etc/grub.d/20_linux_xen", "etc/grub.d/30_os-prober", "etc/grub.d/30_uefi-firmware",
    # systemd checks the root file system if the initramfs did not.
    *(f"usr/share/initramfs-tools/hooks/{name}" for name in ("dmsetup", "fsck", "keymap", "resume", "thermal")),
]  # fmt: skip

FIXED = {
    "etc/sudoers.d/zz-xpu-rig-fast": SUDO,
    "etc/initramfs-tools/conf.d/xpu-rig-fast": "COMPRESSLEVEL=1\n",
    f"{PACKAGES_FOLDER}/xpu_rig_compiled.py": COMPILED,
    f"{PACKAGES_FOLDER}/xpu_rig_compiled.pth": "import xpu_rig_compiled\n",
    "etc/modules-load.d/xpu-rig-gpu.conf": "# The test fixture's GPU.\nxpu_rig_gpu\n",
    "etc/hostname": "machine\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 machine\n::1 localhost ip6-localhost\n",
    "etc/resolv.conf": "# Test hosts have no name server.\n",
    "etc/apt/sources.list": "",
    # Services end fast or are killed; a start may be as slow as a busy host makes it.
    "etc/systemd/system.conf.d/xpu-rig.conf": "[Manager]\nDefaultTimeoutStopSec=15s\nDefaultTimeoutStartSec=900s\n"
    "DefaultDeviceTimeoutSec=900s\n",
}
#: All but the first two speed up an emulated processor. Its clocks agree, so none has to watch another. Code is
#: translated per address: a program that starts at another one every time (no norandmaps) is translated every time,
#: which makes its start four times as slow.
ARGUMENTS = "console=ttyS0 net.ifnames=0 mitigations=off tsc=reliable norandmaps init_on_alloc=0 lsm=yama"
GRUB = f"""\
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Ubuntu
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="{ARGUMENTS}"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
"""

#: Runs in place of init, by a kernel that QEMU loads: the disk has no boot loader yet.
FIRST_BOOT = f"""\
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -o remount,rw /
/lib/systemd/systemd-udevd --daemon
udevadm trigger
udevadm settle
grub-install /dev/vda && update-grub && echo "{INSTALLED}"
sync
mount -o remount,ro /
systemctl poweroff --force --force
"""

#: Waits on the second serial port for the configuration that makes a machine one of its fleet.
SETUP = f"""\
#!/bin/sh
stty -F /dev/ttyS1 raw -echo
exec < /dev/ttyS1 > /dev/ttyS1 2>&1
state=$(systemctl is-system-running --wait)
[ "$state" = running ] || systemctl --failed
sync
echo 3 > /proc/sys/vm/drop_caches
echo "{READY}: $state"
while read -r line && [ "$line" != . ]; do echo "$line"; done | base64 --decode > /run/xpu-rig-setup
sh /run/xpu-rig-setup && echo "xpu-rig: configured"
"""
#: systemd-networkd does the same but takes half of the boot for it.
NETWORK_UNIT = """\
[Unit]
Description=Address of this machine (xpu.fleet test fixture)
DefaultDependencies=no
ConditionPathExists=/etc/xpu-rig-address
After=sys-subsystem-net-devices-eth0.device systemd-udev-trigger.service
Wants=sys-subsystem-net-devices-eth0.device network.target
Before=network.target shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip link set lo up; ip addr replace $(cat /etc/xpu-rig-address)/24 dev eth0 && ip link set eth0 up'

[Install]
WantedBy=multi-user.target
"""
SETUP_UNIT = """\
[Unit]
Description=Name and address of this machine (xpu.fleet test fixture)
ConditionPathExists=!/var/lib/xpu-rig/configured

[Service]
ExecStart=/usr/local/lib/xpu-rig/setup

[Install]
WantedBy=multi-user.target
"""


def installed() -> Path:
    """Return a root file system with kernel and packages, and beside it those packages and a newer kernel's."""
    recipe = {
        "version": 3,
        "packages": [PACKAGES, OFFERED],
        "metapackages": metapackage_names(),
        "mirror": DEBIAN,
        "layers": [base("bookworm").parent.name, layer(USERLANDS["ubuntu2204"]).name],
        "gpu": linux.GPU_SOURCE.read_text(),
    }
    return cache.artifact("machine-root", recipe, _install)


def golden() -> Path:
    """Return the folder of ``disk.qcow2``, the memory of the machine booted from it, and ``machine.json``."""
    candidates = qemu.candidates(os.environ)
    recipe = {
        "version": 1,
        "root": installed().name,
        "files": [MASKED, GRUB, FIRST_BOOT, SETUP, SETUP_UNIT, NETWORK_UNIT, FILESYSTEM, FIXED, NOT_RUN],
        "hardware": [hardware_in(Path("/"), name).command() for name in candidates],
        "qemu": qemu.version(),
    }
    return cache.artifact("machine", recipe, _make)


def stacks() -> list[dict[str, Any]]:
    """Return the stacks for a machine's GPU, an Arc A: kernels of other stacks are not built."""
    return [stack for stack in stack_data().values() if "arc" in stack["families"]]


def metapackage_names() -> list[str]:
    """Return the metapackages that stacks remove because they follow the newest kernel."""
    return sorted({name for stack in stacks() for name in stack["kernel"].get("metapackages", ())})


def metapackages(release: str) -> list[Package]:
    """Return the metapackages that depend on a kernel of Debian's."""
    number = release.split("-")[1]
    version = f"6.1.0.{number}.{number}~22.04.1"
    names = metapackage_names()
    made = []
    for name in names:
        if name.startswith("linux-image-"):
            depends = [f"linux-image-{release}"]
        elif name.startswith("linux-headers-"):
            depends = [f"linux-headers-{release}"]
        else:
            depends = [f"{other} (= {version})" for other in names if other != name]
        made.append(Package(name, version, depends=depends, section="kernel"))
    return made


def cloud_kernels(names: list[str]) -> tuple[str, str]:
    """Return the second newest and the newest release of Debian's cloud kernel among package names."""
    found = sorted((int(match[2]), match[1]) for match in map(IMAGE.match, names) if match)
    if len(found) < 2:
        raise RigError(f"{DEBIAN} has {len(found)} cloud kernel(s) for bookworm; two are needed, one newer")
    return found[-2][1], found[-1][1]


# -- packages ---------------------------------------------------------------------------------------------------------


def _install(target: Path) -> None:
    root = target / "root"
    run(["cp", "--archive", f"{base('bookworm')}/.", str(root)])
    run(["cp", "--archive", f"{layer(USERLANDS['ubuntu2204'])}/.", str(root)])
    chroot = ["chroot", str(root)]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    apt = [*chroot, "apt-get", "-y", "-q", "--no-install-recommends", "-o", "Dpkg::Options::=--force-unsafe-io"]
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    write(root / "etc/resolv.conf", Path("/etc/resolv.conf").read_text())
    write(root / "etc/hosts", Path("/etc/hosts").read_text())
    write(root / "etc/apt/sources.list", f"deb {DEBIAN} bookworm main\n")
    write(root / "etc/initramfs-tools/conf.d/xpu-rig", "MODULES=list\nCOMPRESS=lz4\nRESUME=none\n")
    write(root / "etc/fstab", f"UUID={FILESYSTEM} / ext4 errors=remount-ro 0 1\n")
    run(["mount", "-t", "proc", "proc", str(root / "proc")])
    try:
        run([*apt, "update"], env=quiet)
        origin, newer = cloud_kernels(run([*chroot, "apt-cache", "pkgnames", "linux-image-6.1.0"]).split())
        say(f"machines have kernel {origin}; {newer} is the newer one")
        run([*apt, "install", *PACKAGES], env=quiet)
        write(root / "etc/initramfs-tools/modules", "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n")
        # A person installed only the metapackages; their kernels came along, as on a real machine.
        metas = [package.write(root / "root") for package in metapackages(origin)]
        run([*apt, "install", *(f"/root/{path.name}" for path in metas)], env=quiet)
        debs = target / "debs"
        _take(root, debs)
        run([*apt, "install", "--download-only", f"linux-image-{newer}", f"linux-headers-{newer}"], env=quiet)
        _take(root, target / "updates")
        run([*apt, "install", "--download-only", *OFFERED], env=quiet)
        _take(root, debs)
        for path in metas:
            shutil.move(path, debs / path.name)
        for package in metapackages(newer):
            package.write(target / "updates")
        _gpu_module(root, origin)
        run([*apt, "clean"])
    finally:
        unmount(root / "proc")
    for path in (root / "var/lib/apt/lists").glob("*_*"):
        path.unlink()
    write(target / "kernels.json", json.dumps({"origin": origin, "newer": newer}))


def _take(root: Path, target: Path) -> None:
    """Move apt's downloads to a folder."""
    target.mkdir(exist_ok=True)
    for path in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        # "%3a" stands for an epoch's colon in apt's cache; a web server would decode it.
        shutil.move(path, target / path.name.replace("%3a", "-epoch-"))


def _gpu_module(root: Path, release: str) -> None:
    """Build the fixture GPU's module for the kernel of the root file system, and install it there."""
    built = linux.compile_module(root, f"/lib/modules/{release}/build", "xpu_rig_gpu", linux.GPU_SOURCE.read_text())
    updates = root / "lib/modules" / release / "updates"
    updates.mkdir(exist_ok=True)
    shutil.copyfile(built, updates / built.name)
    cache.remove(root / "module")
    run(["chroot", str(root), "depmod", release])


# -- disk and memory --------------------------------------------------------------------------------------------------


def _make(target: Path) -> None:
    kernels = json.loads((installed() / "kernels.json").read_text())
    raw = target / "disk.raw"
    _file_system(raw, target)
    run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", str(raw), str(target / "bare.qcow2")])
    raw.unlink()
    candidates = qemu.candidates(os.environ)
    for accelerator in candidates:
        shutil.copyfile(target / "bare.qcow2", target / "disk.qcow2")
        try:
            with _tap("xpugold"):
                _first_boots(target, accelerator, kernels["origin"])
            break
        except RigError as error:
            if accelerator == candidates[-1]:
                raise
            say(f"no guest boots with {accelerator} here ({str(error).splitlines()[0]})")
    for name in ("bare.qcow2", "vmlinuz", "initrd.img", "setup", "qmp", "qemu.pid"):
        (target / name).unlink(missing_ok=True)
    write(target / "machine.json", json.dumps({**qemu.choice(accelerator), **kernels}))


def _file_system(raw: Path, target: Path) -> None:
    """Write the disk: one partition, one ext4 file system, no boot loader."""
    work = target / "work"
    for name in ("upper", "work", "root"):
        (work / name).mkdir(parents=True)
    root = work / "root"
    layers = f"lowerdir={installed() / 'root'},upperdir={work / 'upper'},workdir={work / 'work'}"
    run(["mount", "-t", "overlay", "xpu-rig-golden", "-o", layers, str(root)])
    try:
        _configure(root)
        origin = json.loads((installed() / "kernels.json").read_text())["origin"]
        for name in ("vmlinuz", "initrd.img"):
            shutil.copyfile(root / f"boot/{name}-{origin}", target / name)
        with raw.open("wb") as disk:
            disk.truncate(qemu.DISK_SIZE)
            disk.write(partition_table(qemu.DISK_SIZE))
        # The features that GRUB of Debian 12 and of Ubuntu 22.04 can read.
        features = "^metadata_csum_seed,^orphan_file"
        extended = f"offset={PARTITION_START},lazy_itable_init=0,lazy_journal_init=0"
        blocks = f"{(qemu.DISK_SIZE - PARTITION_START) // 4096}"
        options = ["-t", "ext4", "-b", "4096", "-O", features, "-E", extended, "-U", FILESYSTEM]
        run(["mke2fs", "-q", "-F", *options, "-d", str(root), str(raw), blocks])
    finally:
        run(["umount", str(root)])
        cache.remove(work)


def partition_table(size: int) -> bytes:
    """Return a disk's first sector: one bootable Linux partition, from 1 MiB to the end."""
    start, sectors = PARTITION_START // 512, (size - PARTITION_START) // 512
    # Only sector addresses count; the old cylinder numbers are out of range.
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", start, sectors)
    return b"\0" * 440 + struct.pack("<IH", 0x78707566, 0) + entry + b"\0" * 48 + b"\x55\xaa"


def _configure(root: Path) -> None:
    """Write the configuration that makes this userland a machine which boots by itself."""
    for name, text in FIXED.items():
        write(root / name, text)
    for name in NOT_RUN:
        (root / name).chmod(0o644)
    write(root / "etc/default/grub", GRUB)
    write(root / "usr/local/lib/xpu-rig/first-boot", FIRST_BOOT, 0o755)
    write(root / "usr/local/lib/xpu-rig/setup", SETUP, 0o755)
    system = root / "etc/systemd/system"
    write(system / "xpu-rig-setup.service", SETUP_UNIT)
    write(system / "xpu-rig-network.service", NETWORK_UNIT)
    links = {
        "multi-user.target.wants/xpu-rig-setup.service": "../xpu-rig-setup.service",
        "multi-user.target.wants/xpu-rig-network.service": "../xpu-rig-network.service",
        **dict.fromkeys(MASKED, "/dev/null"),
    }
    for name, goal in links.items():
        (system / name).unlink(missing_ok=True)
        (system / name).symlink_to(goal)
    # It keeps a Python process that every boot and every shutdown waits for.
    (system / "multi-user.target.wants/unattended-upgrades.service").unlink(missing_ok=True)
    # The journal survives reboots, as on an installed server.
    for folder in ("var/log/journal", "var/lib/xpu-rig", "var/cache/xpu-rig-compiled"):
        (root / folder).mkdir(exist_ok=True)
    run(["chroot", str(root), "chgrp", "systemd-journal", "/var/log/journal"])
    run(["chroot", str(root), "chmod", "2755", "/var/log/journal"])
    # The first key lets the SSH server run; every machine gets its own later.
    key = root / "etc/ssh/ssh_host_ed25519_key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "machine", "-f", str(key)])


def _first_boots(target: Path, accelerator: str, origin: str) -> None:
    """Boot with QEMU's own loader to install GRUB, then through GRUB, and save that machine's memory."""
    timeout = FIRST_BOOT_TIMEOUT[accelerator]
    hardware = hardware_in(target, accelerator)
    for name in ("console.log", "memory"):
        (target / name).unlink(missing_ok=True)
    arguments = f"root=UUID={FILESYSTEM} ro {ARGUMENTS} init=/usr/local/lib/xpu-rig/first-boot"
    kernel = ["-kernel", str(target / "vmlinuz"), "-initrd", str(target / "initrd.img"), "-append", arguments]
    started = time.monotonic()
    try:
        hardware.launch(*kernel, "-no-reboot")
        if not hardware.gone(timeout) or INSTALLED not in hardware.console.read_text(errors="replace"):
            raise RigError(f"GRUB was not installed\n{tail(hardware.console)}")
        say(f"GRUB is on the disk ({accelerator}, {time.monotonic() - started:.0f} s)")
        started = time.monotonic()
        hardware.launch()
        with socket.socket(socket.AF_UNIX) as port:
            port.settimeout(timeout)
            port.connect(str(hardware.setup))
            said = read_until(port, READY, time.monotonic() + timeout)
        if f"{READY}: running" not in said:
            raise RigError(f"{origin} came up with failed services\n{said}")
        say(f"it boots through GRUB ({time.monotonic() - started:.0f} s)")
        with qemu.Monitor(hardware.monitor) as monitor:
            monitor.execute("stop")
            monitor.execute("migrate-set-parameters", **{"max-bandwidth": 8 << 30})
            monitor.execute("migrate", uri=f"exec:cat > '{target / 'memory'}'")
            while (status := monitor.execute("query-migrate").get("status")) not in ("completed", "failed"):
                time.sleep(0.1)
            if status == "failed":
                raise RigError("the machine's memory was not saved")
        hardware.quit()
    finally:
        hardware.kill()


def hardware_in(folder: Path, accelerator: str) -> qemu.Hardware:
    """Return the machine from which all others are copied."""
    return qemu.Hardware(
        "xpu-golden", folder, folder / "disk.qcow2", "xpugold", "52:54:00:4d:00:01", **qemu.choice(accelerator)
    )


def read_until(port: socket.socket, text: str, deadline: float) -> str:
    """Return a serial port's output up to the line with ``text``. Raises RigError if it never comes."""
    said = ""
    while text not in said or not said.endswith("\n"):
        port.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            piece = port.recv(4096)
        except OSError:
            piece = b""
        if not piece:
            raise RigError(f"the machine did not say {text!r} in time but {said[-2000:]!r}")
        said += piece.decode(errors="replace")
    return said.replace("\r", "")


def tail(path: Path, lines: int = 25) -> str:
    """Return the end of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


class _tap:
    """A network interface for one virtual machine, without a connection."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        run(["ip", "link", "delete", self.name], check=False)
        run(["ip", "tuntap", "add", "dev", self.name, "mode", "tap"])
        run(["ip", "link", "set", self.name, "up"])

    def __exit__(self, *_: object) -> None:
        run(["ip", "link", "delete", self.name], check=False)
