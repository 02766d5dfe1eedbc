"""Print what a node consists of, as JSON: packages with their marks, settings, and the name of every file."""

import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path

#: What changes by itself, holds no state of the node's own, or tells what happened rather than what is.
PASSING = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/cache", "/var/lib/apt", "/var/log", "/var/tmp")


def output(*command: str) -> list[str]:
    """Return the lines that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"})
    return done.stdout.splitlines()


def describe(path: Path) -> str:
    """Return kind, owner and mode of a file, in /etc also its content."""
    found = path.lstat()
    words = [stat.filemode(found.st_mode), f"{found.st_uid}:{found.st_gid}"]
    if path.is_symlink():
        words.append(str(path.readlink()))
    elif path.is_file() and path.is_relative_to("/etc"):
        words.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return " ".join(words)


def files() -> dict[str, str]:
    """Return every file, directory and link by its path."""
    found = {}
    for root, directories, names in os.walk("/"):
        folder = Path(root)
        directories[:] = [name for name in directories if str(folder / name) not in PASSING and name != "__pycache__"]
        for path in (folder / name for name in directories + names if not name.endswith(".pyc")):
            found[str(path)] = describe(path)
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
                "files": files(),
            }
        )
    )


if __name__ == "__main__":
    main()
