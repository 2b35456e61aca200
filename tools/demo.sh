#!/usr/bin/env bash
# The whole way on real text: one prefix prefilled once, resumed from host memory, then from disk after a kill -9, with
# logits compared to the bit against runs without a cache. Prints one table; fails if any bit differs.
#
# Usage: tools/demo.sh [TEXT_FILE]     (default: the GPL, which every Debian has)
# Environment: CAIRN_DEMO_THREADS (default: all cores), CAIRN_DEMO_BIN (programs already built: no set-up, no build)
set -euo pipefail
cd "$(dirname "$0")/.."

text=${1:-/usr/share/common-licenses/GPL-3}
threads=${CAIRN_DEMO_THREADS:-$(nproc)}
bin=${CAIRN_DEMO_BIN:-build/release/bin}

if [ -z "${CAIRN_DEMO_BIN:-}" ]; then
  tools/setup.sh
  cmake --preset release >/dev/null
  cmake --build --preset release --target cairnd cairnctl cairn-engine cairn-model
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/cairn-demo.XXXXXX")
daemon=
finish() {
  [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

say() { printf '\n== %s\n' "$*" >&2; }

start_daemon() {
  "$bin/cairnd" --dir "$work/data" --socket "$work/cairn.sock" --admin-socket "$work/admin.sock" \
    --host-bytes 768MiB --disk-bytes 2GiB --policy full >>"$work/cairnd.log" 2>&1 &
  daemon=$!
  until "$bin/cairnctl" --socket "$work/admin.sock" version >/dev/null 2>&1; do
    kill -0 "$daemon" 2>/dev/null || { cat "$work/cairnd.log" >&2; return 1; }
    read -rt 0.05 <> <(:) || true
  done
}

# generate NAME [ARGUMENTS]: one engine process; its figures and logits go to $work/NAME.*
generate() {
  local name=$1
  shift
  "$bin/cairn-engine" generate --model "$work/model" --prompt-file "$text" --threads "$threads" --new-tokens 8 \
    --json "$work/$name.json" --logits-out "$work/$name.safetensors" "$@" >/dev/null
}

half=$(($(stat -c %s "$text") / 2))
patents="What does this text say about patents?"
source_code="What is the corresponding source?"
warranty="Is there any warranty?"

say "A model of random weights with DeepSeek-V4's KV shapes, and an empty cache"
"$bin/cairn-model" make --preset mini --seed 1 --out "$work/model"
start_daemon

say "1  cold: $(basename "$text") and a question, prefilled whole and stored"
generate cold --question "$patents" --cache "unix:$work/cairn.sock"

say "2  the same text, another question: from host memory"
generate host --question "$source_code" --cache "unix:$work/cairn.sock"
say "   the same without a cache, to compare"
generate host_cold --question "$source_code"

say "3  kill -9 of the daemon, restart, another engine process: from disk"
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
start_daemon
generate disk --question "$patents" --cache "unix:$work/cairn.sock"

say "4  a text that shares only the first half"
generate half --question "$warranty" --prompt-bytes "$half" --cache "unix:$work/cairn.sock"
say "   the same without a cache, to compare"
generate half_cold --question "$warranty" --prompt-bytes "$half"

"$bin/cairnctl" --socket "$work/admin.sock" verify >&2

python3 tools/demo_table.py --engine "$bin/cairn-engine" --directory "$work" \
  "cold:cold, question 1:cold" \
  "host:another question:host_cold" \
  "disk:after kill -9, question 1:cold" \
  "half:first half, question 3:half_cold"
