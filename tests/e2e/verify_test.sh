#!/usr/bin/env bash
# `cairn-engine verify` on a few hundred pairs: with a cache of its own, through a daemon on the same host and over TCP; what
# proves nothing fails.
# Usage: verify_test.sh BIN_DIR
set -euo pipefail
bin=$1
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

verify() { "$bin/cairn-engine" verify --model "$work/nano" --quiet "$@"; }
# proves NAME [FLAGS]: every pair was served and is equal.
proves() {
  local name=$1
  shift
  verify --prompts "$work/prompts.txt" --json "$work/$name.json" "$@" >"$work/$name.log" 2>&1 || die "$name: status $?"
  [ "$(figure "$name" pairs)" -ge 100 ] || die "$name: $(figure "$name" pairs) pairs"
  [ "$(figure "$name" equal)" = "$(figure "$name" pairs)" ] || die "$name: not all pairs are equal"
}
# refused STATUS PATTERN COMMAND...: with one line on stderr that matches.
refused() {
  local status=$1 pattern=$2 got=0
  shift 2
  "$@" >"$work/refused.out" 2>"$work/refused.log" || got=$?
  [ "$got" = "$status" ] || die "wanted status $status, got $got from: $*"
  grep -q -e "$pattern" "$work/refused.log" || die "no '$pattern' from: $*"
}
start() {
  rm -rf "$work/data"
  start_daemon --host-bytes 64MiB --disk-bytes 64MiB --segment-bytes 8MiB "$@"
}

"$bin/cairn-model" make --preset nano --seed 3 --out "$work/nano" >/dev/null
# Texts of 5 to 9 blocks, two with a common beginning, one of them as JSON; token ids; and a prompt too short for a hit.
python3 - "$work/prompts.txt" <<'PY'
import json, sys
text = " ".join(str(i * i) for i in range(400))
with open(sys.argv[1], "w") as f:
    print(text[:700], file=f)
    print(text[300:1400], file=f)
    print(json.dumps({"prompt": text[300:1000] + "\n" + text[:300]}), file=f)
    for length in (1152, 1153, 1200):
        print(json.dumps({"prompt": [(i * length + i // 9) % 256 for i in range(length)]}), file=f)
    print("short", file=f)
PY

proves alone
start --policy full
proves unix --cache "unix:$work/cairn.sock"
stop_daemon KILL || true
port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
start --policy full --listen "127.0.0.1:$port"
proves tcp --cache "127.0.0.1:$port"
stop_daemon KILL || true
start --policy zero
proves zero --cache "unix:$work/cairn.sock"
echo short >"$work/short.txt"
refused 1 'nothing is proved' verify --prompts "$work/short.txt" --cache "unix:$work/cairn.sock"
refused 1 'tenant' verify --prompts "$work/prompts.txt" --cache "unix:$work/cairn.sock" --tenant nobody
stop_daemon KILL || true
refused 1 'cairn.sock' verify --prompts "$work/prompts.txt" --cache "unix:$work/cairn.sock"
echo '{"prompt": 1}' >"$work/bad.txt"
refused 2 'line 1' verify --prompts "$work/bad.txt"
echo '{"prompt": [1, 256]}' >"$work/bad.txt"
refused 12 'line 1.*position 1' verify --prompts "$work/bad.txt"
echo "all as it should be"
