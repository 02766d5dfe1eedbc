"""The command line. Exit status: 0 done, 1 it failed, 2 wrong usage or configuration, 3 the weights are pickle files.

systemd tries again after all but 2.

`chat`, `bench`, `doctor` and `inspect` need no library, so they run wherever Python does.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpuserve.client import APIClient
    from xpuserve.settings import Settings

_CONFIG = Path("/etc/xpuserve/config.json")
# Errors of listening that may pass: the network is not up yet, or an earlier process not gone.
_NOT_YET = (errno.EADDRNOTAVAIL, errno.EADDRINUSE)
_KEY_VARIABLE = "XPUSERVE_API_KEY"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xpuserve", description="Serve one language model on one Intel GPU or CPU, in OpenAI's API."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    chat = commands.add_parser(
        "chat",
        help="talk to a model in the terminal",
        description="Talk to a model that xpuserve, or any server with OpenAI's API, serves. "
        "Ctrl-C stops an answer; /new begins a new conversation; Ctrl-D or 'exit' leaves.",
    )
    _add_server(chat)
    chat.add_argument("--system", metavar="TEXT", help="system message, which tells the model how to behave")
    chat.add_argument("--once", metavar="PROMPT", help="ask one question, print the answer and exit")
    chat.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="0 for the most likely answer, up to 2 for more varied ones (default: 0)",
    )
    chat.add_argument("--max-tokens", type=int, metavar="N", help="maximum length of an answer (default: the server's)")
    chat.set_defaults(run=_chat)

    _add_bench(commands)

    _add_doctor(commands)

    serve = commands.add_parser("serve", help="serve a model over HTTP", description="Serve a model over HTTP.")
    _add_config(serve)
    serve.add_argument(
        "--instance",
        type=_instance,
        default=0,
        metavar="N",
        help="number of this instance on its machine, from 0; added to the port, and selects the GPU (default: 0)",
    )
    serve.set_defaults(run=_serve)

    check = commands.add_parser(
        "check",
        help="check a configuration and its model's files",
        description="Check a configuration and the model's files against it, without loading the model.",
    )
    _add_config(check)
    check.set_defaults(run=_check)

    convert = commands.add_parser(
        "convert",
        help="write a model in its low-bit format",
        description="Write the configured safetensors model in its low-bit format (engine bigdl), so that it loads "
        "without conversion at each start.",
    )
    _add_config(convert)
    convert.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="directory to create; must not exist"
    )
    convert.set_defaults(run=_convert)

    engine = commands.add_parser("engine")  # internal commands of the service: not in the list of commands
    engine.add_argument("texts", type=int, nargs="?", help="the channel for texts, if there are models for them")
    engine.add_argument("channel", type=int)
    engine.set_defaults(run=_engine)

    inspect = commands.add_parser(
        "inspect",
        help="show what model files hold",
        description="Print the model of a file or directory as JSON, without loading it. Exit status 3: the only "
        "weights are pickle files, which are not accepted.",
    )
    inspect.add_argument("path", type=Path, metavar="PATH", help="a GGUF file or a model directory")
    inspect.set_defaults(run=_inspect)
    return parser


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="write a report of this node without private data",
        description="Check everything that the service depends on, ask it a question, and write a report as text and "
        "JSON without names, addresses, keys or serial numbers. Nothing is changed. Run as root for a "
        "complete report.",
    )
    doctor.add_argument("--url", default="", help="address of the server (default: from its configuration)")
    doctor.add_argument("--audit", type=Path, metavar="FILE", help="JSON of an audit to include in the report")
    doctor.add_argument(
        "--hide", action="append", default=[], metavar="NAME", help="a name to remove from the report; may be repeated"
    )
    doctor.add_argument(
        "--output", default="", metavar="PREFIX", help="write PREFIX.txt and PREFIX.json (default: print the JSON)"
    )
    doctor.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    import json  # noqa: PLC0415

    from xpuserve import doctor  # noqa: PLC0415

    try:
        audit = json.loads(arguments.audit.read_text(encoding="utf-8")) if arguments.audit else {}
    except (OSError, ValueError) as error:
        return _error(f"{arguments.audit} is not the JSON of an audit: {error}", 2)
    found = {**doctor.look(url=arguments.url), "audit": audit}
    bundle = doctor.report(found, doctor.redactor_of(hide=arguments.hide))
    text = json.dumps(bundle, indent=1, ensure_ascii=False)
    if not arguments.output:
        print(text)
        return 0
    for suffix, content in ((".json", text), (".txt", doctor.as_text(bundle))):
        Path(f"{arguments.output}{suffix}").write_text(f"{content}\n", encoding="utf-8")
    print(f"Wrote {arguments.output}.txt and {arguments.output}.json. Read them before you share them.")
    return 0


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from xpuserve.bench import NOTES  # noqa: PLC0415

    bench = commands.add_parser(
        "bench",
        help="measure how fast a server answers",
        description="Measure how fast a server with OpenAI's API answers concurrent clients.",
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_server(bench)
    bench.add_argument(
        "--clients",
        type=_counts,
        default=[1, 4, 8],
        metavar="N,...",
        help="number of concurrent clients; a list makes one run each (default: 1,4,8)",
    )
    bench.add_argument("--requests", type=_count, metavar="N", help="requests per run (default: 4 per client)")
    for name, what in (
        ("prompt", "length of the prompts, including the chat template"),
        ("max", "length of the answers"),
    ):
        text = f"{what}, in tokens (default: %(default)s)"
        bench.add_argument(f"--{name}-tokens", type=_count, default=128, metavar="N", help=text)
    bench.add_argument("--natural-end", action="store_true", help="allow the model to end an answer earlier")
    bench.add_argument(
        "--schema",
        type=_schema,
        metavar="FILE",
        help="JSON schema of the answers (response_format); an answer ends with its structure",
    )
    bench.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="seed of the prompts, to repeat those of an earlier call (default: new ones)",
    )
    bench.add_argument("--json", action="store_true", help="print all figures as JSON, in seconds")
    bench.set_defaults(run=_bench)


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        help="address of the server (default: from this machine's configuration, or http://127.0.0.1:8000)",
    )
    parser.add_argument(
        "--ca-file",
        type=Path,
        metavar="FILE",
        help="certificates in PEM of the server or its authority (default: those of the system)",
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help=f"file with the API key to send, its first one (default: environment variable {_KEY_VARIABLE})",
    )
    parser.add_argument("--model", help="model name (default: the first model of the server)")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, default=_CONFIG, metavar="FILE", help="configuration (default: %(default)s)"
    )


def _instance(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _schema(file: str) -> dict[str, Any]:
    try:
        schema = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{file}: {error}") from None
    if not isinstance(schema, dict):
        raise argparse.ArgumentTypeError(f"{file}: not a JSON object")
    return schema


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _key(arguments: argparse.Namespace) -> str | None:
    """The key to send, "" for none; None after printing the error."""
    from xpuserve import keys  # noqa: PLC0415

    try:
        key = keys.read(arguments.api_key_file)[0].key if arguments.api_key_file else os.environ.get(_KEY_VARIABLE, "")
    except keys.KeysError as error:
        _error(str(error), 2)
        return None
    if not all("!" <= character <= "~" for character in key):
        _error(f"{_KEY_VARIABLE} is not a key: use visible ASCII characters only", 2)
        return None
    return key


def _server(arguments: argparse.Namespace, key: str) -> APIClient | None:
    """The client of a server, by default of this machine's; None after printing the error."""
    from xpuserve import client, tls  # noqa: PLC0415

    own = client.local(_CONFIG)
    try:
        # A node's own certificate has its name, and the node connects by an address.
        mine = not arguments.url and not arguments.ca_file
        trusted = tls.trusting(own.certificate if mine else arguments.ca_file, named=not mine)
        return client.APIClient(arguments.url or own.url, key, tls=trusted)
    except (client.ClientError, tls.TLSError) as error:
        _error(str(error), 2)
        return None


def _bench(arguments: argparse.Namespace) -> int:
    from xpuserve import bench  # noqa: PLC0415

    key = _key(arguments)
    if key is None:
        return 2
    server = _server(arguments, key)
    if server is None:
        return 2
    return bench.run(
        server,
        arguments.model,
        arguments.clients,
        prompt_tokens=arguments.prompt_tokens,
        max_tokens=arguments.max_tokens,
        requests=arguments.requests,
        natural_end=arguments.natural_end,
        schema=arguments.schema,
        seed=arguments.seed,
        as_json=arguments.json,
    )


def _chat(arguments: argparse.Namespace) -> int:
    from xpuserve import chat  # noqa: PLC0415

    key = _key(arguments)
    if key is None:
        return 2
    options = {"temperature": arguments.temperature}
    if arguments.max_tokens is not None:
        options["max_tokens"] = arguments.max_tokens
    server = _server(arguments, key)
    if server is None:
        return 2
    return chat.run(server, arguments.model, arguments.system, arguments.once, options)


def _inspect(arguments: argparse.Namespace) -> int:
    from xpuserve import weights  # noqa: PLC0415

    try:
        print(weights.inspect(arguments.path).as_json())
    except weights.WeightsError as error:
        return _error(str(error), 3 if isinstance(error, weights.PickleError) else 2)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    if settings is None:
        return 2
    print(f"{arguments.config}: ok, {settings.model.name} by {settings.engine} on the {settings.device}")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    if settings is None:
        return 2
    if settings.engine != "bigdl":
        return _error(f"only engine bigdl converts models, not engine {settings.engine}", 2)
    if settings.model.format != "safetensors":
        return _error(f"only a safetensors model can be converted, not {settings.model.format}", 2)
    if arguments.output.exists():
        return _error(f"{arguments.output} exists", 2)
    _prepare(settings)
    from xpuserve.backends.bigdl import BigDLBackend  # noqa: PLC0415 - after the environment is set

    try:
        BigDLBackend(settings).convert(arguments.output)
    except OSError as error:
        return _error(f"cannot write {arguments.output}: {error.strerror or error}", 1)
    print(arguments.output)
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    if settings is None:
        return 2
    port = settings.port + arguments.instance
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, port), family=family)
    except (OSError, OverflowError) as error:
        status = 1 if getattr(error, "errno", None) in _NOT_YET else 2
        message = f"cannot listen on {settings.host} port {port}: {getattr(error, 'strerror', '') or error}"
        return _error(message, status)
    _prepare(settings)
    from xpuserve import logs, server  # noqa: PLC0415 - after the environment is set

    logs.use_json()
    return server.run(settings, arguments.instance, listener, [*_myself(), "engine"])


def _engine(arguments: argparse.Namespace) -> int:
    from xpuserve import backends, logs  # noqa: PLC0415
    from xpuserve.engine import worker  # noqa: PLC0415
    from xpuserve.engine.channel import Channel  # noqa: PLC0415

    logs.use_json()
    texts = None if arguments.texts is None else Channel(socket.socket(fileno=arguments.texts))
    return worker.run(Channel(socket.socket(fileno=arguments.channel)), backends.create, texts)


def _myself() -> list[str]:
    """The command that starts this program again: from its archive on a node, else as a module."""
    archive = getattr(sys.modules[__name__].__loader__, "archive", "")
    isolated = ["-I"] if sys.flags.isolated else []
    return [sys.executable, *isolated, *([archive] if archive else ["-m", "xpuserve"])]


def _settings(arguments: argparse.Namespace) -> Settings | None:
    """The configuration, validated together with its files; None after printing the error."""
    from xpuserve import keys, settings, tls  # noqa: PLC0415

    try:
        loaded = settings.load(arguments.config)
        settings.check_model(loaded)
        if loaded.api_keys_file:
            keys.read(Path(loaded.api_keys_file))
        if loaded.tls_certificate:
            tls.Certificate(Path(loaded.tls_certificate), Path(loaded.tls_key))
    except (settings.SettingsError, keys.KeysError, tls.TLSError) as error:
        _error(str(error), 2)
        return None
    return loaded


def _prepare(settings: Settings) -> None:
    """Environment needed before the import of an engine's library: caches in the one writable place, no network."""
    cache = Path(settings.cache_dir)
    environment = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(cache / "huggingface"),
        "XDG_CACHE_HOME": str(cache),
        "SYCL_CACHE_DIR": str(cache / "sycl"),
        "NEO_CACHE_DIR": str(cache / "neo"),
        # PyTorch's and BigDL's threads take turns; if they spin while they wait, a shared CPU is several times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if settings.threads:
        environment["OMP_NUM_THREADS"] = str(settings.threads)
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if os.environ.get("SYCL_CACHE_PERSISTENT") == "1":
        from xpuserve import sycl_cache  # noqa: PLC0415

        if sycl_cache.refresh(Path(os.environ["SYCL_CACHE_DIR"])):
            logging.getLogger("xpuserve").info("the driver changed: removing the code compiled for the former one")


def _error(message: str, status: int) -> int:
    print(f"xpuserve: error: {message}", file=sys.stderr)
    return status
