#!/bin/sh
# Lock the .in files with uv; versions shared with the nodes' openvino environment stay the same as there.
# TORCH_LINKS: a directory or page with PyTorch's CPU wheels, which PyPI does not have.
set -eu
cd "$(dirname "$0")"
lock() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links "$@"
}
lock demo.in -o demo.txt
lock -c demo.txt -c ../roles/stack/vars/requirements/openvino.txt dev.in -o dev.txt
lock -c dev.txt load.in -o load.txt
lock -c dev.txt -c ../roles/stack/vars/requirements/openvino.txt page.in -o page.txt
lock peer-llama-cpp.in -o peer-llama-cpp.txt
lock --find-links "${TORCH_LINKS:-https://download.pytorch.org/whl/cpu/torch/}" peer-transformers.in -o peer-transformers.txt
