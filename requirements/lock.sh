#!/bin/sh
# Lock demo.in, dev.in and page.in with uv; versions shared with the nodes' openvino environment stay the same as there.
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
