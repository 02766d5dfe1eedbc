"""Command line of the rig."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from rig import cache, fleet, host
from rig.host import RigError
from rig.userland import USER


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one command; returns the exit status: 0, or 1 after a message that says what to do."""
    options = parser().parse_args(arguments)
    try:
        host.require_root()
        status: int = options.command(options)
    except RigError as error:
        print(f"rig: {error}", file=sys.stderr)
        return 1
    return status


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(prog="rig", description="Test hosts for xpu.fleet: containers and virtual machines.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    prepare = commands.add_parser("prepare", help="install the rig's tools on this machine, after naming them")
    prepare.add_argument("--machines", action="store_true", help="also the tools for virtual machines (QEMU)")
    prepare.set_defaults(command=do_prepare)

    up = commands.add_parser("up", help="start a fleet; does nothing if it is up")
    up.set_defaults(command=do_up)
    refresh = commands.add_parser("mirror", help="rebuild the content of a running fleet's mirror")
    refresh.set_defaults(command=do_mirror)
    for command in (up, refresh):
        command.add_argument(
            "--nodes", type=Path, help="YAML file with the fleet's platforms (default: fleets/NAME.yml)"
        )
    down = commands.add_parser("down", help="stop a fleet and remove all of it except the cache")
    down.set_defaults(command=do_down)
    supervise = commands.add_parser("supervise", help=argparse.SUPPRESS)
    supervise.set_defaults(command=do_supervise)
    for command in (up, refresh, down, supervise):
        command.add_argument("--fleet", required=True, metavar="NAME")

    status = commands.add_parser("status", help="show the fleets that are up and how to reach their nodes")
    status.set_defaults(command=do_status)
    shell = commands.add_parser("shell", help="open a shell on a node, or run a command there")
    shell.add_argument("node")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    shell.set_defaults(command=do_shell)
    return top


def do_prepare(options: argparse.Namespace) -> int:
    """Install the missing tools."""
    missing = host.missing_packages(options.machines)
    host.install(missing)
    host.require_tools(options.machines)
    if not missing:
        host.say("all tools are installed")
    return 0


def do_up(options: argparse.Namespace) -> int:
    """Start a fleet."""
    loaded = fleet.Fleet.load(options.fleet, options.nodes)
    host.require_tools(loaded.has_machines)
    loaded.up()
    return 0


def do_mirror(options: argparse.Namespace) -> int:
    """Renew a mirror's content."""
    loaded = fleet.Fleet.load(options.fleet, options.nodes)
    host.require_tools(loaded.has_machines)
    loaded.refresh()
    return 0


def do_down(options: argparse.Namespace) -> int:
    """Stop a fleet; one that is not up counts as stopped."""
    for found in fleet.fleets():
        if found.name == options.fleet:
            found.down()
            return 0
    # Without a record the cache was emptied under a running fleet, or the fleet never existed.
    if (fleet.FLEETS / f"{options.fleet}.yml").exists():
        fleet.Fleet.load(options.fleet).down()
    else:
        host.say(f"no fleet {options.fleet} is up")
    return 0


def do_supervise(options: argparse.Namespace) -> int:
    """Run a fleet's nodes and mirror (``up`` starts this)."""
    fleet.find(options.fleet).supervise()
    return 0


def do_status(_: argparse.Namespace) -> int:
    """Print fleets, nodes and addresses."""
    for found in fleet.fleets():
        state = "up" if found.running() else "not running"
        print(f"{found.name}: {state}, mirror {found.nodes[0].mirror}, files {found.folder}")
        for node in found.nodes:
            print(f"  {node.name:12} {node.address:14} {node.userland.name:12} {node.kind}")
    return 0


def do_shell(options: argparse.Namespace) -> int:
    """Replace this process by SSH to a node."""
    for found in fleet.fleets():
        for node in found.nodes:
            if node.name == options.node:
                known = found.folder / "known_hosts"
                terminal = [] if options.words else ["-t"]
                command = ["ssh", *terminal, "-q", "-i", str(fleet.ssh_key()), "-o", f"UserKnownHostsFile={known}"]
                os.execvp("ssh", [*command, f"{USER}@{node.address}", *options.words])  # noqa: S606
    raise RigError(f"no node {options.node} is up (fleets: {cache.RUN})")
