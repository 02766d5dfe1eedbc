"""An evaluation harness, unmodified, with its own task: likelihoods of texts, from the service and from the model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL
from ansible_collections.xpu.fleet.tests.unit.xpuserve.tiny import (
    VOCABULARY,
    TinyBackend,
    TinyTokenizer,
    expected,
    logits,
)

from tests.clients.conftest import running, served

TASK = """
task: letters
dataset_path: json
dataset_kwargs: {{data_files: {{test: {documents}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list: [{{metric: acc}}, {{metric: perplexity}}]
"""
QUESTIONS = ["ABC", "Hello", "XYZXYZ" * 40]


class Letters(TinyTokenizer):
    """A tokenizer that knows its tokens."""

    def pieces(self) -> Sequence[str]:
        return [chr(ord("A") + n) for n in range(VOCABULARY)]


class LettersBackend(TinyBackend):
    """Has prompts in token ids checked."""

    def __init__(self) -> None:
        super().__init__()
        self.second = Letters()


def likelihood(question: str, answer: str) -> tuple[float, bool]:
    """The answer's log probability after the question, and whether it is the likeliest."""
    tokenizer = Letters()
    ids, more = (tokenizer.encode(text, special=False) for text in (question, answer))
    total = 0.0
    for n, token in enumerate(more):
        seen = [*ids, *more[:n]]
        row = logits(numpy.array([*zip(seen, range(len(seen)))])).astype(numpy.float64)
        total += float(row[token] - numpy.log(numpy.exp(row).sum()))
    return total, expected(ids, len(more)) == more


def test_lm_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}.items():
        monkeypatch.setenv(name, value)
    from lm_eval import simple_evaluate  # noqa: PLC0415 - after the variables
    from lm_eval.tasks import TaskManager  # noqa: PLC0415

    tokenizer = Letters()
    pairs = [(each, "DEF") for each in QUESTIONS]
    pairs += [(each, tokenizer.decode(expected(tokenizer.encode(each, special=False), 3))) for each in QUESTIONS]
    documents = tmp_path / "documents.jsonl"
    documents.write_text("".join(json.dumps({"question": each, "answer": answer}) + "\n" for each, answer in pairs))
    (tmp_path / "letters.yaml").write_text(TASK.format(documents=documents))
    with running(LettersBackend()) as engine, served(engine) as url:
        arguments: Any = {"model": MODEL, "base_url": f"{url}/completions", "batch_size": 4}
        tasks: Any = TaskManager(include_path=str(tmp_path), include_defaults=False)
        results = simple_evaluate(
            model="local-completions",
            model_args=arguments,
            tasks=["letters"],
            task_manager=tasks,
            bootstrap_iters=0,
            log_samples=True,
        )
    assert results
    told = [
        sample["filtered_resps"][0] for sample in sorted(results["samples"]["letters"], key=lambda each: each["doc_id"])
    ]
    known = [likelihood(*pair) for pair in pairs]
    assert [(pytest.approx(chance), greedy) for chance, greedy in known] == [tuple(each) for each in told]
    assert [greedy for _chance, greedy in known] == [False] * 3 + [True] * 3
    assert results["results"]["letters"]["acc,none"] == 0.5
    mean = sum(chance for chance, _greedy in known) / len(known)
    assert results["results"]["letters"]["perplexity,none"] == pytest.approx(math.exp(-mean))
