"""Runs modules in processes forked from this one, which has done the slowest imports: a line for each."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import ansible.module_utils.basic  # noqa: F401 - every module imports it, and that takes most of its time


def run(request: dict[str, Any]) -> int:
    """Be the process of a module, and return its exit status."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    try:
        module = importlib.import_module(request["module"])
        if request["at"] is not None:
            module.ROOT = Path(request["at"])  # type: ignore[attr-defined]
        module.main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run a module in a process of its own; what it prints goes through files without a name."""
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.write(files[0], request["input"].encode())
    os.lseek(files[0], 0, os.SEEK_SET)
    child = os.fork()
    if not child:
        for number, file in enumerate(files):
            os.dup2(file, number)
        status = run(request)
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _child, status = os.waitpid(child, 0)
    texts = []
    for file in files:
        os.lseek(file, 0, os.SEEK_SET)
        with open(file, "rb") as stream:  # noqa: PTH123 - a descriptor
            texts.append(stream.read().decode("utf-8", "replace"))
    return {"status": os.waitstatus_to_exitcode(status), "output": texts[1], "error": texts[2]}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
