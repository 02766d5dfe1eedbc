"""The contestants: loops without HTTP, the service, and its peers, all with the same weights."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional

from rig import cache, contents, smollm2, wheels
from rig.host import run

from tests.bench import cores, llama
from tests.engine import environment

HERE = Path(__file__).resolve().parent
SERVICE = HERE.parents[1] / "roles/inference/files/xpuserve"
NAME = "smollm2-135m-instruct"
CONTEXT_TOKENS = 8192
# The BigDL format in which this small model still answers sensibly.
LOW_BIT = "sym_int8"
# PyTorch's and BigDL's threads take turns; the service sets this for itself, and must not make its peers slower.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True)
class Start:
    """How to start a process, and how to send requests to it."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: str = "/v1/models"  # answers 200 when the server is
    model: str = ""  # the model's name in requests, if the server does not tell it
    apart: bool = False  # its child process gets a separate processor


class Contestant(NamedTuple):
    """A row of the table."""

    title: str
    python: Callable[[], Optional[Path]]  # its environment, made on demand; None if unavailable
    start: Callable[[Path, Path, int], Start]  # from that, a folder for its files, and a port
    loop: bool = False  # no server: tests/bench/loop.py
    peer: bool = False
    asked_for: bool = False  # it takes part only if named


def openvino() -> Path:
    """The environment of engine openvino."""
    return environment.engine("openvino")


def bigdl() -> Path:
    """The environment of engine bigdl on the CPU."""
    return environment.engine("bigdl-cpu")


def transformers() -> Path:
    """The environment of `transformers serve`."""
    return environment.transformers()


def gguf() -> Path:
    """The weights as llama.cpp and OpenVINO read them."""
    return contents.models() / smollm2.GGUF_NAME


def safetensors() -> Path:
    """The same weights as transformers reads them."""
    return contents.models() / smollm2.HF_NAME


def configured(engine: str, folder: Path, port: int, **more: Any) -> Path:
    """Write the service's configuration, and `more`; everything else is a default."""
    model: dict[str, Any] = {"name": NAME, "context_length": CONTEXT_TOKENS}
    if engine == "openvino":
        model |= {"path": str(gguf()), "format": "gguf"}
    else:
        model |= {"path": str(safetensors()), "format": "safetensors", "low_bit": LOW_BIT}
    settings = {"engine": engine, "device": "cpu", "port": port, "model": model, "cache_dir": str(folder / "cache")}
    path = folder / "config.json"
    path.write_text(json.dumps({**settings, **more}), encoding="utf-8")
    return path


def looped(engine: str, script: str = "loop.py", **settings: Any) -> Callable[[Path, Path, int], Start]:
    """An engine's loop without HTTP, or another script; the caller adds its result and its work.

    With one thread, it has a separate processor.
    """

    def start(python: Path, folder: Path, port: int) -> Start:
        config = configured(engine, folder, port, **settings)
        alone = ["taskset", "--cpu-list", str(cores.allowed()[0])] if settings.get("threads") == 1 else []
        command = [*alone, str(python / "bin/python"), str(HERE / script), str(config)]
        return Start(command, {"PYTHONPATH": str(SERVICE)})

    return start


def served(
    engine: str, code: Callable[[], Path] = lambda: SERVICE, *, apart: bool = False, **settings: Any
) -> Callable[[Path, Path, int], Start]:
    """The service, or its former `code`; `apart` gives its engine's process a separate processor."""

    def start(python: Path, folder: Path, port: int) -> Start:
        config = configured(engine, folder, port, **settings)
        command = [str(python / "bin/python"), "-m", "xpuserve", "serve", "--config", str(config)]
        return Start(command, {"PYTHONPATH": str(code())}, "/ready", NAME, apart)

    return start


def before() -> Path:
    """The service's code before its engine had its own process."""
    tree = cache.ROOT / f"before-{ONE_PROCESS}"
    with cache.lock("bench-before"):
        if not (tree / ".git").exists():
            run(["git", "-C", str(HERE), "worktree", "prune"])
            run(["git", "-C", str(HERE), "worktree", "add", "--detach", str(tree), ONE_PROCESS])
    return tree / SERVICE.relative_to(HERE.parents[1])


def tutorial(python: Path, folder: Path, port: int) -> Start:
    """A thread with `generate` for each request."""
    script = [str(HERE / "tutorial.py"), str(safetensors()), LOW_BIT, str(port)]
    return Start([str(python / "bin/python"), *script], {**THREADS, **OFFLINE})


def transformers_serve(*options: str) -> Callable[[Path, Path, int], Start]:
    """`transformers serve`, in the precision of the weights."""

    def start(python: Path, folder: Path, port: int) -> Start:
        model = str(endless(safetensors(), folder / "model"))
        command = [str(python / "bin/transformers"), "serve", model, "--device", "cpu", "--port", str(port), *options]
        home = {"HF_HOME": str(folder / "huggingface")}
        return Start([*command, "--host", "127.0.0.1"], {**THREADS, **OFFLINE, **home}, "/health", model)

    return start


def endless(model: Path, copy: Path) -> Path:
    """A copy of a model whose answers never end by themselves, for a server without such an option."""
    shutil.copytree(model, copy, dirs_exist_ok=True, copy_function=os.symlink)
    for name in ("config.json", "generation_config.json"):
        config = json.loads((copy / name).read_text(encoding="utf-8"))
        config["pad_token_id"], config["eos_token_id"] = config["eos_token_id"], -1
        (copy / name).unlink()
        (copy / name).write_text(json.dumps(config), encoding="utf-8")
    return copy


def llama_cpp(python: Path, folder: Path, port: int) -> Start:
    """llama-cpp-python's server; by default it uses half of the processors, and cancels an answer for the next one."""
    options = {
        "model": gguf(),
        "host": "127.0.0.1",
        "port": port,
        "n_threads": os.cpu_count(),
        "n_ctx": 2048,
        "interrupt_requests": "false",
    }
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return Start([str(python / "bin/python"), "-m", "llama_cpp.server", *given])


RAW = "raw"
#: Contestants whose structured answers are compared with plain ones.
STRUCTURED = ("openvino", "bigdl")
#: The last commit in which the engine was a thread of the service.
ONE_PROCESS = "afcc94669aea09147dbb5a67c5d8a3b4ca9c7278"
#: In order of measurement: contestants that are compared follow each other.
CONTESTANTS = {
    RAW: Contestant("OpenVINO GenAI, its loop without HTTP", openvino, looped("openvino"), loop=True),
    "openvino": Contestant("**xpuserve**, engine `openvino`", openvino, served("openvino")),
    "openvino-one": Contestant(
        "the same, `engine_process: false`", openvino, served("openvino", engine_process=False), asked_for=True
    ),
    "before": Contestant("the same before it had two processes", openvino, served("openvino", before), asked_for=True),
    "raw-1": Contestant("the loop, a processor", openvino, looped("openvino", threads=1), loop=True, asked_for=True),
    "openvino-1": Contestant(
        "**xpuserve**, the engine on a processor of its own",
        openvino,
        served("openvino", apart=True, threads=1),
        asked_for=True,
    ),
    "before-1": Contestant(
        "the same before it had two processes, one thread",
        openvino,
        served("openvino", before, threads=1),
        asked_for=True,
    ),
    "bigdl-loop": Contestant("engine `bigdl`, its loop without HTTP", bigdl, looped("bigdl"), loop=True),
    "bigdl": Contestant(f"**xpuserve**, engine `bigdl`, {LOW_BIT}", bigdl, served("bigdl")),
    "tutorial": Contestant(f"BigDL-LLM, {LOW_BIT}, a `generate` thread per request", bigdl, tutorial, peer=True),
    "transformers": Contestant("`transformers serve`, bfloat16", transformers, transformers_serve(), peer=True),
    "transformers-cb": Contestant(
        "`transformers serve --continuous-batching`, bfloat16",
        transformers,
        transformers_serve("--continuous-batching", "--cb-max-memory-percent", "0.2"),  # it would take most of it
        peer=True,
    ),
    "llama-cpp": Contestant("llama-cpp-python's server, Q4_1", llama.peer, llama_cpp, peer=True),
}


def versions() -> str:
    """Versions of the contestants, as pinned in the requirements files."""
    node = Path(wheels.REQUIREMENTS)
    pins = {
        "openvino-genai": node / "openvino.txt",
        "bigdl-llm": node / "bigdl-cpu.txt",
        "transformers": environment.TRANSFORMERS,
        "torch": environment.TRANSFORMERS,
        llama.PACKAGE: llama.REQUIREMENTS,
    }
    return ", ".join(f"{name} {pinned(name, path)}" for name, path in pins.items())


def pinned(name: str, requirements: Path) -> str:
    """The version of a package in a requirements file."""
    python = ".".join(map(str, sys.version_info[:2]))
    lines = [entry.line for entry in wheels.requirements(requirements, python)]
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{name}=="))
