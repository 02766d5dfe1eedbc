"""Every invalid value has its one message, before any contact with a node: one run of site.yml, a host for each."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.playbook_run import Run, inventory, playbook

PROXY = "must be the URL of a proxy with its scheme, such as http://proxy.example.com:3128, or empty"
URL = "must be a URL that begins with http:// or https://"
PLACE = "must be a URL or an absolute path"
PCI = "must be a PCI address in full, such as 0000:03:00.0"
KEYS = "must be 16 or more visible ASCII characters without spaces, not starting with '#'"
REBOOT = "must be one of allowed, when_idle, never"
YAML = "(in YAML, quote yes, no, on and off)"
#: Variable, value, and the message after the variable's name.
VALUES: list[tuple[str, Any, str]] = [
    ("xpu_proxy", "proxy.example.com:3128", f" {PROXY}"),
    ("xpu_proxy", "socks5://proxy.example.com", f" {PROXY}"),
    ("xpu_proxy", "http://", f" {PROXY}"),
    ("xpu_proxy", ["http://a"], " must be a string, but is a list"),
    ("model_proxy", "proxy", f" {PROXY}"),
    ("oneapi_proxy", "//proxy:80", f" {PROXY}"),
    ("python_runtime_proxy", "http://proxy:port", f" {PROXY}"),
    ("graphics_repository_proxy", "http://proxy:99999", f" {PROXY}"),
    ("xpu_reboot", "yes", f" {REBOOT}, but is a string: 'yes'"),
    ("xpu_reboot", True, f" {REBOOT}, but is a boolean: True {YAML}"),
    ("xpu_reboot", ["never"], f" {REBOOT}, but is a list: ['never']"),
    ("kernel_reboot", "sometimes", f" {REBOOT}, but is a string: 'sometimes'"),
    ("gpu_driver_reboot", "", f" {REBOOT}, but is a string: ''"),
    ("node_reboot_consent", "idle", f" {REBOOT}, but is a string: 'idle'"),
    ("xpu_reboot_budget", "many", " must be a whole number, but is a string: 'many'"),
    ("xpu_reboot_budget", -1, " must be a number from 0, but is -1"),
    ("xpu_reboot_budget", 1.5, " must be a whole number, but is a number: 1.5"),
    ("xpu_reboot_budget", None, " must be a whole number, but is empty: None"),
    ("xpu_lost_gpus", ["card0"], f"[0] {PCI}, but is 'card0'"),
    ("xpu_lost_gpus", "03:00.0", f"[0] {PCI}, but is '03:00.0'"),
    ("xpu_lost_gpus", {"0000:03:00.0": True}, " must be a list, but is a mapping: {'0000:03:00.0': True}"),
    ("xpu_users", {"alice": 1}, " must be a list, but is a mapping: {'alice': 1}"),
    ("xpu_users", ["alice smith"], "[0] must be the name of a user, but is 'alice smith'"),
    ("xpu_users", ["alice", {"name": "bob"}], "[1] must be a string, but is a mapping: {'name': 'bob'}"),
    ("render_access_users", 7, " must be a list, but is a number: 7"),
    ("xpu_stack", ["cpu"], " must be a string, but is a list: ['cpu']"),
    ("xpu_stack", None, " must be a string, but is empty: None"),
    ("xpu_engine", True, " must be a string, but is a boolean: True"),
    ("xpu_device", {}, " must be a string, but is a mapping: {}"),
    ("xpu_dkms", "sometimes", " must be one of auto, always, never, but is a string: 'sometimes'"),
    ("xpu_stack_overrides", "driver=1", " must be a mapping, but is a string: 'driver=1'"),
    ("xpu_oneapi_components", [["mkl"]], "[0] must be a string, but is a list: ['mkl']"),
    ("xpu_force", "perhaps", " must be true or false, but is a string: 'perhaps'"),
    ("xpu_force", 2, " must be true or false, but is a number: 2"),
    ("xpu_serial", "many", "[0] must be a number of nodes from 1, or a share such as 25%, but is 'many'"),
    ("xpu_serial", [1, "half"], "[1] must be a number of nodes from 1, or a share such as 25%, but is 'half'"),
    ("xpu_serial", 0, " must be a list, but is a number: 0"),
    ("xpu_audit_seconds", "soon", " must be a whole number, but is a string: 'soon'"),
    ("xpu_audit_seconds", 0, " must be a number from 1, but is 0"),
    ("xpu_audit_tokens_per_second", "fast", " must be a number, but is a string: 'fast'"),
    ("xpu_audit_tokens_per_second", -1, " must be a number from 0, but is -1"),
    ("xpu_audit_become", "maybe", " must be true or false, but is a string: 'maybe'"),
    ("stack_root", "mnt/node", " must be an absolute path, but is 'mnt/node'"),
    ("stack_ppa", "ppa:kobuk-team/intel-graphics", " must be true or false, but is a string"),
    ("graphics_repository_i386", "i386", " must be true or false, but is a string: 'i386'"),
    ("graphics_repository_definition", [], " must be a mapping, but is a list: []"),
    ("kernel_purge", "never", " must be true or false, but is a string: 'never'"),
    ("kernel_panic_timeout", 0, " must be a number from 1, but is 0"),
    ("kernel_confirm_timeout", "10m", " must be a whole number, but is a string: '10m'"),
    ("gpu_driver_reboot_timeout", -5, " must be a number from 1, but is -5"),
    ("oneapi_environment_file", "oneapi.env", " must be an absolute path, but is 'oneapi.env'"),
    ("python_runtime_provider", "conda", " must be one of miniconda, system, uv, but is a string: 'conda'"),
    ("python_runtime_index_url", "pypi.example.com/simple", f" {URL}, or empty, but is 'pypi.example.com/simple'"),
    ("python_runtime_find_links", ["wheels"], f"[0] {PLACE}, but is 'wheels'"),
    ("python_runtime_no_index", [], " must be true or false, but is a list: []"),
    ("python_runtime_uv_sha256", "abc", " must be 64 hexadecimal digits, but is 'abc'"),
    ("python_runtime_wheel_sha256", {"torch==2": "x"}, "['torch==2'] must be 64 hexadecimal digits, but is 'x'"),
    ("python_runtime_minimum_free_bytes", "8G", " must be a whole number, but is a string: '8G'"),
    ("model_name", ["llama"], " must be a string, but is a list: ['llama']"),
    ("model_source", "/srv/models", " must be a mapping, but is a string: '/srv/models'"),
    ("model_hub_endpoint", "huggingface.co", f" {URL}, but is 'huggingface.co'"),
    ("model_directory", "models", " must be an absolute path, but is 'models'"),
    ("model_context_length", "4k", " must be a whole number, but is a string: '4k'"),
    ("model_token", ["secret-token"], " must be a string, but is a list"),
    ("inference_host", "localhost", " must be an IP address, such as 127.0.0.1 or 0.0.0.0, but is 'localhost'"),
    ("inference_port", 0, " must be a number from 1 to 65535, but is 0"),
    ("inference_port", "70000", " must be a number from 1 to 65535, but is '70000'"),
    ("inference_port", "http", " must be a whole number, but is a string: 'http'"),
    (
        "inference_clients",
        ["everyone"],
        "[0] must be an address (192.0.2.7) or a network (192.0.2.0/24), but is 'everyone'",
    ),
    ("inference_clients", "192.0.2.0/33", "[0] must be an address (192.0.2.7) or a network (192.0.2.0/24)"),
    (
        "inference_cors_origins",
        ["chat.example.com"],
        "[0] must be * or an origin such as https://chat.example.com, but is 'chat.example.com'",
    ),
    ("inference_api_keys", ["short-secret"], f"[0] {KEYS}"),
    ("inference_api_keys", ["#key-of-sixteen-characters"], f"[0] {KEYS}"),
    ("inference_api_keys", [{"secret": 1}], "[0] must be a string, but is a mapping"),
    (
        "inference_memory_max",
        "90 %",
        " must be a share of the memory such as 90%, bytes with K, M, G or T, or infinity, but is '90 %'",
    ),
    ("inference_instances", "two", " must be auto or a number from 1, but is 'two'"),
    (
        "inference_embedding_model",
        "models/bge",
        " must be an absolute path outside /home, /root and /tmp, but is 'models/bge'",
    ),
    ("inference_rerank_model", "/home/alice/bge", " must be an absolute path outside /home, /root and /tmp, but is "),
    ("inference_embedding_pooling", "max", " must be one of auto, cls, mean, last, but is a string: 'max'"),
    ("inference_max_tokens_default", -1, " must be a number from 0, but is -1"),
    ("inference_sampling_defaults", {"temperature": 3}, "['temperature'] must be a number from 0 to 2, but is 3"),
    ("inference_sampling_defaults", {"top_k": 0.5}, "['top_k'] must be a whole number from 0 to "),
    ("inference_sampling_defaults", {"min_p": "0.1"}, "['min_p'] must be a number from 0 to 0.99, but is '0.1'"),
    ("inference_sampling_defaults", {"temprature": 1}, " takes temperature, top_p, top_k, min_p, "),
    ("inference_queue_requests", -1, " must be a number from 1, but is -1"),
    ("inference_warm_up", "hot", " must be true or false, but is a string: 'hot'"),
    ("node_reboot_ports", ["http"], "[0] must be a whole number, but is a string: 'http'"),
    ("model_name", "{{ nme }}", " has a template that fails: 'nme' is undefined"),
    ("inference_port", "{{ 1 / 0 }}", " has a template that fails: "),
]
#: Values that are well as they are, or say so as a string, as inventories in INI format and -e do.
WELL: list[tuple[str, Any]] = [
    ("xpu_proxy", "http://user:word@proxy.example.com:3128"),
    ("xpu_proxy", ""),
    ("xpu_reboot", "when_idle"),
    ("xpu_reboot_budget", "0"),
    ("xpu_lost_gpus", "0000:03:00.0,0000:83:00.0"),
    ("xpu_users", "alice, bob"),
    ("xpu_users", "['alice']"),
    ("xpu_force", "yes"),
    ("xpu_serial", "1, 25%"),
    ("xpu_serial", "100%"),
    ("kernel_purge", "False"),
    ("inference_port", "8001"),
    ("inference_host", "::"),
    ("inference_clients", "192.0.2.7"),
    ("inference_clients", ["2001:db8::/32"]),
    ("inference_cors_origins", ["https://chat.example.com:8443", "*"]),
    ("inference_instances", 2),
    ("inference_memory_max", "24G"),
    ("model_find_links", ["file:///srv/wheels", "/srv/wheels", "https://example.com/wheels/"]),
    ("python_runtime_provider", ""),
    ("python_runtime_wheelhouse", "wheels"),
    ("xpu_audit_json", "audit.json"),
    ("xpu_audit_tokens_per_second", "1.5"),
    ("model_name", "{{ 'a' if stack_resolved.family == 'arc' else 'b' }}"),
    ("model_name", "{{ of_my_own }}"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of site.yml over hosts w0, w1, ... with a wrong value each, and v0, v1, ... with one that is well."""
    hosts = {f"w{i}": {name: value} for i, (name, value, _) in enumerate(VALUES)}
    hosts |= {f"v{i}": {name: value, "of_my_own": "mine"} for i, (name, value) in enumerate(WELL)}
    return playbook("site", "-i", inventory(tmp_path_factory.mktemp("values"), hosts), "--forks", "8")


@pytest.mark.parametrize(("number", "name", "said"), [(i, name, said) for i, (name, _, said) in enumerate(VALUES)])
def test_a_wrong_value_has_one_message_with_the_variable_that_was_written(
    run: Run, number: int, name: str, said: str
) -> None:
    (message,) = run.refusals[f"w{number}"]
    assert message.startswith(name + said), message
    assert message.count(". ") == 0, message
    assert "secret" not in message


@pytest.mark.parametrize("number", range(len(WELL)))
def test_a_value_that_is_well_is_not_refused(run: Run, number: int) -> None:
    assert f"v{number}" not in run.refusals, run.refusals[f"v{number}"]
    assert f"fatal: [v{number}]: UNREACHABLE!" in run.output


def test_there_are_sixty_of_them() -> None:
    assert len(VALUES) >= 60
