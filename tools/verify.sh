#!/usr/bin/env bash
# Attacks the store and the cache as much as every commit should be (tests/attacks.txt, commit column) and prints one table of
# figures. About as long as the sum of its rows; nothing but the table on stdout.
# Usage: tools/verify.sh --report [--only ATTACK]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ ${1:-} != --report ]]; then
  sed -n 's/^# //p' "$0" >&2
  exit 2
fi
shift
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
cmake --preset release --log-level=WARNING "${launcher[@]}" >&2
read -ra targets < <(tests/run_attacks.py commit --build build/release --targets "$@")
cmake --build --preset release --parallel "$(nproc)" --target "${targets[@]}" >&2
tests/run_attacks.py commit --build build/release "$@"
