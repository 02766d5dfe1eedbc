"""Layer service: its instances run with the installed files, and answer."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.audit.layer import LayerAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.model import served_weights
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import Report
from ansible_collections.xpu.fleet.plugins.module_utils.runtime import drain
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.own_address import opener
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.service_units import newest
from ansible_collections.xpu.fleet.plugins.module_utils.system.ip_filter import RULES, loaded, rules, systemd_filters

_WHO = "addresses that may connect"
_UNITS = "/etc/systemd/system"
#: Seconds within which a healthy service reports its health, also while its engine works.
READY_TIMEOUT = 10.0
#: Seconds until a busy service is asked again.
PAUSE = 1.0
#: Settings that follow from the weights on the node.
_OF_WEIGHTS = ("path", "format", "revision")
_ASSIGNMENT = re.compile(r'(?P<name>[A-Za-z_]\w*)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>.*))$')


class ServiceAudit(LayerAudit):
    """Checks units, their settings, the environment of their processes, and an answer with its speed."""

    name = "service"
    keys = frozenset(
        {"template", "instances", "inputs", "environment_files", "settings", "urls", "certificate", "prompt", "filter"}
    )

    def look(self, report: Report) -> None:
        """Check settings, units, processes and answers."""
        settings = self.expected.get("settings")
        if settings:
            with report.looking_at(settings["path"]):
                self._settings(report, settings)
        with report.looking_at("instances"):
            self._others(report)
        for instance in self.expected["instances"]:
            with report.looking_at(f"whether instance {instance} is drained"):
                why = drain.read(self.node.path(drain.DIRECTORY), instance)
                if why:
                    since = why.since or "an unknown time"
                    report.notes.append(f"gateways send instance {instance} nothing: {why.reason} (since {since})")
        limited = self.expected.get("filter", {})
        if limited.get("clients"):
            with report.looking_at(_WHO):
                self._filter(report, limited)
        for unit in unit_names(self.expected):
            with report.looking_at(unit):
                self._unit(report, unit)
        for instance, url in zip(self.expected["instances"], self.expected.get("urls", ())):
            with report.looking_at(f"answer of instance {instance}"):
                if self._ready(report, instance, url) and self.expected.get("prompt"):
                    self._answer(report, instance, {**self.expected["prompt"], "url": url})

    def _settings(self, report: Report, wanted: Mapping[str, Any]) -> None:
        """Compare the settings value by value; the path of the weights comes from the weights."""
        text = self.node.text(wanted["path"])
        if text is None:
            return  # a missing file is named among the files
        found, values = json.loads(text), dict(wanted["values"])
        if self.node.expected.get("model"):
            weights = served_weights(self.node, self.node.expected["model"])
            place = {key: weights[key] for key in _OF_WEIGHTS if weights.get(key)}
            # Layer model reports unverified weights.
            kept = found.get("model", {}) if isinstance(found.get("model"), dict) else {}
            unknown = {key: kept[key] for key in _OF_WEIGHTS if key in kept and key not in place}
            known = {key: value for key, value in values["model"].items() if key not in _OF_WEIGHTS}
            values["model"] = {**known, **place, **unknown}
        expected, present = _leaves(values), _leaves(found)
        for name in {**expected, **present}:
            shown = [json.dumps(leaves[name]) if name in leaves else "not set" for leaves in (expected, present)]
            report.compare(f"{wanted['path']}: {name}", *shown)

    def _filter(self, report: Report, limited: Mapping[str, Any]) -> None:
        """Test whether systemd's IP filters work; if not, nftables has to filter."""
        allowed = f"{', '.join(limited['clients'])} alone"
        if not self.node.by_root:
            report.not_seen(_WHO, "only root can check systemd's IP filters")
        elif systemd_filters(self.node.run):
            report.compare(_WHO, allowed, allowed)
        else:
            written = self.node.text(f"/{RULES}") == rules(limited["ports"], limited["clients"])
            everybody = "everybody: systemd's IP filters do nothing on this node, and nftables has no rules for it"
            report.compare(_WHO, allowed, allowed if written and loaded(self.node.run) else everybody)

    def _others(self, report: Report) -> None:
        """Find unexpected instances that run or start at boot."""
        template = self.expected["template"]
        slice_of = f"/sys/fs/cgroup/system.slice/system-{template}.slice"
        places = [*self.node.path(_UNITS).glob(f"*.wants/{template}@*.service")]
        places += self.node.path(slice_of).glob(f"{template}@*.service")
        strays = {path.name for path in places} - set(unit_names(self.expected))
        report.compare("instances that should not be there", [], sorted(strays))

    def _unit(self, report: Report, unit: str) -> None:
        state = self.node.units([unit])[unit]
        if state.get("LoadState") in ("not-found", "masked"):
            report.compare(unit, "loaded", "absent" if state["LoadState"] == "not-found" else "masked")
            return
        report.compare(f"{unit} at boot", "enabled", state.get("UnitFileState") or "disabled")
        report.compare(f"unit file of {unit}", "as loaded", self._loaded(state))
        if not report.compare(unit, "active", state.get("ActiveState", "unknown")):
            return
        started = int(state.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
        since = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + started
        changed = newest(str(self.node.path(path)) for path in self.expected.get("inputs", ()))
        report.compare(f"{unit} with what is installed", "started after it", _order(since, changed))
        with report.looking_at(f"environment of {unit}"):
            self._environment(report, unit, state.get("MainPID", "0"))

    def _loaded(self, state: Mapping[str, str]) -> str:
        return "changed since it was loaded" if state.get("NeedDaemonReload") == "yes" else "as loaded"

    def _environment(self, report: Report, unit: str, pid: str) -> None:
        """Compare the variables of the running process with its environment files, the last one first."""
        wanted: dict[str, str] = {}
        for path in self.expected.get("environment_files", ()):
            wanted.update(_variables(self.node.text(path) or ""))
        if not wanted:
            return
        content = self.node.content(f"/proc/{pid}/environ") or b""
        pairs = (entry.partition("=") for entry in content.decode("utf-8", "surrogateescape").split("\0"))
        found = {name: value for name, _ignored, value in pairs}
        for name, value in sorted(wanted.items()):
            report.compare(f"{name} in the process of {unit}", value, found.get(name, "not set"))

    def _ready(self, report: Report, instance: str, url: str) -> bool:
        found = "ready"
        try:
            self._opener().open(f"{url}/ready", timeout=READY_TIMEOUT).close()
        except urllib.error.HTTPError as error:
            found = f"HTTP status {error.code}"
        except OSError as error:
            found = f"no answer: {getattr(error, 'reason', error)}"
        return report.compare(f"state of instance {instance}", "ready", found)

    def _answer(self, report: Report, instance: str, prompt: Mapping[str, Any]) -> None:
        what = f"answer of instance {instance}"
        try:
            text, speed = self._let_in(prompt)
        except urllib.error.HTTPError as error:
            if error.code == 429:
                report.not_seen(what, "its queue is full")
            else:
                report.compare(what, "an answer", f"HTTP status {error.code}")
            return
        except OSError as error:
            report.compare(what, "an answer", f"none: {getattr(error, 'reason', error)}")
            return
        wanted = prompt.get("contains", "")
        report.compare(what, f"a text with {wanted!r}" if wanted else "a text", _judged(text, wanted))
        least = float(prompt.get("tokens_per_second", 0))
        if least:
            with report.looking_at(f"speed of instance {instance}"):
                # It may have waited for others, or been the first since the start.
                speed = speed if speed >= least else max(speed, self._asked(prompt)[1])
                enough = f"{least:g} tokens per second or more"
                report.compare(f"speed of instance {instance}", enough, enough if speed >= least else f"{speed:.1f}")

    def _let_in(self, prompt: Mapping[str, Any]) -> tuple[str, float]:
        """Ask until the service has room for a request, at most as long as an answer may take. Raises OSError."""
        deadline = time.monotonic() + float(prompt.get("seconds", 30))
        while True:
            try:
                return self._asked(prompt)
            except urllib.error.HTTPError as error:
                if error.code != 429 or time.monotonic() + PAUSE > deadline:
                    raise
            time.sleep(PAUSE)

    def _asked(self, prompt: Mapping[str, Any]) -> tuple[str, float]:
        """Return an answer and its tokens per second. Raises OSError."""
        body = {
            "model": prompt["model"],
            "messages": [{"role": "user", "content": prompt["text"]}],
            "max_tokens": int(prompt.get("max_tokens", 24)),
            "temperature": 0,
        }
        began = time.monotonic()
        answer = self._ask(f"{prompt['url']}/v1/chat/completions", body, float(prompt.get("seconds", 30)))
        took = time.monotonic() - began
        return answer["choices"][0]["message"]["content"] or "", answer["usage"]["completion_tokens"] / took

    def _ask(self, url: str, body: Mapping[str, Any], seconds: float) -> Any:
        key = self.node.api_key
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - the service's own address
        with self._opener().open(request, timeout=seconds) as response:
            return json.loads(response.read())

    def _opener(self) -> urllib.request.OpenerDirector:
        certificate = self.expected.get("certificate")
        return opener(str(self.node.path(certificate)) if certificate else "")


def unit_names(expected: Optional[Mapping[str, Any]]) -> list[str]:
    """Return the names of this layer's expected units."""
    template, instances = (expected or {}).get("template"), (expected or {}).get("instances", ())
    return [f"{template}@{instance}.service" for instance in instances] if template else []


def _judged(text: str, wanted: str) -> str:
    if not text.strip():
        return "an empty one"
    if wanted.lower() in text.lower():
        return f"a text with {wanted!r}" if wanted else "a text"
    return repr(text[:200])


def _order(since: float, changed: float) -> str:
    # systemd records the start of a process a moment after files of the same second.
    return "started after it" if since + 1 >= changed else f"started {changed - since:.0f} s before it"


def _variables(text: str) -> dict[str, str]:
    """Return the assignments of an environment file as systemd reads it."""
    found = {}
    for line in text.splitlines():
        match = _ASSIGNMENT.match(line.strip())
        if match:
            quoted = match["quoted"]
            found[match["name"]] = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return found


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    leaves: dict[str, Any] = {}
    for key, part in value.items():
        leaves.update(_leaves(part, f"{name}.{key}" if name else str(key)))
    return leaves
