"""Rules for values beside their type: values that no run can use are refused before any change."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.xpu.fleet.plugins.module_utils.gateway import KEY, NAME, WEIGHT
from ansible_collections.xpu.fleet.plugins.module_utils.variable_types import as_list

#: Return whether a value is valid; the sentence beside it describes valid ones.
Rule = tuple[str, Callable[[Any], bool]]


def broken_rules(name: str, option: Mapping[str, Any], value: Any) -> list[str]:
    """Return a sentence for every part of a value, already of the right type, that breaks its variable's rule."""
    if name in MAPPINGS and isinstance(value, dict):
        return [sentence for key, part in value.items() for sentence in _broken_part(name, key, part)]
    rule = RULES.get(option.get("same_as", name))
    if not rule:
        return []
    words, holds = rule
    if option.get("type") == "list":
        parts = {f"{name}[{i}]": part for i, part in enumerate(as_list(value) or [])}
    elif isinstance(value, dict):
        parts = {f"{name}[{key!r}]": part for key, part in value.items()}
    else:
        parts = {name: value}
    wrong = [where for where, part in parts.items() if not holds(part)]
    if option.get("no_log"):
        return [f"{where} must be {words}." for where in wrong]
    return [f"{where} must be {words}, but is {parts[where]!r}." for where in wrong]


def _broken_part(name: str, key: Any, value: Any) -> list[str]:
    if key not in MAPPINGS[name]:
        return [f"{name} takes {', '.join(MAPPINGS[name])}, not {key!r}."]
    words, holds = MAPPINGS[name][key]
    return [] if holds(value) else [f"{name}[{key!r}] must be {words}, but is {value!r}."]


def _matches(words: str, pattern: str) -> Rule:
    return words, lambda value: re.fullmatch(pattern, str(value)) is not None


def _number(least: int, most: int = 0) -> Rule:
    words = f"a number from {least} to {most}" if most else f"a number from {least}"
    return words, lambda value: least <= float(value) <= (most or float("inf"))


def _is_url(value: Any, schemes: tuple[str, ...] = ("http", "https")) -> bool:
    try:
        parts = urlsplit(str(value))
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_network(value: Any) -> bool:
    try:
        ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        return False
    return "/" not in str(value) or str(value).partition("/")[2].isdigit()


def _is_address(value: Any) -> bool:
    return "/" not in str(value) and _is_network(value)


def _is_place(value: Any) -> bool:
    return str(value).startswith("/") or str(value).startswith("file:///") or _is_url(value)


_PROXY: Rule = (
    "the URL of a proxy with its scheme, such as http://proxy.example.com:3128, or empty",
    lambda value: value == "" or _is_url(value),
)
_URL: Rule = ("a URL that begins with http:// or https://", _is_url)
_URL_OR_NONE: Rule = (f"{_URL[0]}, or empty", lambda value: value == "" or _is_url(value))
_PLACE: Rule = ("a URL or an absolute path", _is_place)
_PORT = _number(1, 65535)
_SHA256 = _matches("64 hexadecimal digits", "[0-9a-f]{64}")
#: A key that is read from a file may end with a line break; it is taken off.
_KEY = _matches(
    "16 or more visible ASCII characters without spaces, not starting with '#', after NAME or NAME:WEIGHT and a space "
    "if it has a name",
    rf"\s*({NAME}({WEIGHT})? +)?{KEY}\s*",
)
_PCI = _matches("a PCI address in full, such as 0000:03:00.0", r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_USER = _matches("the name of a user", r"[^\s:,/]+")


def _is_in(least: float, most: float, kind: Any = (int, float)) -> Rule:
    """For a mapping whose values keep their types from the inventory."""
    words = f"a {'whole ' if kind is int else ''}number from {least} to {most}"
    return words, lambda value: isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most


_ADDRESS: Rule = ("an IP address, such as 127.0.0.1 or 0.0.0.0", _is_address)
_CLIENT: Rule = ("an address (192.0.2.7) or a network (192.0.2.0/24)", _is_network)
_SHARED: Rule = (
    "an address with its prefix, such as 192.0.2.5/24, or empty",
    lambda value: value == "" or ("/" in str(value) and _is_network(value)),
)
_ABSOLUTE: Rule = ("an absolute path", lambda value: str(value).startswith("/"))

#: Variables with their minimum.
_LEAST = {
    0: """
        node_reboot_budget node_reboot_idle_timeout python_runtime_minimum_free_bytes model_context_length
        inference_client_connections inference_request_timeout inference_batch_requests inference_batch_tokens
        inference_client_batch_requests inference_client_batch_tokens inference_threads
        gateway_key_requests gateway_key_requests_per_minute
        inference_max_tokens_default gateway_instance_requests xpu_audit_tokens_per_second xpu_upgrade_pause
    """,
    1: """
        node_reboot_timeout gpu_driver_reboot_timeout kernel_reboot_timeout kernel_confirm_timeout kernel_panic_timeout
        inference_connections inference_queue_requests inference_queue_tokens
        inference_stall_timeout inference_stop_timeout inference_start_timeout gateway_queue_requests
        gateway_queue_timeout gateway_answer_timeout gateway_connections gateway_check_interval gateway_slow_start
        gateway_reload_timeout xpu_audit_seconds xpu_upgrade_drain_timeout
    """,
    16384: "gateway_body_bytes",
}
#: Variables with their kind; for a list or a mapping, the kind of each part.
_KINDS: list[tuple[str, Rule]] = [
    ("stack_proxy graphics_repository_proxy oneapi_proxy python_runtime_proxy model_proxy", _PROXY),
    ("python_runtime_index_url model_index_url", _URL_OR_NONE),
    ("model_hub_endpoint", _URL),
    ("python_runtime_uv_mirror", ("a URL, or empty", lambda value: value == "" or "://" in str(value))),
    ("python_runtime_find_links model_find_links", _PLACE),
    ("python_runtime_uv_sha256 python_runtime_wheel_sha256", _SHA256),
    ("stack_lost_gpus", _PCI),
    ("stack_root python_runtime_system_python model_directory oneapi_environment_file", _ABSOLUTE),
    ("render_access_users", _USER),
    ("inference_host gateway_host", _ADDRESS),
    ("inference_clients gateway_clients", _CLIENT),
    ("inference_cors_origins", _matches("* or an origin such as https://chat.example.com", r"\*|https?://[^/\s]+")),
    ("inference_port gateway_port gateway_metrics_port node_reboot_ports", _PORT),
    ("inference_agent_port", _number(0, 65535)),
    ("gateway_address", _SHARED),
    ("gateway_address_id", _number(1, 255)),
    (
        "inference_embedding_model inference_rerank_model",
        _matches("an absolute path outside /home, /root and /tmp", r"|(?!/(home|root|tmp)(/|$))/.*[^/]"),
    ),
    (
        "inference_memory_max",
        _matches(
            "a share of the memory such as 90%, bytes with K, M, G or T, or infinity",
            "[1-9][0-9]?%|100%|[1-9][0-9]*[KMGT]?|infinity",
        ),
    ),
    ("inference_instances", _matches("auto or a number from 1", "auto|[1-9][0-9]*")),
    ("inference_api_keys gateway_api_keys", _KEY),
    (
        "xpu_serial xpu_upgrade_batches xpu_upgrade_limits",
        _matches("a number of nodes from 1, or a share such as 25%", "[1-9][0-9]*%?"),
    ),
    ("xpu_upgrade_max_fail_percentage", _number(0, 100)),
]
RULES: dict[str, Rule] = {
    **{name: _number(least) for least, names in _LEAST.items() for name in names.split()},
    **{name: rule for names, rule in _KINDS for name in names.split()},
}
#: Mappings with a fixed set of keys.
MAPPINGS: dict[str, dict[str, Rule]] = {
    "inference_sampling_defaults": {
        "temperature": _is_in(0, 2),
        "top_p": _is_in(0.01, 1),
        "top_k": _is_in(0, 2**31 - 1, int),
        "min_p": _is_in(0, 0.99),
        "repetition_penalty": _is_in(0.01, 10),
        "presence_penalty": _is_in(-2, 2),
        "frequency_penalty": _is_in(-2, 2),
    },
}
