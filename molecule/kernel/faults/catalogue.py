"""The faults: what happens to a machine, when, and the expected result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Optional

from kernel.faults.state import wanted

KERNEL = wanted()
MODULES = f"/lib/modules/{KERNEL}"
#: Finds the virtual network card's module, whatever its place in this kernel.
NETWORK = f"$(find {MODULES} -name 'virtio_net.ko*')"


class Stage(Enum):
    """Starting points of faults, kept as snapshots."""

    BARE = "bare"
    INSTALLED = "installed"  # all packages and modules; the kernel was not booted, for lack of consent
    CONVERGED = "converged"


class Act(Enum):
    """The action at a moment of the run."""

    CUT = "the power is cut"
    KILL = "the controller is killed"
    SCRIPT = "a command runs on the machine"


class After(Enum):
    """The running kernel after the fault."""

    ORIGIN = "the kernel it came from"
    WANTED = "the new kernel"
    EITHER = "either kernel"


@dataclass(frozen=True)
class Moment:
    """A point of a run: a task begins (after other tasks did), then a condition holds on the machine or its console."""

    title: str
    tasks: tuple[str, ...]
    #: Shell, as root on the machine: repeated until it succeeds.
    until: str = ""
    #: Regular expression to wait for on the serial console.
    console: str = ""
    delay: float = 0.0


@dataclass(frozen=True)
class Fault:
    """One fault."""

    name: str
    title: str
    start: Stage = Stage.BARE
    #: Shell, as root on the machine: before the run, after it, and at a moment of it.
    inject: str = ""
    mend: str = ""
    moment: Optional[Moment] = None
    act: Optional[Act] = None
    script: str = ""
    #: Regular expression for the run's output; "" if only the machine counts.
    says: str = ""
    #: Whether the run has to succeed in spite of the fault.
    succeeds: bool = False
    after: After = After.ORIGIN
    #: How often the first run boots the new kernel, None if that does not matter.
    trials: Optional[int] = None
    #: Whether the machine must not change at all.
    untouched: bool = False
    #: Name of a separate procedure in the bench, "" for the common one.
    procedure: str = ""


def _running(program: str) -> str:
    return f"pgrep -x '{program}'"


def _started(words: str) -> str:
    # pgrep omits itself, but not the shell with these words in its arguments: [x] matches x but not itself.
    return f"pgrep -f '[{words[0]}]{words[1:]}'"


#: Between these steps, apt passes dpkg its options about changed settings files.
_APT_AT_WORK = _started("/usr/bin/dpkg .*--status-fd")

#: The transaction, step by step, with the kernel after a power cut and after a killed controller.
MOMENTS: tuple[tuple[str, Moment, Stage, After, After], ...] = (
    (
        "hold",
        Moment(
            "while GRUB's default is held", ("Set GRUB's default to the running kernel",), _started("grub-mkconfig")
        ),
        Stage.BARE, After.ORIGIN, After.ORIGIN,
    ),
    (
        "unpack",
        Moment("while apt unpacks the kernel", ("Install the kernel's packages",), _running("dpkg-deb"), delay=1.0),
        Stage.BARE, After.ORIGIN, After.ORIGIN,
    ),
    (
        "initramfs",
        Moment("while its initramfs is made", ("Install the kernel's packages",), _started("mkinitramfs"), delay=2.0),
        Stage.BARE, After.ORIGIN, After.ORIGIN,
    ),
    (
        "dkms",
        Moment(
            "while DKMS builds for it",
            ("Install the driver's modules for the kernel",),
            _running("cc1"),
        ),
        Stage.BARE, After.ORIGIN, After.ORIGIN,
    ),
    (
        "armed",
        Moment(
            "once it is chosen for one boot",
            ("Set the kernel for one boot",),
            "grub-editenv /boot/grub/grubenv list | grep -q '^next_entry=.'",
        ),
        Stage.INSTALLED, After.ORIGIN, After.ORIGIN,
    ),
    (
        "trial",
        Moment(
            "while it boots for the first time", ("Ensure the node is rebooted",), console=rf"Linux version {KERNEL}"
        ),
        Stage.INSTALLED, After.ORIGIN, After.ORIGIN,
    ),
    (
        "proof",
        Moment("while it runs and is not proven yet", ("Ensure the node is rebooted", "Check the driver's modules")),
        Stage.INSTALLED, After.ORIGIN, After.ORIGIN,
    ),
    (
        "default",
        Moment(
            "while it is made the default", ("Set the kernel as GRUB's default",), _started("grub-mkconfig"), delay=1.0
        ),
        Stage.INSTALLED, After.EITHER, After.EITHER,
    ),
    (
        "purge",
        Moment("while newer kernels are removed", ("Remove newer kernels",), _APT_AT_WORK, delay=2.0),
        Stage.INSTALLED, After.WANTED, After.WANTED,
    ),
    (
        "second",
        Moment(
            "while it boots as the default",
            ("Remove newer kernels", "Ensure the node is rebooted"),
            console=rf"Linux version {KERNEL}",
        ),
        Stage.INSTALLED, After.WANTED, After.WANTED,
    ),
)  # fmt: skip

#: /boot is a folder of the root file system here; this fills root's reserve, too.
FILL = """for size in 1G 128M 16M 2M 256K; do
    while :; do
        count=$((${count:-0} + 1))
        fallocate -l $size /boot/full.$count 2>/dev/null || { rm -f /boot/full.$count; break; }
    done
done"""


def _at_every_step() -> Iterator[Fault]:
    for name, moment, stage, after_cut, after_kill in MOMENTS:
        # The run finally waits for a boot anyway, and either way leads to the same kernel.
        waits = name == "second"
        yield Fault(
            f"cut-{name}", f"the power is cut {moment.title}", stage, moment=moment, act=Act.CUT, after=after_cut,
            says="" if waits else "UNREACHABLE|is not reachable|runs .* again|Timed out|came up", succeeds=waits,
        )  # fmt: skip
        yield Fault(
            f"kill-{name}", f"the controller is killed {moment.title}", stage, moment=moment, act=Act.KILL,
            after=after_kill,
        )  # fmt: skip


FAULTS: tuple[Fault, ...] = (
    Fault(
        "panic",
        "the new kernel panics at boot",
        Stage.INSTALLED,
        # /init reads this file too, as process 1: it ends, and the kernel with it.
        inject=f"""cat > /etc/initramfs-tools/conf.d/panic <<'END'
[ "$$" != 1 ] || case "$(uname -r)" in {KERNEL}) exit 1 ;; esac
END
[ ! -e /boot/initrd.img-{KERNEL} ] || update-initramfs -u -k {KERNEL}""",
        mend="rm /etc/initramfs-tools/conf.d/panic;"
        f" [ ! -e /boot/initrd.img-{KERNEL} ] || update-initramfs -u -k {KERNEL}",
        says=r"runs \S+ again: .*never reached systemd",
        trials=1,
    ),
    Fault(
        "no-root",
        "its initramfs can't find the root file system",
        Stage.INSTALLED,
        inject=f"""cat > /etc/initramfs-tools/hooks/zz-no-disk <<'END'
#!/bin/sh
[ "$1" != prereqs ] || exit 0
[ "$version" != {KERNEL} ] || find "$DESTDIR" -name 'virtio_blk.ko*' -delete
END
chmod 755 /etc/initramfs-tools/hooks/zz-no-disk; update-initramfs -u -k {KERNEL}""",
        mend=f"rm /etc/initramfs-tools/hooks/zz-no-disk; update-initramfs -u -k {KERNEL}",
        says=r"runs \S+ again: .*never reached systemd",
        trials=1,
    ),
    Fault(
        "no-network",
        "it comes up without a network",
        Stage.INSTALLED,
        inject=f"file={NETWORK}; dpkg-divert --quiet --local --rename --divert $file.away --add $file; depmod {KERNEL};"
        f" update-initramfs -u -k {KERNEL}",
        mend=f"file=$(find {MODULES} -name 'virtio_net.ko*.away'); file=${{file%.away}};"
        f" dpkg-divert --quiet --local --rename --remove $file; depmod {KERNEL}; update-initramfs -u -k {KERNEL}",
        says=r"runs \S+ again: .*came up, but was not confirmed",
        trials=1,
    ),
    Fault(
        "damaged",
        "a file of the new kernel is damaged",
        Stage.INSTALLED,
        inject=f": > {NETWORK}; : > {MODULES}/modules.dep; truncate -s 1000 /boot/initrd.img-{KERNEL}",
        says="",
        succeeds=True,
        after=After.WANTED,
    ),
    Fault(
        "no-compiler",
        "its DKMS modules do not build",
        Stage.BARE,
        inject="for gcc in $(ls /usr/bin/gcc /usr/bin/gcc-[0-9]* /usr/bin/x86_64-linux-gnu-gcc-[0-9]* 2>/dev/null); do"
        " dpkg-divert --quiet --local --rename --divert $gcc.away --add $gcc; done",
        mend="for gcc in $(ls /usr/bin/*.away); do gcc=${gcc%.away};"
        " dpkg-divert --quiet --local --rename --remove $gcc; done",
        says=r"DKMS module \S+ is not built for kernel",
        trials=0,
    ),
    Fault(
        "boot-full",
        "/boot is full",
        Stage.BARE,
        inject="fallocate -l $(($(df --output=avail --block-size=1M /boot | tail -1) - 150))M /boot/full.1",
        mend="rm /boot/full.*",
        says=r"/boot has \d+ MiB free and kernel \S+ needs",
        untouched=True,
        trials=0,
    ),
    Fault(
        "boot-fills",
        "/boot fills up while the kernel is installed",
        Stage.BARE,
        moment=Moment("when apt begins to install", ("Install the kernel's packages",), _APT_AT_WORK),
        act=Act.SCRIPT,
        script=FILL,
        mend="rm /boot/full.*",
        says=r"No space left on device",
        trials=0,
    ),
    Fault(
        "apt-locked",
        "apt is locked by unattended-upgrades for a while",
        Stage.INSTALLED,
        moment=Moment("when newer kernels are to be removed", ("Remove newer kernels",)),
        act=Act.SCRIPT,
        # The sleep is the fault: for so long the lock is held.
        script="systemd-run --quiet --unit=apt-locked python3 -c 'import fcntl, time\n"
        'locks = [open(f"/var/lib/dpkg/{name}", "w") for name in ("lock-frontend", "lock")]\n'
        "[fcntl.lockf(lock, fcntl.LOCK_EX) for lock in locks]\ntime.sleep(60)'",
        succeeds=True,
        after=After.WANTED,
    ),
    *_at_every_step(),
    Fault(
        "newer-kernel",
        "a newer kernel appears later, through apt full-upgrade and by hand",
        Stage.CONVERGED,
        procedure="newer_kernel",
        after=After.WANTED,
    ),
    Fault(
        "rollback",
        "the operator wants the node as it was",
        Stage.CONVERGED,
        procedure="rollback",
    ),
)  # fmt: skip


#: Faults on one machine, one after the other: each run starts with the leftovers of the one before.
STORIES: dict[str, tuple[str, ...]] = {
    "power": tuple(f"cut-{name}" for name, *_ in MOMENTS[:-1]),
    "controller": tuple(f"kill-{name}" for name, *_ in MOMENTS[:-1]),
    # After a power cut and a boot of its default, a run has no second reboot: these start from a snapshot.
    "power-at-last": ("cut-second",),
    "controller-at-last": ("kill-second",),
    "kernel": ("boot-full", "boot-fills", "no-compiler", "panic", "no-root", "no-network", "damaged"),
    "later": ("newer-kernel", "apt-locked"),
    # From a machine without upgrades: packages that an upgrade brought, and the role removed, would come back too.
    "back": ("rollback",),
}


def choose(words: Sequence[str]) -> list[list[Fault]]:
    """Return stories: named ones, ones made of names with commas between, or all. Raises KeyError."""
    known = {fault.name: fault for fault in FAULTS}
    chosen = [STORIES.get(word) or word.split(",") for word in words or STORIES]
    return [[known[name] for name in names] for names in chosen]
