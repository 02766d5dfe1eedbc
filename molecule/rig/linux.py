"""A kernel that says it is a release of Ubuntu's: Debian's 6.1 sources, built small under that release's name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Union

from rig import cache, debian
from rig.deb import File, Link, Package
from rig.host import RigError, run, write
from rig.userland import DEBIAN, base

SOURCE = "linux-source-6.1"
SUITE = "bookworm"
TOOLS = [
    "gcc",
    "libc6-dev",
    "make",
    "flex",
    "bison",
    "bc",
    "libelf-dev",
    "libssl-dev",
    "kmod",
    "cpio",
    "xz-utils",
    "lz4",
]

#: Everything beyond tinyconfig. Drivers of the virtual hardware are modules, as in a distribution's kernel, so that an
#: initramfs without them does not boot. RANDOMIZE_BASE: at a reboot, QEMU without acceleration takes minutes to unpack
#: a kernel over the one before it, whose translated code it still keeps.
OPTIONS = """
64BIT SMP NR_CPUS=8 MODULES MODULE_UNLOAD PRINTK PRINTK_TIME EARLY_PRINTK BUG KALLSYMS BASE_FULL COREDUMP ELF_CORE
KERNEL_LZ4 CC_OPTIMIZE_FOR_PERFORMANCE SLUB BLK_DEV_INITRD RD_LZ4 RD_GZIP RD_ZSTD BINFMT_ELF BINFMT_SCRIPT
TTY VT VT_CONSOLE UNIX98_PTYS SERIAL_8250 SERIAL_8250_CONSOLE SERIAL_8250_PNP PNP INPUT INPUT_EVDEV
PCI PCI_MSI PCI_QUIRKS PCI_MMCONFIG ACPI ACPI_BUTTON ACPI_PROCESSOR DMI DMIID X86_MPPARSE X86_X2APIC HPET_TIMER
RELOCATABLE RANDOMIZE_BASE
HYPERVISOR_GUEST PARAVIRT KVM_GUEST HIGH_RES_TIMERS NO_HZ_IDLE RTC_CLASS RTC_DRV_CMOS RTC_HCTOSYS RTC_SYSTOHC
MAGIC_SYSRQ MAGIC_SYSRQ_SERIAL KEXEC KEXEC_FILE RANDOM_TRUST_CPU RANDOM_TRUST_BOOTLOADER
VIRTIO_MENU VIRTIO_PCI=m VIRTIO_BLK=m VIRTIO_NET=m HW_RANDOM HW_RANDOM_VIRTIO=m
BLOCK BLK_DEV PARTITION_ADVANCED MSDOS_PARTITION EXT4_FS=m EXT4_FS_POSIX_ACL EXT4_FS_SECURITY EXT4_USE_FOR_EXT2
NET PACKET UNIX UNIX_DIAG INET INET_DIAG IP_MULTICAST IPV6 NETDEVICES NET_CORE
DEVTMPFS DEVTMPFS_MOUNT TMPFS TMPFS_POSIX_ACL TMPFS_XATTR PROC_FS PROC_SYSCTL PROC_PAGE_MONITOR SYSFS
CGROUPS CGROUP_PIDS MEMCG CGROUP_SCHED FAIR_GROUP_SCHED CFS_BANDWIDTH CGROUP_FREEZER CGROUP_DEVICE CGROUP_CPUACCT
CGROUP_BPF BPF_SYSCALL NAMESPACES UTS_NS IPC_NS PID_NS NET_NS USER_NS TIME_NS
INOTIFY_USER FANOTIFY DNOTIFY SIGNALFD TIMERFD EVENTFD EPOLL FHANDLE AIO SHMEM FUTEX POSIX_TIMERS MULTIUSER SYSVIPC
POSIX_MQUEUE FILE_LOCKING SECCOMP SECCOMP_FILTER AUTOFS_FS KEYS MEMBARRIER ADVISE_SYSCALLS RSEQ KCMP VM_EVENT_COUNTERS
CRYPTO CRYPTO_SHA256 CRYPTO_HMAC CRYPTO_USER_API_HASH CRYPTO_CRC32C
DRM=m DRM_VGEM=m
"""
#: What tinyconfig or a default turns on and this kernel has no use for.
WITHOUT = "KERNEL_XZ SLOB CC_OPTIMIZE_FOR_SIZE LOCALVERSION_AUTO DEBUG_KERNEL LEGACY_PTYS DRM_FBDEV_EMULATION WIRELESS"
#: Parts of the source tree that building a module of one's own does not read.
NOT_HEADERS = [
    "include/dt-bindings", "include/sound", "include/uapi/sound", "include/media", "include/scsi", "include/rdma",
    "include/uapi/rdma", "include/target", "include/pcmcia", "include/soc", "include/uapi/scsi", "include/rv",
    "include/linux/mfd", "include/linux/platform_data", "include/linux/iio", "include/linux/mlx4",
    "include/linux/mlx5", "include/linux/mtd", "include/linux/qed", "include/linux/can", "include/linux/soundwire",
    "include/linux/mmc", "include/linux/sunrpc", "include/linux/ceph", "include/linux/bcma", "include/linux/ssb",
    "include/linux/greybus", "include/linux/crush", "include/linux/soc", "include/linux/spi", "include/linux/fpga",
    "include/keys", "include/memory", "include/ras", "include/xen", "include/kunit",
    "scripts/coccinelle", "scripts/kconfig", "scripts/gdb", "scripts/gcc-plugins", "scripts/dtc", "scripts/package",
    "scripts/selinux", "scripts/tracing", "scripts/clang-tools", "scripts/atomic", "scripts/ksymoops",
]  # fmt: skip
#: Modules that come in linux-modules-extra, as graphics drivers do: folders below ``kernel``.
EXTRA = ("drivers/gpu/", "drivers/i2c/")
GPU_SOURCE = Path(__file__).parent / "modules/xpu_rig_gpu.c"


def kernel(release: str, version: str) -> Path:
    """Return the built kernel: ``boot``, ``modules`` and ``headers`` as its packages install them."""
    recipe = {
        "version": 1,
        "release": release,
        "package": version,
        "options": OPTIONS.split(),
        "without": WITHOUT.split(),
        "not_headers": NOT_HEADERS,
        "source": [SOURCE, DEBIAN, base(SUITE).parent.name],
        "tools": TOOLS,
    }
    return cache.artifact(f"linux-{release}", recipe, lambda target: _build(release, version, target))


def packages(release: str, versions: Mapping[str, str]) -> Iterator[Package]:
    """Yield the kernel's packages under the names and versions that a stack has for them; this kernel boots."""
    built = kernel(release, next(iter(versions.values())))
    module = gpu_module(release, built)
    for name, version in versions.items():
        if name == f"linux-image-{release}":
            yield image(name, version, release, built)
        elif name == f"linux-headers-{release}":
            yield headers(name, version, release, built)
        elif name == f"linux-modules-{release}":
            files = {path: entry for path, entry in _modules(release, built).items() if not _is_extra(path)}
            yield Package(name, version, files, scripts=_depmod(release), section="kernel")
        elif name == f"linux-modules-extra-{release}":
            files = {path: entry for path, entry in _modules(release, built).items() if _is_extra(path)}
            files[f"/lib/modules/{release}/kernel/drivers/gpu/{module.name}"] = File(module.read_bytes())
            depends = [f"linux-modules-{release}", f"linux-image-{release} | linux-image-unsigned-{release}"]
            yield Package(name, version, files, depends=depends, scripts=_depmod(release), section="kernel")
        else:
            raise RigError(f"the rig does not know what is in the package {name}")


def image(name: str, version: str, release: str, built: Path) -> Package:
    """Return the package with the kernel itself; its scripts run the hooks that make initramfs, modules and menu."""
    files = {f"/boot/vmlinuz-{release}": File((built / f"boot/vmlinuz-{release}").read_bytes(), 0o600)}
    scripts = {script: _hooks(script, release) for script in ("preinst", "postinst", "prerm", "postrm")}
    depends = [f"linux-modules-{release}", "kmod", "linux-base", "initramfs-tools | linux-initramfs-tool"]
    return Package(name, version, files, depends=depends, scripts=scripts, section="kernel")


def headers(name: str, version: str, release: str, built: Path) -> Package:
    """Return the package that DKMS builds modules with."""
    source = f"/usr/src/linux-headers-{release}"
    files: dict[str, Union[File, Link]] = {f"/lib/modules/{release}/build": Link(source)}
    for path in _files(built / "headers"):
        mode = path.stat().st_mode & 0o777
        files[f"{source}/{path.relative_to(built / 'headers')}"] = File(path.read_bytes(), mode)
    scripts = {
        "postinst": f'#!/bin/sh\nset -e\n[ "$1" != configure ] || [ ! -d /etc/kernel/header_postinst.d ] ||'
        f" run-parts --report --exit-on-error --arg={release} /etc/kernel/header_postinst.d\n"
    }
    depends = ["gcc-12 | gcc", "make", "libelf1"]
    return Package(name, version, files, depends=depends, scripts=scripts, section="kernel")


def gpu_module(release: str, built: Path) -> Path:
    """Return the fixture GPU's kernel module for this kernel."""
    recipe = {"version": 1, "kernel": built.name, "source": GPU_SOURCE.read_text()}
    folder = cache.artifact(f"gpu-module-{release}", recipe, lambda target: _build_gpu(built, target))
    return folder / "xpu_rig_gpu.ko"


def _build_gpu(built: Path, target: Path) -> None:
    with debian.workroom(SUITE, target.with_name(f"{target.name}.work")) as root:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        chroot = ["chroot", str(root)]
        run([*chroot, "apt-get", "update", "-q"], env=quiet)
        run([*chroot, "apt-get", "install", "-y", "-q", "--no-install-recommends", "gcc", "make", "libelf1"], env=quiet)
        run(["cp", "--archive", str(built / "headers"), str(root / "headers")])
        compile_module(root, "/headers", "xpu_rig_gpu", GPU_SOURCE.read_text())
        run([*chroot, "strip", "--strip-debug", "/module/xpu_rig_gpu.ko"])
        shutil.copyfile(root / "module/xpu_rig_gpu.ko", target / "xpu_rig_gpu.ko")


def compile_module(root: Path, tree: str, name: str, source: str) -> Path:
    """Compile one C file in a root file system that has a compiler and, at ``tree``, kernel headers."""
    write(root / "module/Makefile", f"obj-m := {name}.o\n")
    write(root / f"module/{name}.c", source)
    run(["chroot", str(root), "make", "--silent", "-C", tree, "M=/module", "modules"])
    return root / f"module/{name}.ko"


def _modules(release: str, built: Path) -> dict[str, Union[File, Link]]:
    top = f"/lib/modules/{release}"
    files: dict[str, Union[File, Link]] = {
        f"/boot/{name}-{release}": File((built / f"boot/{name}-{release}").read_bytes(), mode)
        for name, mode in (("config", 0o644), ("System.map", 0o600))
    }
    for path in _files(built / "modules"):
        name = str(path.relative_to(built / "modules"))
        if name.startswith("kernel/") or name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            files[f"{top}/{name}"] = File(path.read_bytes())
    return files


def _is_extra(path: str) -> bool:
    return path.partition("/kernel/")[2].startswith(EXTRA)


def _depmod(release: str) -> dict[str, str]:
    folder = f"/lib/modules/{release}"
    return {
        "postinst": f'#!/bin/sh\nset -e\n[ "$1" != configure ] || depmod {release}\n',
        # What depmod wrote belongs to no package; the folder goes with the last of them.
        "postrm": "#!/bin/sh\nset -e\n"
        f'if [ "$1" = remove ]; then\n  if [ -d {folder}/kernel ]; then depmod {release}; else\n'
        f"    rm -f {folder}/modules.*\n    rmdir --ignore-fail-on-non-empty {folder} 2> /dev/null || true\n  fi\nfi\n",
    }


def _hooks(script: str, release: str) -> str:
    folder = f"/etc/kernel/{script}.d"
    return (
        "#!/bin/sh\nset -e\n"
        + 'case "$1" in abort-*) exit 0 ;; esac\n'
        + f'[ ! -d {folder} ] || DEB_MAINT_PARAMS="$*" run-parts --report --exit-on-error'
        f" --arg={release} --arg=/boot/vmlinuz-{release} {folder}\n"
    )


def settings() -> str:
    """Return the text to add to a tinyconfig."""
    lines = [f"CONFIG_{option}" if "=" in option else f"CONFIG_{option}=y" for option in OPTIONS.split()]
    return "\n".join([*lines, *(f"# CONFIG_{option} is not set" for option in WITHOUT.split())]) + "\n"


def missing(config: str) -> list[str]:
    """Return the options that a finished configuration lacks; an option that went away builds a kernel without it."""
    lines = set(config.splitlines())
    return [line for line in settings().splitlines() if not line.startswith("#") and line not in lines]


def makefile(text: str, release: str) -> str:
    """Return the top makefile with the release's numbers in the place of its own."""
    number, _, extra = release.partition("-")
    values = dict(zip(("VERSION", "PATCHLEVEL", "SUBLEVEL"), number.split(".")), EXTRAVERSION=f"-{extra}")
    lines = []
    for line in text.splitlines():
        name = line.partition(" ")[0]
        lines.append(f"{name} = {values.pop(name)}" if line.startswith(f"{name} =") and name in values else line)
    if values:
        raise RigError(f"the kernel's makefile has no {', '.join(values)}")
    return "\n".join(lines) + "\n"


def _build(release: str, version: str, target: Path) -> None:
    with debian.workroom(SUITE, target.with_name(f"{target.name}.work")) as root:
        chroot = ["chroot", str(root)]
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run([*chroot, "apt-get", "update", "-q"], env=quiet)
        run([*chroot, "apt-get", "install", "-y", "-q", "--no-install-recommends", *TOOLS, SOURCE], env=quiet)
        run([*chroot, "tar", "--extract", f"--file=/usr/src/{SOURCE}.tar.xz", "--directory=/usr/src"])
        tree = root / "usr/src" / SOURCE
        write(tree / "Makefile", makefile((tree / "Makefile").read_text(), release))
        make = [
            *chroot, "make", "--silent", f"--directory=/usr/src/{SOURCE}", f"--jobs={os.cpu_count()}",
            # The same bytes whoever builds it.
            "KBUILD_BUILD_TIMESTAMP=Thu Apr 20 00:00:00 UTC 2023", "KBUILD_BUILD_USER=xpu-fleet",
            "KBUILD_BUILD_HOST=fixture", f"KBUILD_BUILD_VERSION={version.rpartition('-')[2].partition('.')[2]}-fixture",
        ]  # fmt: skip
        run([*make, "tinyconfig"])
        with (tree / ".config").open("a") as config:
            config.write(settings())
        run([*make, "olddefconfig"])
        absent = missing((tree / ".config").read_text())
        if absent:
            raise RigError(f"{SOURCE} does not take these options: {' '.join(absent)}")
        run([*make, "bzImage", "modules"])
        run([*make, "INSTALL_MOD_PATH=/out", "INSTALL_MOD_STRIP=1", "DEPMOD=true", "modules_install"])
        boot = target / "boot"
        boot.mkdir()
        for name, path in (("vmlinuz", "arch/x86/boot/bzImage"), ("System.map", "System.map"), ("config", ".config")):
            (boot / f"{name}-{release}").write_bytes((tree / path).read_bytes())
        modules = root / "out/lib/modules" / release
        for link in ("build", "source"):
            (modules / link).unlink(missing_ok=True)
        run(["cp", "--recursive", str(modules), str(target / "modules")])
        _headers(tree, target / "headers")


def _headers(tree: Path, target: Path) -> None:
    """Copy what building a module of one's own reads, and the programs that the kernel's build made for it."""
    arch = tree / "arch/x86"
    wanted = [tree / ".config", tree / "Module.symvers", tree / "Makefile", tree / "Kbuild"]
    wanted += [*arch.glob("Makefile*"), *(path for name in ("include", "scripts") for path in _files(tree / name))]
    wanted += [path for name in ("include", "scripts") for path in _files(arch / name)]
    objtool = tree / "tools/objtool/objtool"
    wanted += [objtool] if objtool.exists() else []
    for path in wanted:
        name = path.relative_to(tree)
        if any(parent in NOT_HEADERS for parent in map(str, name.parents)):
            continue
        # Empty files that stand for one option each, and what only the next build of the whole kernel reads.
        stamp = name.parts[:2] == ("include", "config") and name.name not in ("auto.conf", "kernel.release")
        if stamp or name.suffix in (".o", ".cmd", ".d"):
            continue
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        copy.chmod(path.stat().st_mode & 0o777)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
