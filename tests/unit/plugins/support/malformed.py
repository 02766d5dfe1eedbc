"""Malformed audit data of a broken or hostile node, each reproducible from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ansible_collections.xpu.fleet.tests.unit.plugins.support.audit_fleet import HELD, layer

#: Control sequences, invisible characters, text that looks like another line, and code for other readers.
EVIL_TEXTS = (
    "\x1b[2J\x1b[H",
    "\x1b]0;owned\x07",
    "\x1b[8m",
    "\x9b31m",
    "\x00\x08\x7f",
    "\rgood  arc-647  ok",
    "held\ngood  arc-647  DRIFT  DRIFT  DRIFT",
    "held\u2028good  arc-647  MISSING",
    "held\x0bgood\x0cgood\x85good",
    "\u202eko\u202c",
    "\u2066\u200b\u200d\ufeff",
    "\udcff\ud800",
    "\U000e0041",
    "<script>alert(1)</script>",
    "{{ lookup('pipe', 'id') }}",
    "x" * 300_000,
)


def _deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


#: Values that are in no place of a layer what should be there.
JUNK: tuple[Any, ...] = (
    *(None, True, False, -1, 1.5, float("nan"), float("inf"), 2**70, 10**400, "", "evil", b"bytes"),
    *([], ["ok"], [[]], {}, {"status": "ok"}, {1: 2}, {"what": None}, [None], [1], ["text"], [{}], [{"what": "x"}]),
    *(_deep(400), ["x"] * 5000, {"x": {"y": {"z": []}}}, (), {"a", "b"}, *EVIL_TEXTS),
)
_TYPES: dict[str, Any] = {"reason": str, "findings": list, "unseen": list, "versions": dict}


def malformed(seed: str) -> Any:
    """Return something in the place of a layer that makes no sense, by its seed."""
    chance = random.Random(seed)  # noqa: S311
    make: Callable[[random.Random], Any] = chance.choice(
        (_no_layer, _no_status, _wrong_type, _wrong_number, _wrong_entry, _contradiction)
    )
    return make(chance)


def hostile(seed: str) -> dict[str, Any]:
    """Return a layer that is well formed and has drifted, with texts that do harm where they are believed."""
    chance = random.Random(seed)  # noqa: S311

    def text() -> str:
        return "".join(chance.sample(EVIL_TEXTS, chance.randint(1, 4)))

    finding = {key: text() for key in ("what", "expected", "found")}
    unseen = {key: text() for key in ("what", "why")}
    return layer("drift", findings=[finding], unseen=[unseen], reason=text(), versions={text(): text()})


def _no_layer(chance: random.Random) -> Any:
    return chance.choice([value for value in JUNK if value != {"status": "ok"}])


def _no_status(chance: random.Random) -> Any:
    found = layer()
    found["status"] = chance.choice([*JUNK, "OK", "ok ", "Drift", "ok\n"])
    if chance.random() < 0.1:
        del found["status"]
    return found


def _wrong_type(chance: random.Random) -> Any:
    key, wanted = chance.choice(list(_TYPES.items()))
    return layer("drift", **{key: chance.choice([value for value in JUNK if not isinstance(value, wanted)])})


def _wrong_number(chance: random.Random) -> Any:
    no_number = [value for value in JUNK if isinstance(value, bool) or not isinstance(value, (int, float))]
    numbers = [-1, float("nan"), float("inf"), -0.1, 2**70, 10**400]
    return layer("drift", **{chance.choice(("looked_at", "seconds")): chance.choice([*no_number, *numbers])})


def _wrong_entry(chance: random.Random) -> Any:
    key, entry = chance.choice([("findings", HELD), ("unseen", {"what": "a", "why": "b"})])
    broken: Any = dict(entry)
    field = chance.choice(list(broken))
    broken[field] = chance.choice([value for value in JUNK if not isinstance(value, str)])
    if chance.random() < 0.3:
        del broken[field]
    elif chance.random() < 0.3:
        broken = chance.choice([value for value in JUNK if not isinstance(value, dict)])
    return layer("drift", **{key: [entry, broken]})


def _contradiction(chance: random.Random) -> Any:
    return chance.choice(
        [
            layer("ok", findings=[HELD]),
            layer("ok", unseen=[{"what": "a", "why": "b"}]),
            layer("ok", looked_at=0),
            layer("not_applicable", findings=[HELD]),
        ]
    )
