"""Runs on a machine, as root: prints the state of its kernels, packages and GPU as JSON."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

RENDER = Path("/dev/dri/renderD128")
UNITS = Path("/etc/systemd/system")
#: Written at every boot, or caches of other compared files.
PASSING = ("/etc/resolv.conf", "/etc/mtab", "/etc/adjtime", "/etc/ld.so.cache", "/boot/grub/grubenv")


def out(*command: str) -> str:
    """Return a command's output, "" if it does not exist."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def text(path: str) -> str:
    """Return a file's text, "" if it does not exist."""
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="replace")
    return ""


def boot() -> dict[str, Any]:
    """The running kernel, GRUB's next one, and whether a trial is armed."""
    menu = text("/boot/grub/grub.cfg")
    release = os.uname().release
    needed = [f"/boot/vmlinuz-{release}", f"/boot/initrd.img-{release}", f"/lib/modules/{release}/modules.dep"]
    return {
        "kernel": release,
        "boot_id": text("/proc/sys/kernel/random/boot_id").strip(),
        "command_line": text("/proc/cmdline").strip(),
        "boots": len(out("journalctl", "--quiet", "--list-boots").splitlines()),
        "system": out("systemctl", "is-system-running"),
        "failed": out("systemctl", "--failed", "--plain", "--no-legend"),
        "lacking": [path for path in needed if not Path(path).exists() or not Path(path).stat().st_size],
        "default": [entry for entry in re.findall(r'^\s*set default="(.*)"$', menu, re.MULTILINE) if entry[:1] != "$"],
        "panic": sorted(set(re.findall(r"\bpanic=-?\d+", menu))),
        "drop_in": text("/etc/default/grub.d/60-xpu-fleet.cfg"),
        "environment": [line for line in text("/boot/grub/grubenv").splitlines() if line[:1] != "#"],
        "armed": sorted(path.name for path in UNITS.rglob("xpu-fleet-kernel-*")),
        "timer": out("systemctl", "is-active", "xpu-fleet-kernel-return.timer"),
        "trial": text("/var/lib/xpu-fleet/kernel/trial.json"),
        "written_wrong": sum(int(text(str(path)) or 0) for path in Path("/sys/fs/ext4").glob("*/errors_count")),
        "read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
    }


def packages() -> dict[str, Any]:
    """The data of dpkg and DKMS."""
    lines = out("dpkg-query", "-W", "-f", "${Package} ${db:Status-Want} ${db:Status-Status} ${Version}\n").splitlines()
    rows = [line.split(" ") for line in lines]
    # apt-mark takes seconds each time.
    states = text("/var/lib/apt/extended_states")
    automatic = set(re.findall(r"^Package: (\S+)\n(?:.+\n)*?Auto-Installed: 1$", states, re.MULTILINE))
    return {
        "installed": {row[0]: row[3] for row in rows if row[2] == "installed"},
        "unfinished": {row[0]: row[2] for row in rows if row[2] not in ("installed", "config-files", "not-installed")},
        "remains": sorted(row[0] for row in rows if row[2] == "config-files"),
        "held": sorted(row[0] for row in rows if row[1] == "hold"),
        "manual": sorted({row[0] for row in rows if row[2] == "installed"} - automatic),
        "dkms": out("dkms", "status").splitlines(),
    }


def gpu() -> dict[str, Any]:
    """The card's driver, its render node, and who can open it."""
    drivers = {}
    for device in Path("/sys/bus/pci/devices").glob("*"):
        if text(f"{device}/vendor").strip() == "0x8086" and text(f"{device}/class").startswith(("0x0300", "0x0380")):
            link = device / "driver"
            drivers[text(f"{device}/device").strip()] = link.resolve().name if link.exists() else ""
    node: dict[str, Any] = {}
    if RENDER.exists():
        found = RENDER.stat()
        opens = ["runuser", "-u", "xpu", "--", "python3", "-c", f"import os; os.open('{RENDER}', os.O_RDWR)"]
        node = {
            "character_device": stat.S_ISCHR(found.st_mode),
            "number": [os.major(found.st_rdev), os.minor(found.st_rdev)],
            "mode": f"{stat.S_IMODE(found.st_mode):o}",
            "group": grp.getgrgid(found.st_gid).gr_name,
            "xpu_opens_it": subprocess.run(opens, capture_output=True, check=False).returncode == 0,
        }
    module = dict(re.findall(r"^(\w+): +(\S+)", out("modinfo", "i915"), re.MULTILINE))
    return {
        "drivers": drivers,
        "render": node,
        "loaded": text("/sys/module/i915/srcversion").strip(),
        "on_disk": module.get("srcversion", ""),
        "module": module.get("filename", ""),
        "magic": module.get("vermagic", ""),
    }


def files() -> dict[str, str]:
    """Every file of /boot and /etc, with a checksum or a link's target."""
    found = {}
    for top in ("/boot", "/etc"):
        for folder, _, names in os.walk(top):
            for name in names:
                path = Path(folder, name)
                # passwd- and others are backups; boot/full.1 and others are a fault's, as large as the disk.
                if str(path) in PASSING or path.name.endswith("-") or str(path).startswith("/boot/full."):
                    continue
                if path.is_symlink():
                    found[str(path)] = f"-> {path.readlink()}"
                elif path.is_file():
                    found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


if __name__ == "__main__":
    state: dict[str, Any] = {"boot": boot(), "packages": packages(), "gpu": gpu()}
    if "files" in sys.argv:
        state["files"] = files()
    json.dump(state, sys.stdout)
