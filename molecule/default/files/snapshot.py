"""Print a node's complete state as JSON: packages with their marks, settings, and the name of every file.

With argument ``touched``, every file, compiled Python too, has the time of its last change: every write or rename
leaves a trace, and files made and removed again show in the time of their directory.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

#: Paths that change by themselves, hold no state of the node, or are logs.
PASSING = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/cache", "/var/lib/apt", "/var/log", "/var/tmp")
#: Where the content of a file counts. Larger files are kernels or the like; distributions of Python have their own
#: checksums, which layer python compares.
READ = ("/boot", "/etc", "/opt/xpu", "/usr/local/bin")
LARGEST = 1024**2


def output(*command: str) -> list[str]:
    """Return a command's output as lines."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"})
    return done.stdout.splitlines()


def is_read(path: Path, size: int) -> bool:
    """Tell whether the content of a file of this size counts."""
    return any(map(path.is_relative_to, READ)) and size <= LARGEST and "site-packages" not in path.parts


def describe(path: Path, touched: bool) -> str:
    """Return kind, owner and mode of a file, in some places also its content."""
    found = path.lstat()
    words = [stat.filemode(found.st_mode), f"{found.st_uid}:{found.st_gid}"]
    if touched:
        # Size, content, mode and owner cannot change without it, and nobody can set it.
        words.append(str(found.st_ctime_ns))
    if path.is_symlink():
        words.append(str(path.readlink()))
    elif path.is_file() and is_read(path, found.st_size):
        words.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return " ".join(words)


def files(touched: bool) -> dict[str, str]:
    """Return every file, directory and link by its path."""
    found = {}
    for root, directories, names in os.walk("/"):
        folder = Path(root)
        directories[:] = [name for name in directories if str(folder / name) not in PASSING]
        if not touched:
            directories[:] = [name for name in directories if name != "__pycache__"]
        for path in (folder / name for name in directories + names):
            if touched or path.suffix != ".pyc":
                found[str(path)] = describe(path, touched)
    return found


def main() -> None:
    """Print it."""
    packages = output("dpkg-query", "-W", "-f", "${binary:Package}\t${db:Status-Abbrev}\t${Version}\n")
    print(
        json.dumps(
            {
                "packages": {line.split("\t")[0]: line.split("\t", 1)[1] for line in packages},
                "manual": sorted(output("apt-mark", "showmanual")),
                "holds": sorted(output("apt-mark", "showhold")),
                "architectures": output("dpkg", "--print-foreign-architectures"),
                "users": sorted(output("getent", "passwd")),
                "groups": sorted(output("getent", "group")),
                "enabled": sorted(output("systemctl", "list-unit-files", "--state=enabled", "--no-legend", "--plain")),
                "files": files("touched" in sys.argv),
            }
        )
    )


if __name__ == "__main__":
    main()
