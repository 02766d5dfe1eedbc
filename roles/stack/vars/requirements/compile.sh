#!/bin/sh
# Resolve the .in files anew into hashed requirements files. Needs uv.
# TORCH_LINKS: a directory or page with PyTorch's CPU wheels, which PyPI does not have.
set -eu
cd "$(dirname "$0")"

lock() {
  name=$1
  shift
  uv pip compile "$name.in" --output-file "$name.txt" --quiet --upgrade --generate-hashes \
    --no-header --no-annotate --no-python-downloads "$@"
}

lock openvino --universal --python-version 3.10 --excludes openvino.excludes
lock bigdl-cpu --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
  --find-links "${TORCH_LINKS:-https://download.pytorch.org/whl/cpu/torch/}"
lock bigdl-gpu --python-version 3.9 --python-platform x86_64-unknown-linux-gnu --excludes bigdl-gpu.excludes
