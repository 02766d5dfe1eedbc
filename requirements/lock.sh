#!/bin/sh
# Lock the .in files with uv; versions shared with the nodes' openvino environment stay the same as there.
# TORCH_LINKS: a directory or page with PyTorch's CPU wheels, which PyPI does not have.
set -eu
cd "$(dirname "$0")"
lock() {
  uv pip compile --quiet --universal --python-version "${oldest:-3.11}" --generate-hashes --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links "$@"
}
lock demo.in -o demo.txt
lock -c demo.txt -c ../roles/stack/vars/requirements/openvino.txt dev.in -o dev.txt
lock -c demo.txt build.in -o build.txt
lock -c dev.txt load.in -o load.txt
lock -c ../roles/stack/vars/requirements/openvino.txt clients.in -o clients.txt
lock -c ../roles/stack/vars/requirements/openvino.txt clients-llama-index.in -o clients-llama-index.txt
lock sbom.in -o sbom.txt
lock -c dev.txt -c ../roles/stack/vars/requirements/openvino.txt page.in -o page.txt
lock peer-llama-cpp.in -o peer-llama-cpp.txt
lock --find-links "${TORCH_LINKS:-https://download.pytorch.org/whl/cpu/torch/}" peer-transformers.in -o peer-transformers.txt
# ansible-core and the oldest Python that it runs on; it knows neither newer cores nor the tools of dev.txt.
for pair in 2.17:3.10 2.18:3.11 2.20:3.12 2.21:3.12; do
  oldest=${pair#*:} lock "core-${pair%:*}.in" -o "core-${pair%:*}.txt"
done
lock -c demo.txt core-2.19.in -o core-2.19.txt
oldest=3.9 lock node.in -o node.txt
