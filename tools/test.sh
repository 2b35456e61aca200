#!/usr/bin/env bash
# Sets up, builds the release preset and runs every test: unit, tree checks, end to end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools/setup.sh
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache); fi
cmake --preset release --log-level=WARNING "${launcher[@]}"
cmake --build --preset release --parallel "$(nproc)"
ctest --preset release "$@"
