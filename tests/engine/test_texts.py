"""Embedding and rerank models on OpenVINO GenAI itself: small random ones, compared with what their files say."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy
import openvino
import openvino_genai
import pytest
from xpuserve import text_models
from xpuserve.backends.openvino_texts import OpenVINOTexts
from xpuserve.engine.backend import EngineError
from xpuserve.settings import Settings

from tests.engine.text_models import LIMIT, write

TEXTS = ["Paris", "the capital of France is Paris, or not", "x", "of the 7 9"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models are."""
    found = tmp_path_factory.mktemp("models")
    write(found)
    return found


def loaded(folder: Path, **more: str) -> OpenVINOTexts:
    settings = Settings.model_validate(
        {
            **{"engine": "openvino", "device": "cpu", "cache_dir": "/x"},
            "model": {"name": "chat", "path": "/x", "format": "gguf", "context_length": 64},
            **{"embedding_model": str(folder / "embed"), "rerank_model": str(folder / "rerank")},
            **more,
        }
    )
    return OpenVINOTexts(text_models.of(settings), "CPU", {})


@pytest.fixture(scope="module")
def models(folder: Path) -> OpenVINOTexts:
    return loaded(folder)


def computed(folder: Path, text: str) -> Any:
    """What the embedding model says of each token of a text, without the library's pipeline."""
    ids = openvino_genai.Tokenizer(str(folder / "embed")).encode([text]).input_ids.data
    run = openvino.Core().compile_model(folder / "embed/openvino_model.xml", "CPU")
    return run([ids, numpy.ones_like(ids), numpy.zeros_like(ids)])[0][0]


@pytest.mark.parametrize("pooling", ["auto", "cls", "mean", "last"])
def test_a_vector_is_the_models_own_whatever_it_is_computed_with(folder: Path, pooling: str) -> None:
    vectors = [array("f", each) for each in loaded(folder, embedding_pooling=pooling).embed(TEXTS)]
    for text, vector in zip(TEXTS, vectors):
        tokens = computed(folder, text)
        wanted = {"cls": tokens[0], "last": tokens[-1]}.get(pooling, tokens.mean(0))
        assert numpy.allclose(vector, wanted / numpy.linalg.norm(wanted), atol=5e-3)


def test_every_text_has_a_score_however_many_there_are(models: OpenVINOTexts) -> None:
    scores = models.rank("the capital", TEXTS)
    assert len(set(scores)) == len(TEXTS)
    assert all(0 < score < 1 for score in scores)
    assert scores == pytest.approx([models.rank("the capital", [text])[0] for text in TEXTS], abs=1e-4)
    assert models.rank("France", TEXTS) != pytest.approx(scores, abs=1e-4)


def test_tokens_are_counted_to_the_last(models: OpenVINOTexts) -> None:
    long = "x " * 5 * LIMIT
    assert models.count(["x", *TEXTS[:1], long, "a b"]) == [3, 3, 2 + 5 * LIMIT, 4]
    assert models.count(["x", long], "a b") == [2 + 3 + 1, 2 + 3 + 5 * LIMIT]
    assert models.count(["x"] * 100) == [3] * 100


def test_one_query_for_many_texts_stays_in_the_librarys_memory(models: OpenVINOTexts) -> None:
    """With one query for several texts of a batch the library's tokenizer crashed after some ten calls."""
    query = "the capital of France"
    for number in range(100):
        texts = ["x " * (number * each % 17) + "of" for each in range(1, 12)]
        (own,) = models.count(["of"], query)
        assert models.count(texts, query) == [own + text.count(" ") for text in texts]
        assert len(models.rank(query, texts)) == len(texts)


def test_a_model_that_is_none_is_named(folder: Path, tmp_path: Path) -> None:
    for file in (folder / "rerank").iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(EngineError, match=f"{tmp_path}: OpenVINO GenAI cannot serve this model"):
        loaded(folder, embedding_model=str(tmp_path), embedding_pooling="mean")  # it has no vector of a text
