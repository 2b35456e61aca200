#!/usr/bin/env bash
# The nightly: every attack of tests/attacks.txt for its share of the time, progress on stderr, one table at the end, also in
# build/campaign.md while it grows. Run tools/setup.sh once before.
# Usage: tests/campaign.sh [--hours H | --minutes M] [--only ATTACK]     (4 hours)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=240
only=()
while (($# > 0)); do
  case $1 in
    --hours) minutes=$(awk -v hours="$2" 'BEGIN { print 60 * hours }') ;;
    --minutes) minutes=$2 ;;
    --only) only=(--only "$2") ;;
    *) sed -n 's/^# //p' "$0" >&2 && exit 2 ;;
  esac
  shift 2
done
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
cmake --preset release --log-level=WARNING "${launcher[@]}" >&2
read -ra targets < <(tests/run_attacks.py nightly --build build/release --targets "${only[@]}")
cmake --build --preset release --parallel "$(nproc)" --target "${targets[@]}" >&2
if [[ " ${targets[*]} " == *" fuzz_targets "* ]]; then tests/fuzz/fuzz.sh --build; fi  # its clang's build is not its share of the time
tests/run_attacks.py nightly --build build/release --minutes "$minutes" --report build/campaign.md "${only[@]}"
