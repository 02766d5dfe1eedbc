"""The state of every node of a run, as lines for people: the model behind callback fleet_progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from types import MappingProxyType
from typing import Optional

from ansible_collections.xpu.fleet.plugins.module_utils.layers import LAYERS as _LAYERS

#: The layer that a role of the collection builds.
ROLE_LAYERS = {layer.role: layer.name for layer in _LAYERS}
LAYERS = tuple(ROLE_LAYERS.values())
#: Phases before the layers: comparing nodes with their stack, checks before the first change, draining
#: a node, and tasks of no role.
AUDIT, CHECKS, DRAIN, OTHER = "audit", "checks", "drain", "other"
ORDER = (OTHER, AUDIT, CHECKS, DRAIN, *LAYERS)
#: Roles that drain a node and bring it back.
_DRAINING = ("service_drain", "gateway_servers")
COLLECTION = "xpu.fleet."

WAITING, RUNNING, REBOOTING, OK, CHANGED = "waiting", "running", "rebooting", "ok", "changed"
FAILED, UNREACHABLE, DONE = "failed", "unreachable", "done"
BAD = (FAILED, UNREACHABLE)
#: The group and the mark of each state: between two tasks a node waits, whatever the result of the last one.
SEEN_AS = {OK: WAITING, CHANGED: WAITING}
MARKS: Mapping[str, str] = MappingProxyType(
    {WAITING: "·", RUNNING: "▸", REBOOTING: "↻", FAILED: "✗", UNREACHABLE: "✗", DONE: "✓"}
)
PLAIN_MARKS = {WAITING: ".", RUNNING: ">", REBOOTING: "@", FAILED: "x", UNREACHABLE: "x", DONE: "="}

#: A piece of a line and the state that gives its colour ("" for none).
Span = tuple[str, str]
#: Widest column of names; longer ones are cut.
NAME_WIDTH = 30
LAYER_WIDTH = max(len(name) for name in ORDER)


def layer_of(roles: Sequence[tuple[str, str]], tags: Collection[str] = (), action: str = "") -> str:
    """Return the layer of a task.

    ``roles`` are the roles around the task, each with its file of tasks, the outermost first: a task that
    a role includes from another one counts for its own layer.
    """
    if action == f"{COLLECTION}node_audit":
        return AUDIT
    if action.removeprefix(COLLECTION) in _DRAINING:
        return DRAIN
    name, asked_for = roles[0] if roles else ("", "")
    short = name.rsplit(".", 1)[-1]
    if name.startswith(COLLECTION) and asked_for.startswith(("expect", "preflight")):
        return AUDIT if asked_for.startswith("expect") else CHECKS
    if name.startswith(COLLECTION) and short in ROLE_LAYERS:
        return ROLE_LAYERS[short]
    tagged = [layer for layer in LAYERS if layer in tags]
    return tagged[0] if len(tagged) == 1 else short or OTHER


def clock(seconds: float) -> str:
    """Return a duration as a clock shows it: 0:07, 12:34, 1:02:03."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, which would garble other nodes' lines."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def cut(text: str, width: int) -> str:
    """Return a text cut to a width."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


@dataclass
class NodeProgress:
    """One node: its task, since when, and the time of each layer."""

    name: str
    state: str = WAITING
    layer: str = ""
    step: str = ""
    since: float = 0.0
    attempt: str = ""
    #: Deadline of a reboot.
    back_by: Optional[float] = None
    announced: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def seen_as(self) -> str:
        """Its state as shown."""
        if self.state == RUNNING and self.back_by is not None:
            return REBOOTING
        return SEEN_AS.get(self.state, self.state)

    def doing(self, now: float) -> str:
        """Its current work, in words."""
        if self.state == RUNNING and self.back_by is not None:
            # Floating-point sums may be slightly off, which must not add a second.
            left = ceil(round(self.back_by - now, 3))
            return f"rebooting, back within {left}s" if left >= 0 else f"rebooting, {-left}s over its time"
        if self.state == RUNNING:
            return f"{self.step} ({self.attempt})" if self.attempt else self.step
        if self.state in (WAITING, DONE):
            return self.state
        return f"{self.state}: {self.step}"


class Fleet:
    """Every node of a run. Methods that take events return the news of the node, for line-by-line output."""

    def __init__(self, now: float) -> None:
        self.began = now
        self.play = ""
        self.nodes: dict[str, NodeProgress] = {}

    def begin_play(self, name: str, hosts: Iterable[str], later: Iterable[str], now: float) -> None:
        """Begin a play, or its next batch: the hosts of the batch, and those of later ones."""
        self.play = one_line(name)
        for node in self.nodes.values():
            if node.state not in BAD:
                node.state, node.layer, node.step, node.since = DONE, "", "", now
        for host in (*hosts, *later):
            node = self.node(host)
            if node.state not in BAD:
                node.state, node.since = WAITING, now

    def left_of(self, hosts: Iterable[str]) -> list[str]:
        """Return the hosts that have not failed."""
        return [host for host in hosts if self.node(host).state not in BAD]

    def node(self, host: str) -> NodeProgress:
        """Return a node, a new one at its first event."""
        return self.nodes.setdefault(host, NodeProgress(host))

    def start(self, host: str, layer: str, step: str, now: float, reboot: Optional[float] = None) -> list[str]:
        """A node begins a task; ``reboot`` is the time limit if the task is a reboot."""
        node = self.node(host)
        node.state, node.layer, node.step, node.since = RUNNING, layer, one_line(step), now
        node.back_by = None if reboot is None else now + reboot
        news = []
        if layer in (DRAIN, *LAYERS) and layer != node.announced:
            node.announced = layer
            news.append("begins")
        if reboot is not None:
            news.append(node.doing(now))
        return news

    def attempt(self, host: str, number: int, of: int) -> None:
        """A node retries its task."""
        self.node(host).attempt = f"try {number} of {of}" if of >= number > 0 else "tries again"

    def finish(self, host: str, state: str, now: float) -> list[str]:
        """A node's task ended."""
        node = self.node(host)
        took, rebooted = now - node.since, node.back_by is not None
        if node.state == RUNNING:
            node.seconds[node.layer] = node.seconds.get(node.layer, 0.0) + took
        node.state, node.since, node.back_by, node.attempt = state, now, None, ""
        if state != CHANGED:
            return []
        return [f"back after {int(took)}s"] if rebooted else [f"changed: {node.step} ({clock(took)})"]

    def counts(self) -> Counter[str]:
        """Return the number of nodes in each state."""
        return Counter(node.seen_as for node in self.nodes.values())


def spoken(counts: Mapping[str, int]) -> str:
    """Return the counts in words, the most urgent first."""
    order = (FAILED, UNREACHABLE, REBOOTING, RUNNING, WAITING, DONE)
    return ", ".join(f"{counts[state]} {state}" for state in order if counts.get(state))


def chosen(nodes: Sequence[NodeProgress], room: int) -> list[NodeProgress]:
    """Return the nodes to show if there is no room for all: busy, failed, then the most recent ones.

    Failed nodes keep a third of the room if everything is busy, and leave two thirds to busy ones if everything fails.
    """
    if len(nodes) <= room:
        return list(nodes)
    recent = sorted(nodes, key=lambda node: -node.since)
    bad = [node for node in recent if node.state in BAD]
    # Reboots first, then the longest tasks: their lines keep their place.
    busy = [node for node in nodes if node.state == RUNNING]
    busy.sort(key=lambda node: (node.back_by is None, node.since))
    rest = [node for node in recent if node.state not in (*BAD, RUNNING)]
    kept = bad[: max(room // 3, room - len(busy))]
    kept += busy[: room - len(kept)]
    kept += rest[: room - len(kept)]
    names = {node.name for node in kept}
    return [node for node in nodes if node.name in names]


def frame(
    fleet: Fleet, now: float, size: tuple[int, int], marks: Mapping[str, str] = MARKS, note: str = ""
) -> list[list[Span]]:
    """Return the lines for a terminal of this width and height: the play, a node each, and the number of others."""
    width, height = size
    counts = fleet.counts()
    head = [(f"{fleet.play}{note}", "title"), (f"  {clock(now - fleet.began)}  {spoken(counts)}", "quiet")]
    room = height - 1
    nodes = list(fleet.nodes.values())
    if len(nodes) > room:
        room -= 1
    shown = chosen(nodes, max(0, room))
    names = min(NAME_WIDTH, max((len(node.name) for node in nodes), default=0))
    lines = [head, *(_line(node, now, names, marks) for node in shown)]
    if len(shown) < len(nodes):
        hidden = counts - Counter(node.seen_as for node in shown)
        lines.append([(f"  {len(nodes) - len(shown)} more: {spoken(hidden)}", "quiet")])
    return [_fitted(line, width) for line in lines[: max(0, height)]]


def _fitted(line: Sequence[Span], width: int) -> list[Span]:
    """Return a line cut to a width."""
    fitted = []
    for text, style in line:
        if width > 0:
            fitted.append((cut(text, width), style))
        width -= len(text)
    return fitted


def _line(node: NodeProgress, now: float, names: int, marks: Mapping[str, str]) -> list[Span]:
    """Return the line of one node."""
    seen = node.seen_as
    ended = seen in (WAITING, DONE)
    layer = "" if node.layer == OTHER else node.layer
    since = clock(now - node.since) if node.state == RUNNING else ""
    start = f"{marks[seen]} {cut(node.name, names):<{names}}  "
    middle = f"{cut(layer, LAYER_WIDTH):<{LAYER_WIDTH}}  {since:>7}  "
    style = node.state if node.state in (*BAD, CHANGED) else seen
    return [(start, "quiet" if ended else seen), (middle, "quiet" if ended else ""), (node.doing(now), style)]


def times(fleet: Fleet, now: float, per_host: int, width: int) -> list[str]:
    """Return a table of times per layer: by node if it fits, else the longest, its node and the sum.

    Layers below half a second on every node are omitted.
    """
    nodes = [node for node in fleet.nodes.values() if node.seconds]
    known = dict.fromkeys((*ORDER, *(layer for node in nodes for layer in node.seconds)))
    layers = [layer for layer in known if max((node.seconds.get(layer, 0.0) for node in nodes), default=0.0) >= 0.5]
    total = {node.name: sum(node.seconds.values()) for node in nodes}
    by_node = [["", *(node.name for node in nodes)]]
    by_node += [[layer, *(_spent(node, layer) for node in nodes)] for layer in layers]
    by_node.append(["all layers", *(clock(total[node.name]) for node in nodes)])
    table = _columns(by_node)
    if len(nodes) > per_host or max(map(len, table)) > width:
        rows = [["", "longest", "on", "sum", "nodes"]]
        for layer in layers:
            took = {node.name: node.seconds[layer] for node in nodes if layer in node.seconds}
            rows.append(_row(layer, took))
        table = _columns([*rows, _row("all layers", total)] if total else rows, left=(0, 2))
    return [*table, f"whole run: {clock(now - fleet.began)}"]


def _spent(node: NodeProgress, layer: str) -> str:
    """Return a node's time in a layer, "-" without one."""
    return clock(node.seconds[layer]) if layer in node.seconds else "-"


def _row(layer: str, took: Mapping[str, float]) -> list[str]:
    """Return the line of a layer over all nodes."""
    longest = max(took, key=lambda name: took[name])
    return [layer, clock(took[longest]), cut(longest, NAME_WIDTH), clock(sum(took.values())), str(len(took))]


def _columns(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Return rows as lines with aligned columns: left ones as given, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            f"{cell:<{width}}" if number in left else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
