"""Write small random models for texts, in OpenVINO's format, with a WordPiece tokenizer.

``python text_models.py DIRECTORY`` writes ``embed`` and ``rerank`` there, in the environment of engine openvino.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy
import openvino
from openvino import PartialShape, Type, op
from openvino import opset15 as ops
from openvino.preprocess import PrePostProcessor
from openvino_tokenizers import tokenizer_pipeline as steps

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
CLS, SEP = SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCABULARY = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *".,?!", "paris", "france", "the", "of"]
#: The longest text of the models, in tokens.
LIMIT = 64


def write(folder: Path) -> None:
    """Write both models."""
    for name, pooling in (("embed", "mean"), ("rerank", "")):
        directory = folder / name
        (directory / "1_Pooling").mkdir(parents=True)
        openvino.save_model(tokenizer(), directory / "openvino_tokenizer.xml")
        openvino.save_model(model(ranks=name == "rerank"), directory / "openvino_model.xml", compress_to_fp16=False)
        (directory / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": LIMIT}))
        if pooling:
            (directory / "1_Pooling/config.json").write_text(json.dumps({f"pooling_mode_{pooling}_tokens": True}))


def tokenizer() -> openvino.Model:
    """A tokenizer like BERT's, for a text or a pair."""
    added = [steps.AddToken(token=SPECIAL[number], _token_id=number, token_type_id=0) for number in (CLS, SEP)]
    pipeline = steps.TokenizerPipeline(vocab=VOCABULARY)
    pipeline.add_steps(
        [
            steps.SpecialTokensSplit.from_string_iter(SPECIAL),
            steps.NormalizeUnicode("NFD"),
            steps.CaseFoldStep(encoding="utf-8"),
            *steps.RegexSplitStep.bert_splitter(),
            steps.WordPieceTokenizationStep(VOCABULARY),
            steps.TruncationStep(LIMIT - 2),
            steps.CombineSegmentsStep([added[0], steps.Sequence(token_type_id=0), added[1]]),
            steps.PaddingStep(token="[PAD]", _token_id=0),
        ]
    )
    processor = PrePostProcessor(pipeline.get_tokenizer_ov_subgraph())
    for number in range(3):
        processor.output(number).tensor().set_element_type(Type.i64)
    made = processor.build()
    single, pair = [CLS, -1, SEP], [CLS, -1, SEP, -2, SEP]  # -1 and -2 are the texts
    template = {"single": {"ids": single, "type_ids": [0, 0, 0]}, "pair": {"ids": pair, "type_ids": [0, 0, 0, 1, 1]}}
    made.set_rt_info(json.dumps(template), "processed_post_processor_template")
    return made


def model(*, ranks: bool, size: int = 16) -> openvino.Model:
    """A layer of attention with random weights; with `ranks`, one score for each text."""
    dice = numpy.random.default_rng(1)

    def weights(*shape: int) -> Any:
        return ops.constant(dice.normal(0, 0.3, shape).astype(numpy.float32))

    inputs = {name: op.Parameter(Type.i64, PartialShape([-1, -1])) for name in ("input_ids", "attention_mask")}
    inputs["token_type_ids"] = op.Parameter(Type.i64, PartialShape([-1, -1]))
    for name, parameter in inputs.items():
        parameter.output(0).tensor.set_names({name})
    first = ops.constant(0)
    words = ops.gather(weights(len(VOCABULARY), size), inputs["input_ids"], first)
    hidden = ops.add(words, ops.gather(weights(2, size), inputs["token_type_ids"], first))
    read = ops.convert(inputs["attention_mask"], "f32")
    hide = ops.multiply(ops.subtract(read, ops.constant(numpy.float32(1))), ops.constant(numpy.float32(1e9)))
    queries, keys = (ops.matmul(hidden, weights(size, size), False, False) for _each in range(2))
    scores = ops.add(ops.matmul(queries, keys, False, True), ops.unsqueeze(hide, ops.constant(1)))
    hidden = ops.add(hidden, ops.matmul(ops.softmax(scores, -1), hidden, False, False))
    if ranks:
        hidden = ops.matmul(ops.gather(hidden, first, ops.constant(1)), weights(size, 1), False, False)
    hidden.output(0).tensor.set_names({"logits" if ranks else "last_hidden_state"})
    return openvino.Model([hidden], list(inputs.values()), "tiny")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
