"""A node's packages in a file, with stand-ins for dpkg-query and apt that read and change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_COMMAND = '''#!/usr/bin/env python3
import json, pathlib, sys
path = pathlib.Path({state!r})
node = json.loads(path.read_text())
packages, name, arguments = node["packages"], pathlib.Path(sys.argv[0]).name, sys.argv[1:]

def needed(kept):
    """Every package that those in KEPT need, themselves included."""
    seen, rest = set(), list(kept)
    while rest:
        package = rest.pop()
        if package in packages and package not in seen:
            seen.add(package)
            rest += packages[package].get("depends", [])
    return seen

if name == "dpkg-query":
    for package, entry in packages.items():
        version, want = entry["version"], "hold" if entry.get("held") else "install"
        status = "installed" if version else "config-files"
        package, _, architecture = package.partition(":")
        print(package, architecture or "all", want, status, version, sep="\\t")
elif name == "apt-cache":
    for package in arguments:
        for version in node["offered"].get(package, []):
            print(package, version, "http://archive.example.com jammy/main amd64 Packages", sep=" | ")
elif name == "apt-mark" and arguments[0] == "showmanual":
    print("\\n".join(package for package, entry in packages.items() if entry.get("manual")))
elif name == "apt-mark":
    key, value = {{"auto": ("manual", False), "manual": ("manual", True),
                  "hold": ("held", True), "unhold": ("held", False)}}[arguments[0]]
    for package in arguments[1:]:
        packages[package][key] = value
elif name == "apt-get":
    node["calls"].append(arguments)
    operands = [argument for argument in arguments[1:] if not argument.startswith("-")]
    gone = {{operand[:-1] for operand in operands if operand.endswith("-")}}
    while True:  # what needs a package that goes, goes too
        more = {{p for p, entry in packages.items() if gone & set(entry.get("depends", []))}} - gone
        if not more:
            break
        gone |= more
    left = [package for package in packages if package not in gone]
    if "-oAPT::Get::AutomaticRemove=true" in arguments:
        gone |= set(left) - needed(package for package in left if packages[package].get("manual"))
    for package in sorted(gone):
        print("Purg", package, "[1]")
    for package in [operand.partition("=")[0] for operand in operands if "=" in operand]:
        for arriving in [package, *node.get("brings", {{}}).get(package, [])]:
            print("Inst", arriving, "(1 main [amd64])")
    if "--simulate" not in arguments:
        if node.get("broken"):
            sys.exit("E: Sub-process /usr/bin/dpkg returned an error code (1)")
        for package in gone:
            packages.pop(package, None)
        for operand in operands:
            if "=" in operand:
                package, version = operand.split("=")
                packages.setdefault(package, {{}}).update(version=version, manual=True)
path.write_text(json.dumps(node))
'''


class Packages:
    """What dpkg and apt know on a node that is a file."""

    def __init__(self, directory: Path, **packages: dict[str, Any]) -> None:
        self.path = str(directory / "bin")
        self.records = directory / "found"
        self._state = directory / "node.json"
        Path(self.path).mkdir()
        for name in ("dpkg-query", "apt-mark", "apt-get", "apt-cache"):
            command = Path(self.path) / name
            command.write_text(_COMMAND.format(state=str(self._state)))
            command.chmod(0o755)
        self.write({"packages": packages, "offered": {}, "calls": []})

    def read(self) -> dict[str, Any]:
        """Return everything that the stand-ins know."""
        node: dict[str, Any] = json.loads(self._state.read_text())
        return node

    def write(self, node: dict[str, Any]) -> None:
        """Put something else in its place."""
        self._state.write_text(json.dumps(node))

    def change(self, **packages: dict[str, Any] | None) -> None:
        """Install packages as given, None for those that go."""
        node = self.read()
        node["packages"].update(packages)
        self.write({**node, "packages": {name: entry for name, entry in node["packages"].items() if entry is not None}})

    def offer(self, **versions: list[str]) -> None:
        """Let the repositories have versions."""
        self.write({**self.read(), "offered": versions})

    @property
    def installed(self) -> dict[str, dict[str, Any]]:
        """Packages with version and marks."""
        found: dict[str, dict[str, Any]] = self.read()["packages"]
        return found

    def record(self, layer: str) -> dict[str, Any]:
        """Return the record of a layer."""
        found: dict[str, Any] = json.loads((self.records / f"{layer}.json").read_text())
        return found
