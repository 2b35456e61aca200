#!/usr/bin/env bash
# Fails on the first source that clang-format would change; `tools/check_format.sh --fix` changes them instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode=(--dry-run --Werror --ferror-limit=1)
if [[ ${1:-} == --fix ]]; then mode=(-i); fi
find store cache engine kernels tools tests \( -name '*.h' -o -name '*.cc' \) -print0 |
  xargs -0 --no-run-if-empty --max-procs="$(nproc)" --max-args=16 clang-format --style=file "${mode[@]}"
