#!/usr/bin/env bash
# Eight engines are given the same long prompt at once, which no cache holds: one prefills it, the others wait for that and
# compute what is theirs. The same with the maker killed halfway: one of the others takes over where it got to.
# Usage: single_flight_test.sh BIN_DIR
set -euo pipefail
bin=$1
engines=8
tokens=16040
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

stat() { ctl stats --json | python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
# generate NAME PROMPT [FLAGS]: patient, for a machine under load is not what is tested.
generate() {
  local name=$1 prompt=$2
  shift 2
  exec "$bin/cairn-engine" generate --model "$work/nano" --prompt-file "$work/$prompt.txt" --new-tokens 4 --threads 1 --quiet \
    --json "$work/$name.json" --logits-out "$work/$name.safetensors" "$@" >/dev/null 2>"$work/$name.log"
}
cached() { generate "$@" --cache "unix:$work/cairn.sock" --cache-deadline 20000 --wait 300; }
# until_stat NAME LEAST
until_stat() {
  until [ "$(stat "$1")" -ge "$2" ]; do
    kill -0 "$daemon" 2>/dev/null || die "cairnd ended"
    pause
  done
}
# Tokens that went through the model in these runs, replayed ones by their share of the layers.
computed() {
  python3 - "$work" "$@" <<'PY'
import json, sys
runs = [json.load(open(f"{sys.argv[1]}/{name}.json")) for name in sys.argv[2:]]
print(sum(run["recomputed_tokens"] + run["replay_token_layers"] // 5 for run in runs))
PY
}
# prefilled NAMES: how many of them computed more than a tenth of the prompt.
prefilled() {
  local count=0 name
  for name; do [ "$(figure "$name" recomputed_tokens)" -lt $((tokens / 10)) ] || count=$((count + 1)); done
  echo "$count"
}

"$bin/cairn-model" make --preset nano --seed 4 --out "$work/nano" >/dev/null
python3 - "$work" "$tokens" <<'PY'
import sys
for name, first in (("first", 1), ("second", 20000)):
    with open(f"{sys.argv[1]}/{name}.txt", "w") as f:
        f.write(" ".join(str(first + i) for i in range(9000))[:int(sys.argv[2])])
PY
start_daemon --host-bytes 256MiB --disk-bytes 512MiB --segment-bytes 16MiB

# ---- all at once ----
names=()
pids=()
for i in $(seq "$engines"); do
  names+=("at_once_$i")
  (cached "at_once_$i" first) &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || die "an engine ended with status $?"; done
(generate alone first) || die "alone: status $?"
alone=$(computed alone)
together=$(computed "${names[@]}")
[ "$(prefilled "${names[@]}")" = 1 ] || die "$(prefilled "${names[@]}") engines prefilled"
[ $((together * 10)) -le $((alone * 11)) ] || die "together they computed $together tokens, one alone $alone"
for name in "${names[@]}"; do same "$name" alone; done
echo "$engines engines computed $together tokens, one alone $alone"

# ---- the maker is killed halfway ----
committed=$(stat commit_entries)
waited=$(stat reserve_waited_calls)
(cached maker second) &
maker=$!
until_stat commit_entries $((committed + 40))
kill -STOP "$maker"
[ ! -e "$work/maker.json" ] || die "the maker was done before it could be stopped"
names=()
pids=()
for i in $(seq 2 "$engines"); do
  names+=("heir_$i")
  (cached "heir_$i" second) &
  pids+=($!)
done
until_stat reserve_waited_calls $((waited + engines - 1))
kill -KILL "$maker"
wait "$maker" 2>/dev/null || true
for pid in "${pids[@]}"; do wait "$pid" || die "an engine ended with status $?"; done
(generate alone_second second) || die "alone_second: status $?"
heirs=$(computed "${names[@]}")
[ "$(prefilled "${names[@]}")" = 1 ] || die "$(prefilled "${names[@]}") engines took over"
[ "$heirs" -lt "$alone" ] || die "nothing of the maker's work was used: $heirs tokens"
for name in "${names[@]}"; do same "$name" alone_second; done
echo "the maker killed: $((engines - 1)) others computed $heirs tokens"
