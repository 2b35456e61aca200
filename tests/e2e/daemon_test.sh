#!/usr/bin/env bash
# A real cairnd with real engines and cairnctl: what is put is served after kill -9, what cannot be is refused with one line and
# a status of its own, and nothing is lost by it.
# Usage: daemon_test.sh BIN_DIR GOLDEN_DIR
set -euo pipefail
bin=$1
model=$2/nano-plain
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

daemon_flags=(--dir "$work/data" --socket "$work/cairn.sock" --admin-socket "$work/admin.sock" --host-bytes 64MiB
  --disk-bytes 256MiB --segment-bytes 8MiB --policy full)
start() { start_daemon "${daemon_flags[@]}" "$@"; }
# refused STATUS PATTERN COMMAND...: ends with the status and one line on stderr that matches.
refused() {
  local status=$1 pattern=$2 got=0
  shift 2
  "$@" >"$work/refused.out" 2>"$work/refused.log" || got=$?
  [ "$got" = "$status" ] || die "wanted status $status, got $got from: $*"
  [ "$(wc -l <"$work/refused.log")" = 1 ] || die "wanted one line from: $*"
  grep -q -e "$pattern" "$work/refused.log" || die "no '$pattern' from: $*"
}
# generate NAME [FLAGS]: figures in NAME.json, logits in NAME.safetensors. Patient: a machine under load is not what is tested.
generate() {
  local name=$1
  shift
  "$bin/cairn-engine" generate --model "$model" --prompt-file "$work/prompt.txt" --new-tokens 4 --quiet \
    --json "$work/$name.json" --logits-out "$work/$name.safetensors" --cache-deadline "${deadline:-5000}" "$@" >/dev/null 2>"$work/$name.log"
}

seq 1 230 | tr '\n' ' ' | head -c 700 >"$work/prompt.txt"
generate cold

# ---- put, hit from memory, hit from disk after kill -9 ----
start
generate first --cache "unix:$work/cairn.sock"
equals "first prefix" "$(figure first prefix_tokens)" 0
same first cold
generate host --cache "unix:$work/cairn.sock"
equals "host prefix" "$(figure host prefix_tokens)" 640
equals "host tier" "$(figure host tier)" host
equals "host copies" "$(figure host copied_bytes)" 0
same host cold
ctl flush
stop_daemon KILL || true
start
generate disk --cache "unix:$work/cairn.sock"
equals "disk prefix" "$(figure disk prefix_tokens)" 640
equals "disk tier" "$(figure disk tier)" disk
same disk cold

# ---- operators ----
# Not by a pipe: grep -q may end before cairnctl has written all, which then ends by SIGPIPE.
ctl stats >"$work/stats"
grep -q '^checksum_failures *0' "$work/stats" || die "stats"
ctl stats --json | python3 -c 'import json,sys; s=json.load(sys.stdin); assert s["startup_entries"] == 10, s' || die "stats --json"
equals "listed blocks" "$(ctl ls --json | python3 -c 'import json,sys; print(len(json.load(sys.stdin)))')" 5
leaf=$(ctl ls --json | python3 -c 'import json,sys; print(max(json.load(sys.stdin), key=lambda p: p["index"])["digest"])')
root=$(ctl ls --json | python3 -c 'import json,sys; print(min(json.load(sys.stdin), key=lambda p: p["index"])["digest"])')
grep -q ' 0 damaged' <<<"$(ctl verify)" || die "verify"
ctl pin "$leaf" >/dev/null
grep -q '"evicted_entries": [0-9]*' <<<"$(ctl evict --all --yes --json)" || die "evict"
equals "blocks after evicting around a pin" "$(ctl ls --json | python3 -c 'import json,sys; print(len(json.load(sys.stdin)))')" 5
ctl unpin "${leaf:0:16}" >/dev/null
refused 2 'say what to evict' ctl evict
refused 2 'no digest' ctl pin xyz
refused 3 '' ctl pin "$(printf '00%.0s' $(seq 32))"
refused 4 '' "$bin/cairnctl" --socket "$work/nobody.sock" --timeout 1 stats

# ---- refused starts, with a daemon running ----
refused 20 "$work/data" "$bin/cairnd" "${daemon_flags[@]}" --socket "$work/other.sock" --admin-socket "$work/other-admin.sock"
refused 2 'no size' "$bin/cairnd" "${daemon_flags[@]}" --host-bytes lots
refused 2 'policy' "$bin/cairnd" "${daemon_flags[@]}" --policy sometimes
generate again --cache "unix:$work/cairn.sock"
equals "the running daemon is unhurt" "$(figure again prefix_tokens)" 640

# ---- a clean stop, then damage ----
stop_daemon TERM || die "SIGTERM should end with status 0"
"$bin/cairnd" --check "${daemon_flags[@]}" >/dev/null || die "a sound directory"
refused 25 '' "$bin/cairnd" "${daemon_flags[@]}" --host-bytes 1000TiB
# No GPU has that much; where there is none, that is what it says.
refused 25 'gpu-bytes' "$bin/cairnd" "${daemon_flags[@]}" --gpu-bytes 1000TiB
cp -r "$work/data" "$work/kept"

# Another format version is refused, and nothing is changed but the name of the lock's last holder.
# (Without its check line: one that does not fit would make it a damaged file of this version.)
sed -i -e 's/version 1/version 999/' -e '/^check/d' "$work/data/FORMAT"
refused 24 'version 999' "$bin/cairnd" "${daemon_flags[@]}"
refused 24 'version 999' "$bin/cairnd" --check "${daemon_flags[@]}"
cp "$work/kept/FORMAT" "$work/data/FORMAT"
diff -r -x LOCK "$work/kept" "$work/data" >/dev/null || die "a refused start changed the directory"

for file in "$work"/data/catalog/*; do [ -f "$file" ] && printf 'garbage' | dd of="$file" conv=notrunc status=none; done
got=0
"$bin/cairnd" --check "${daemon_flags[@]}" >"$work/check.log" 2>&1 || got=$?
equals "check of a garbage catalog" "$got" 22
start
grep -q 'catalog was rebuilt' "$work/cairnd.log" || die "the rebuilt catalog should be said"
generate rebuilt --cache "unix:$work/cairn.sock"
equals "prefix after the catalog was lost" "$(figure rebuilt prefix_tokens)" 640
same rebuilt cold
stop_daemon TERM

# Bytes flipped all over the stored payloads: misses, counted, and never a wrong answer.
rm -rf "$work/data"
cp -r "$work/kept" "$work/data"
segment=$(find "$work/data" -type f -size +100k -path '*seg*' | sort | head -n 1)
[ -n "$segment" ] || die "no segment file in $(find "$work/data" -type f)"
python3 - "$segment" <<'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    data = f.read()
    for start in range(100_000, len(data), 50_000):
        at = next((i for i in range(start, min(start + 50_000, len(data))) if data[i]), None)
        if at is not None:
            f.seek(at)
            f.write(bytes([data[at] ^ 0x20]))
PY
got=0
"$bin/cairnd" --check "${daemon_flags[@]}" >"$work/check.log" 2>&1 || got=$?
equals "check of a damaged segment" "$got" 23
start
generate flipped --cache "unix:$work/cairn.sock"
same flipped cold
[ "$(figure flipped prefix_tokens)" -lt 640 ] || die "the flipped byte was not noticed"
got=0
ctl verify >/dev/null || got=$?
[ "$got" = 0 ] || [ "$got" = 5 ] || die "verify after damage ended with $got"
ctl stats --json | python3 -c 'import json,sys; s=json.load(sys.stdin); assert s["checksum_failures"] + s["disk_read_failures"] + s["lost_entries"] > 0, s' || die "the damage was not counted"
stop_daemon KILL || true

# ---- a daemon that dies or hangs costs no answer ----
start
generate hung_first --cache "unix:$work/cairn.sock"
kill -STOP "$daemon"
deadline=50 generate hung --cache "unix:$work/cairn.sock"
kill -CONT "$daemon"
same hung cold
equals "said once" "$(grep -c 'cache not used' "$work/hung.log")" 1

# ---- another host: TCP, streamed ----
stop_daemon TERM
port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
start --listen "127.0.0.1:$port"
generate tcp_first --cache "127.0.0.1:$port"
generate tcp --cache "127.0.0.1:$port"
equals "prefix over TCP" "$(figure tcp prefix_tokens)" 640
[ "$(figure tcp copied_bytes)" -gt 0 ] || die "bytes over TCP are copies"
same tcp cold
stop_daemon TERM
echo "all as it should be"
