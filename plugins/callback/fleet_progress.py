"""Shows one live line per node on a terminal, plain lines elsewhere, and at the end the time of each layer."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_progress
type: stdout
short_description: One live line per node, and the time per layer
version_added: "1.0.0"
description:
  - On a terminal every node has one line that stays in its place. It shows layer, step, time, and while the node
    reboots how long it may still take. Where nodes outnumber lines, those that are busy, failed or last heard of are
    shown and the rest is counted.
  - Elsewhere, in a pipe or a log, a line is written when a node begins a layer, changes something, reboots or fails.
  - Failures, warnings, differences and messages of M(ansible.builtin.debug) are shown in full either way, as
    P(ansible.builtin.default#callback) shows them. What O(ignore:no_log) hides is hidden here too.
  - At the end stand the usual recap and the time that each layer took, without the time that nodes waited for each
    other.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
options:
  live:
    description: Whether to show live lines on a terminal; V(false) writes plain lines there too.
    type: bool
    default: true
    env:
      - name: FLEET_PROGRESS_LIVE
    ini:
      - section: fleet_progress
        key: live
  lines:
    description: The most lines to take of the terminal; V(0) takes all that it has.
    type: int
    default: 0
    env:
      - name: FLEET_PROGRESS_LINES
    ini:
      - section: fleet_progress
        key: lines
  per_host:
    description:
      - Up to this number of nodes the table of times has a column for each of them, where that fits.
      - With more of them it shows the longest time, the node that took it, and the sum.
    type: int
    default: 6
    env:
      - name: FLEET_PROGRESS_PER_HOST
    ini:
      - section: fleet_progress
        key: per_host
notes:
  - Tasks that changed nothing are not written, whatever O(display_ok_hosts) and O(display_skipped_hosts) say; with
    C(-v) their results are.
  - With C(--step), a task debugger or strategy P(ansible.builtin.debug#strategy), which ask questions, there are no
    live lines. They give way to prompts of the play and of M(ansible.builtin.pause), not to SSH's question about an
    unknown host key.
requirements:
  - C(stdout_callback = xpu.fleet.fleet_progress) in C(ansible.cfg), or E(ANSIBLE_STDOUT_CALLBACK)
  - Python package C(rich) where C(ansible-playbook) runs
"""

import atexit
import os
import sys
import textwrap
import threading
import time
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleError
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as DefaultCallback
from ansible.template import Templar
from ansible_collections.xpu.fleet.plugins.module_utils import progress
from ansible_collections.xpu.fleet.plugins.module_utils.plain import one_line
from ansible_collections.xpu.fleet.plugins.plugin_utils.live_lines import MISSING, LiveLines
from ansible_collections.xpu.fleet.plugins.plugin_utils.plain_output import PlainDisplay, with_plain_results

REBOOTS = ("reboot", "ansible.builtin.reboot", "ansible.legacy.reboot")
#: The default timeout of ansible.builtin.reboot.
REBOOT_TIMEOUT = 600.0
PAUSES = ("pause", "ansible.builtin.pause", "ansible.legacy.pause")


@with_plain_results
class CallbackModule(DefaultCallback):
    """Shows failures as the default callback does, and a line per node instead of the rest."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "xpu.fleet.fleet_progress"

    def __init__(self) -> None:
        if MISSING:
            raise AnsibleError(
                "Callback xpu.fleet.fleet_progress needs the Python package rich where ansible-playbook runs. "
                f"Install it (pip install rich; Python here is {sys.executable}), or choose another stdout_callback. "
                f"({MISSING})"
            )
        super().__init__()
        self._display: Any = PlainDisplay(self._display)
        self._lock = threading.Lock()
        self._fleet = progress.Fleet(time.monotonic())
        self._live: LiveLines | None = None
        self._steps: dict[str, str] = {}
        self._layers: dict[str, str] = {}
        self._batches: dict[str, set[str]] = {}
        self._marks = progress.MARKS
        self._free = False
        atexit.register(self._hide)

    # The terminal

    def _show(self) -> None:
        """Show live lines, if there is a terminal."""
        asks = C.config.get_config_value("ENABLE_TASK_DEBUGGER") or context.CLIARGS.get("step")
        terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        if not self._live and terminal and not asks and self.get_option("live"):
            if "utf" not in (sys.stdout.encoding or "").lower():
                self._marks = progress.PLAIN_MARKS
            self._live = LiveLines(self._display._lock, self._frame, int(self.get_option("lines")))
        if self._live:
            self._live.start()

    def _hide(self) -> None:
        """Remove the live lines: for a question, or at the end."""
        if self._live:
            self._live.stop()

    def _frame(self, width: int, height: int) -> list[list[progress.Span]]:
        """Return the present live lines."""
        note = " (check mode)" if context.CLIARGS.get("check") else ""
        with self._lock:
            lines = progress.frame(self._fleet, time.monotonic(), (width, height), self._marks, note)
        if self._marks is progress.PLAIN_MARKS:
            return [[(text.replace("…", "~"), style) for text, style in line] for line in lines]
        return lines

    def _say(self, text: str, color: str | None = None) -> None:
        """Write a permanent line. The next failure repeats the task's name, which would otherwise be too far above."""
        self._last_task_banner = None
        self._display.display(f"{progress.clock(time.monotonic() - self._fleet.began)} {text}", color=color)

    def _news(self, host: str, layer: str, news: list[str]) -> None:
        """Redraw the live lines, or write a node's news without them."""
        if self._live:
            self._live.news = True
            return
        for text in news:
            known = f"{layer}: " if layer and layer != progress.OTHER else ""
            self._say(f"{host}: {known}{text}", C.COLOR_CHANGED if text.startswith("changed") else None)

    # Nodes

    def _layer(self, task: Any) -> str:
        """Return the layer of a task, by the roles around it."""
        if task._uuid not in self._layers:
            roles = [(role.get_name(), role._from_files.get("tasks") or "") for role in task.get_dep_chain() or []]
            # An include of a role is skipped if there is nothing to do: it begins no layer.
            tags = [] if isinstance(task, TaskInclude) else task.tags
            self._layers[task._uuid] = progress.layer_of(roles, tags, task.action)
        return self._layers[task._uuid]

    def _reboot_seconds(self, host: Any, task: Any) -> float | None:
        """Return the time limit of a reboot, None for other tasks. Nothing here may break a run."""
        if task.action not in REBOOTS or task.check_mode:
            return None
        given = task.args.get("reboot_timeout", task.args.get("reboot_timeout_sec", REBOOT_TIMEOUT))
        try:
            variables = self._play.get_variable_manager().get_vars(play=self._play, host=host, task=task)
            return float(Templar(loader=self._play.get_loader(), variables=variables).template(given))
        except Exception:
            return REBOOT_TIMEOUT

    def _finish(self, result: Any, state: str) -> None:
        """Note the result of a node's task."""
        host = result._host.get_name()
        with self._lock:
            news = self._fleet.finish(host, state, time.monotonic())
            layer = self._fleet.node(host).layer
        self._news(host, layer, news)

    def _warn(self, result: Any) -> None:
        """Show warnings and deprecations of a result."""
        if hasattr(self, "_handle_warnings_and_exception"):
            self._handle_warnings_and_exception(result)
        else:  # ansible-core before 2.19
            self._handle_warnings(result._result)

    def _handle_exception(self, result: Any, use_stderr: bool = False) -> None:
        """Show the error, except of a task with no_log: ansible-core would print its message here."""
        if "censored" in result:
            result.pop("exception", None)
        else:
            super()._handle_exception(result, use_stderr)

    def _handle_warnings(self, res: Any) -> None:
        """Show warnings and deprecations; for a task with no_log only that there are some."""
        if "censored" in res:
            hidden = [res.pop(key, None) for key in ("warnings", "deprecations")]
            if any(hidden):
                self._display.warning("Warnings of a task with no_log are not shown.")
        else:
            super()._handle_warnings(res)

    def _verbose(self) -> bool:
        """Whether to show results too."""
        return bool(self._display.verbosity > 0)

    def _tell(self, result: Any) -> None:
        """Show the message of a debug task."""
        self._clean_results(result._result, result._task.action)
        told = result._result.get("msg")
        if isinstance(told, list) and all(isinstance(line, str) for line in told):
            told = "\n".join(told)
        if not isinstance(told, str):
            told = self._dump_results(result._result).strip("\n")
        # What one node reports for all is not about that node: the fleet's table, for one. A free strategy repeats it.
        for_all = result._task.run_once and not self._free
        who = self._steps.get(result._task._uuid) if for_all else result._host.get_name()
        told = "\n" + textwrap.indent(told.rstrip("\n"), "    ") if "\n" in told else f" {told}"
        self._say(f"{who}:{told}")

    # What Ansible calls

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Start the clock."""
        super().v2_playbook_on_start(playbook)
        self._fleet = progress.Fleet(time.monotonic())
        if context.CLIARGS.get("check"):
            self._say("Check mode: nothing is changed.")

    def v2_playbook_on_vars_prompt(self, *args: Any, **kwargs: Any) -> None:
        """Hide the live lines for a question."""
        self._hide()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Begin a play, or the next batch of one."""
        self._play = play
        name = play.get_name().strip()
        try:
            inventory = play.get_variable_manager()._inventory
            batch = [host.name for host in inventory.get_hosts(play.hosts, order=play.order)]
            every = [host.name for host in inventory.get_hosts(play.hosts, ignore_restrictions=True)]
        except Exception:
            batch, every = [], []  # nodes then appear with their first task
        earlier = self._batches.setdefault(play._uuid, set())
        earlier.update(batch)
        with self._lock:
            self._fleet.begin_play(name, batch, [host for host in every if host not in earlier], time.monotonic())
            batch, every = (self._fleet.left_of(hosts) for hosts in (batch, every))
        if not batch and every:  # a batch whose nodes all failed before
            return
        nodes = f"{len(batch)} node{'s' if len(batch) != 1 else ''}"
        self._say(f"play: {name} ({nodes}{f' of {len(every)}' if len(every) > len(batch) else ''})")
        if play.strategy in ("debug", "ansible.builtin.debug"):
            self._hide()
        else:
            self._show()

    def _task_start(self, task: Any, prefix: str | None = None) -> None:
        """Keep a task's name for failures; it may be a template later."""
        if prefix is not None:
            self._task_type_cache[task._uuid] = prefix
        self._free = self._play.strategy.rsplit(".", 1)[-1] in ("free", "host_pinned")
        self._last_task_name = None if self._free else task.get_name().strip()
        # Ansible's own task at the start of a role has the role's whole description in its name.
        self._steps[task._uuid] = one_line((task.name or task.action).partition(" against arg spec ")[0])
        if task.action in PAUSES:
            self._hide()
        elif self._live:
            self._live.start()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """A node begins a task."""
        layer, reboot = self._layer(task), self._reboot_seconds(host, task)
        step = self._steps.get(task._uuid) or one_line(task.name or task.action)
        with self._lock:
            news = self._fleet.start(host.get_name(), layer, step, time.monotonic(), reboot)
        self._news(host.get_name(), layer, news)

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task succeeded; shows the message of a debug task."""
        changed = bool(result._result.get("changed", False)) and not isinstance(result._task, TaskInclude)
        self._finish(result, progress.CHANGED if changed else progress.OK)
        if self._verbose():
            super().v2_runner_on_ok(result)
            return
        self._warn(result)
        if result._task.action in C._ACTION_DEBUG and not result._task.loop:
            self._tell(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """A task was skipped on this node."""
        self._finish(result, progress.OK)
        self._warn(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A task failed; shows it as the default callback does."""
        self._finish(result, progress.OK if ignore_errors else progress.FAILED)
        super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A node is unreachable; shows why."""
        self._finish(result, progress.OK if result._task.ignore_unreachable else progress.UNREACHABLE)
        super().v2_runner_on_unreachable(result)

    def v2_runner_retry(self, result: Any) -> None:
        """A node retries its task."""
        tried, of = result._result.get("attempts", 0), result._result.get("retries", 0)
        with self._lock:
            self._fleet.attempt(result._host.get_name(), tried + 1, of)
        self._news(result._host.get_name(), "", [])
        if self._verbose():
            super().v2_runner_retry(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Show an item's message of a debug task."""
        if self._verbose():
            super().v2_runner_item_on_ok(result)
            return
        self._warn(result)
        if result._task.action in C._ACTION_DEBUG:
            self._tell(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        """Show only the warnings."""
        self._warn(result)

    def v2_on_file_diff(self, result: Any) -> None:
        """Show differences below their node and task."""
        results = result._result.get("results") if result._task.loop else None
        parts = results if isinstance(results, list) else [result._result]
        if any(part.get("changed") and part.get("diff") for part in parts if isinstance(part, dict)):
            self._say(f"{result._host.get_name()}: {self._steps.get(result._task._uuid) or result._task.get_name()}")
            self._last_task_banner = result._task._uuid
        super().v2_on_file_diff(result)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Show includes only if results are shown."""
        if self._verbose():
            super().v2_playbook_on_include(included_file)

    def v2_runner_on_async_poll(self, result: Any) -> None:
        """Show polls only if results are shown."""
        if self._verbose():
            super().v2_runner_on_async_poll(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Release the terminal, and show the summary."""
        self._hide()
        super().v2_playbook_on_stats(stats)
        width = os.get_terminal_size().columns if self._live and sys.stdout.isatty() else 120
        with self._lock:
            lines = progress.times(self._fleet, time.monotonic(), int(self.get_option("per_host")), width)
        self._display.display("TIME PER LAYER ".ljust(79, "*"))
        for line in lines:
            self._display.display(line)
