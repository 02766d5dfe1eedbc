"""Root file systems of test hosts: Debian 12 and 13, as themselves or posing as Ubuntu."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rig import cache
from rig.host import DEBIAN_KEYRING, run, write

#: Debian's archive; XPU_FLEET_DEBIAN_MIRROR names a nearer mirror.
DEBIAN = os.environ.get("XPU_FLEET_DEBIAN_MIRROR", "http://deb.debian.org/debian")

#: Packages of a freshly installed server.
BASE_PACKAGES = [
    "systemd", "systemd-sysv", "dbus", "udev", "kmod", "libpam-systemd", "openssh-server", "sudo", "python3",
    "python3-apt", "iproute2", "procps", "ca-certificates", "gnupg", "unattended-upgrades", "pciutils",
]  # fmt: skip

#: The account that people and Ansible use on test hosts: no root login, sudo without a password.
USER = "admin"


@dataclass(frozen=True)
class Userland:
    """One kind of root file system and its needs of the mirror."""

    name: str
    suite: str
    repository: str
    python: str
    distribution: str = "Debian"
    release: str = ""
    codename: str = ""
    title: str = ""

    @property
    def os_release(self) -> str:
        """The text of /etc/os-release, "" for Debian's own."""
        if self.distribution == "Debian":
            return ""
        return (
            f'PRETTY_NAME="{self.distribution} {self.title}"\n'
            f'NAME="{self.distribution}"\nVERSION_ID="{self.release}"\n'
            f'VERSION="{self.title}"\nVERSION_CODENAME={self.codename}\n'
            f"ID=ubuntu\nID_LIKE=debian\nUBUNTU_CODENAME={self.codename}\n"
            # No word of the real distribution here: Ansible looks for its name anywhere in this file.
            'VARIANT="xpu.fleet test fixture"\nVARIANT_ID=xpu-fleet-fixture\n'
        )


USERLANDS = {
    userland.name: userland
    for userland in (
        Userland("debian12", "bookworm", "debian12", "3.11"),
        Userland(
            "ubuntu2204", "bookworm", "debian12", "3.11", "Ubuntu", "22.04", "jammy", "22.04.4 LTS (Jammy Jellyfish)"
        ),
        Userland("ubuntu2404", "trixie", "debian13", "3.13", "Ubuntu", "24.04", "noble", "24.04.1 LTS (Noble Numbat)"),
    )
}


def base(suite: str) -> Path:
    """Return the unpacked root file system of a Debian suite."""
    recipe = {"version": 2, "suite": suite, "packages": BASE_PACKAGES, "mirror": DEBIAN}
    return cache.artifact(f"base-{suite}", recipe, lambda target: _bootstrap(suite, target)) / "root"


def layer(userland: Userland) -> Path:
    """Return the overlay folder: account, SSH, names of the distribution. Cheap to make."""
    recipe = {"version": 6, "userland": asdict(userland), "os_release": userland.os_release, "user": USER}
    return cache.artifact(f"layer-{userland.name}", recipe, lambda target: _customise(userland, target))


def _bootstrap(suite: str, target: Path) -> None:
    run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            f"--include={','.join(BASE_PACKAGES)}",
            f"--keyring={DEBIAN_KEYRING}",
            '--aptopt=Acquire::Languages "none"',
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            suite,
            str(target / "root"),
            f"deb {DEBIAN} {suite} main",
        ]
    )
    root = target / "root"
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    run(["chroot", str(root), "useradd", "--create-home", "--shell", "/bin/bash", USER])
    # The root password stays locked and the account has none: SSH with the rig's key is the only way in.
    write(root / "etc/sudoers.d/xpu-rig", f"{USER} ALL=(ALL) NOPASSWD:ALL\n", 0o440)
    (root / "etc/machine-id").write_text("")


def _customise(userland: Userland, target: Path) -> None:
    if userland.os_release:
        write(target / "usr/lib/os-release", userland.os_release)
        write(target / "etc/debian_version", f"{userland.suite}/sid\n")
        write(
            target / "etc/lsb-release",
            f"DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE={userland.release}\nDISTRIB_CODENAME={userland.codename}\n"
            f'DISTRIB_DESCRIPTION="Ubuntu {userland.release} (xpu.fleet test fixture)"\n',
        )
    write(target / "etc/ssh/sshd_config.d/xpu-rig.conf", "PasswordAuthentication no\nUseDNS no\n")
    # apt's own timers would take its lock at random times; a test could not distinguish that from a fault.
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        link = target / "etc/systemd/system" / timer
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("/dev/null")
