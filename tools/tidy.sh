#!/usr/bin/env bash
# clang-tidy with the curated list of .clang-tidy. Without arguments: the sources that differ from origin's main branch or
# are not committed; --all: every source; otherwise the sources named. Needs a configured build (BUILD, default build/release).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=${BUILD:-build/release}
if [[ ! -f $build/compile_commands.json ]]; then
  echo "tidy: no $build/compile_commands.json; run 'cmake --preset release' first" >&2
  exit 1
fi

if [[ ${1:-} == --all ]]; then
  mapfile -t sources < <(git ls-files '*.cc')
elif (($# > 0)); then
  sources=("$@")
else
  base=$(git merge-base HEAD origin/HEAD 2>/dev/null || git rev-parse HEAD)
  mapfile -t sources < <({ git diff --name-only --diff-filter=d "$base" -- '*.cc'
                           git ls-files --others --exclude-standard -- '*.cc'; } | sort -u)
fi
if ((${#sources[@]} == 0)); then
  echo "tidy: nothing to check"
  exit 0
fi
printf '%s\0' "${sources[@]}" |
  xargs -0 --max-procs="$(nproc)" --max-args=1 clang-tidy --quiet -p "$build" \
    --extra-arg=-Wno-unknown-warning-option
echo "tidy: ${#sources[@]} sources are clean"
