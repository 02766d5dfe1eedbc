#!/usr/bin/python
"""Ansible module: which kernel GRUB boots, by default and once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: boot_kernel
short_description: Boot a kernel once on trial, or make it GRUB's default
version_added: "1.0.0"
description:
  - Reads GRUB's menu, its settings and its environment block, and names menu entries by their id, never by position.
  - Without O(state) it only returns RV(boot); what would stand in the way of a change is in C(boot.problems).
  - A kernel on trial is booted for one boot. Unless it is confirmed within O(confirm_timeout) a timer on the node
    reboots it, and a panic does as well; GRUB then boots its default, which has to be the kernel that runs now.
  - A new menu is made beside the present one, checked, and put in its place only if it boots what it should.
author: The xpu.fleet developers (@xpu-fleet)
options:
  release:
    description: Kernel release, as C(uname -r) says it. Needed for every O(state) but V(absent).
    type: str
  state:
    description:
      - V(once) boots the kernel at the next boot only, by GRUB's C(next_entry), or by kexec where GRUB cannot write
        its environment block. It has no effect where the kernel runs.
      - V(default) makes it the kernel of every boot. A menu that was made while the initramfs of a kernel was missing,
        whichever that is, is created again.
      - V(followed) leaves the default to GRUB's other settings again, which boot each newer kernel that comes. It has
        no effect where they would boot another kernel now, or while a trial is open.
      - V(absent) takes everything away that the others wrote.
    type: str
    choices: [once, default, followed, absent]
  panic:
    description:
      - With O(state=default), the seconds after which a kernel that failed reboots; C(panic=) on the command line of
        all entries, unless other settings of GRUB have one. 0 leaves the command line alone.
    type: int
    default: 0
  confirm:
    description: With O(state=default), whether the trial of this kernel is over, which disarms the timer.
    type: bool
    default: false
  confirm_timeout:
    description: With O(state=once), the seconds from the start of the kernel within which it has to be confirmed.
    type: int
    default: 600
attributes:
  check_mode:
    description: Reads, checks and compares, changes nothing.
    support: full
  diff_mode:
    description: Shows GRUB's default, the settings, the environment block's entry, units and the record of the trial.
    support: full
"""

EXAMPLES = r"""
- name: Read what this node boots
  xpu.fleet.boot_kernel:
  register: kernel_found

- name: Set GRUB's default to the running kernel
  xpu.fleet.boot_kernel:
    release: "{{ ansible_facts['kernel'] }}"
    state: default
    panic: 30

- name: Set the new kernel for one boot
  xpu.fleet.boot_kernel:
    release: 6.8.0-31-generic
    state: once
"""

RETURN = r"""
boot:
  description: What was found; after a change, what is now.
  type: dict
  returned: always
  contains:
    running:
      description: The release of the running kernel.
      type: str
    boot_id:
      description: The id of this boot.
      type: str
    grub:
      description: Whether GRUB booted it, or kexec with what GRUB's menu says.
      type: bool
    kexec:
      description: Whether kexec started it, so that GRUB may never have loaded it.
      type: bool
    entries:
      description: The entries of the menu with C(title), C(path), C(release) ("" for other systems) and C(recovery).
      type: list
      elements: dict
    default:
      description: The release that is booted by default, or "".
      type: str
    default_path:
      description: The path of that entry.
      type: str
    next:
      description: The release that GRUB boots once at the next boot, or "".
      type: str
    block:
      description: Whether GRUB can write its environment block (C(writable)), and why not (C(reason)).
      type: dict
    method:
      description: How a kernel is booted once here, V(grubenv), V(kexec) or "".
      type: str
    own:
      description: Whether the settings have a file of this module.
      type: bool
    follows:
      description: Whether GRUB's other settings boot the newest kernel, and that is the running one.
      type: bool
    origin:
      description: The kernel that ran when this module changed something for the first time, "" where it never did.
      type: str
    trial:
      description:
        - Empty, or C(release), C(origin), C(attempt), C(outcome) and C(explanation) of the trial that is not closed.
        - The outcome is V(armed) before the boot, V(running) in it, V(fell_back) after the node returned.
      type: dict
    default_untried:
      description:
        - Whether this boot was the trial of the kernel that is the default, so that GRUB has not booted it as such.
      type: bool
    problems:
      description: What stands in the way of a change, a sentence each.
      type: list
      elements: str
    notes:
      description: Problems of the menu that setting a default repairs, a sentence each.
      type: list
      elements: str
method:
  description: As in RV(boot).
  type: str
  returned: success
reboot_command:
  description: The command that boots the kernel on trial, "" for an ordinary reboot.
  type: str
  returned: success
"""

from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.boot.boot import Boot, BootState  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.boot.files import DROP_IN  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402

ROOT = Path("/")

#: The name for kernels whose menu entries lack an existing initramfs.
LACKING = "entries without their initramfs"


def describe(state: BootState) -> str:
    """Return a state as text for a diff."""
    trial = state.trial
    texts = {
        "GRUB's default": "as the other settings say" if state.default is None else state.default,
        "panic": state.panic,
        "next_entry": state.next_entry,
        LACKING: ", ".join(state.lacking),
        f"/{DROP_IN}": state.drop_in,
        **{f"/{path}": text for path, text in (*trial.units.items(), *trial.links.items())},
        "trial": trial.record.text() if trial.record else trial.damaged,
        "kexec": trial.kexec,
        "origin": state.origin,
    }
    blocks = []
    for name, text in texts.items():
        if text:
            blocks.append(f"{name}:\n{text.rstrip()}\n" if "\n" in text else f"{name}: {text}\n")
    return "\n".join(blocks)


def apply(boot: Boot, parameters: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Reach the state of the parameters; return the dependent parts of the result."""
    state, release = parameters["state"], parameters["release"] or ""
    found = boot.state()
    if state == "default":
        wanted = boot.want_default(release, parameters["panic"], parameters["confirm"])
    elif state == "once":
        wanted = boot.want_once(release, parameters["confirm_timeout"])
    elif state == "followed":
        wanted = boot.want_followed(release)
    elif state == "absent":
        wanted = boot.want_absent()
    else:
        wanted = found
    changed = wanted != found
    if changed and not check:
        if state == "default":
            boot.make_default(release, wanted, confirm=parameters["confirm"])
        elif state == "once":
            boot.arm(wanted)
        elif state == "followed":
            boot.follow(release)
        else:
            boot.remove()
    trial = state == "once" and release != boot.running
    return {
        "changed": changed,
        "reboot_command": "systemctl kexec" if trial and boot.method() == "kexec" else "",
        "diff": {
            "before_header": "what this node boots",
            "after_header": "what this node boots",
            "before": describe(found),
            "after": describe(wanted),
        },
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "str"},
            "state": {"type": "str", "choices": ["once", "default", "followed", "absent"]},
            "panic": {"type": "int", "default": 0},
            "confirm": {"type": "bool", "default": False},
            "confirm_timeout": {"type": "int", "default": 600},
        },
        required_if=[("state", state, ["release"]) for state in ("once", "default", "followed")],
        supports_check_mode=True,
    )
    boot = Boot(ROOT)
    try:
        result = apply(boot, module.params, check=module.check_mode)
    except (FleetError, OSError) as error:
        module.fail_json(msg=str(error), boot=boot.facts())
    if result["changed"] and not module.check_mode:
        boot = Boot(ROOT)
    module.exit_json(boot=boot.facts(), method=boot.method(), **result)


if __name__ == "__main__":
    main()
