#!/usr/bin/env bash
# A model larger than the memory of a control group runs in it, and gives the bits that it gives without a limit; with all its
# experts in memory it does not fit. A file that is cut while the model is served fails requests and not the server.
# Usage: larger_than_memory_test.sh BIN_DIR. Exit status 77: skipped.
set -euo pipefail
bin=$1
work=$(mktemp -d)
limit=$((160 << 20))
group=
server=
finish() {
  [ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
  wait 2>/dev/null || true
  [ -z "$group" ] || rmdir "$group" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
die() {
  echo "FAILED: $*"
  tail -n 5 "$work"/*.log 2>/dev/null || true
  exit 1
}
# await COMMAND...: until it succeeds.
await() {
  local end=$((SECONDS + 60))
  until "$@"; do
    ((SECONDS < end)) || die "in a minute not: $*"
    read -rt 0.05 <> <(:) || true
  done
}

# A group of our own with a limit, in version 2 of control groups or in version 1.
make_group() {
  local root=/sys/fs/cgroup name=cairn-test-$$
  if [ -e "$root/cgroup.controllers" ]; then
    grep -qw memory "$root/cgroup.subtree_control" && mkdir "$root/$name" 2>/dev/null || return 1
    group=$root/$name peak=memory.peak version=2
    echo 0 2>/dev/null >"$group/memory.swap.max" || true
    echo "$limit" >"$group/memory.max"
  else
    mkdir "$root/memory/$name" 2>/dev/null || return 1
    group=$root/memory/$name peak=memory.max_usage_in_bytes version=1
    echo 0 >"$group/memory.swappiness"
    echo "$limit" >"$group/memory.limit_in_bytes"
  fi
}
if ! make_group; then
  echo "SKIPPED: no control group with a memory limit can be made here (it takes root)"
  exit 77
fi
# In the group. SIGKILL of the kernel's is its business, not the shell's to report.
limited() { (echo "$BASHPID" >"$group/cgroup.procs" && exec "$@") 2>>"$work/limited.log"; }

# 576 experts of 0.4 MB, and 34 MB of other weights.
"$bin/cairn-model" make --preset small --dim 512 --expert-dim 512 --experts 64 --layers 8 --threads 2 --seed 3 --out "$work/model" >/dev/null
bytes=$(stat -c %s "$work/model/model.safetensors")
((bytes > limit * 3 / 2)) || die "the model has $bytes bytes only"
python3 - "$work/tokens.safetensors" <<'PY'
import json, random, struct, sys
random.seed(1)
tokens = [random.randrange(512) for _ in range(90)]
header = json.dumps({"tokens": {"dtype": "I32", "shape": [len(tokens)], "data_offsets": [0, 4 * len(tokens)]}}).encode()
open(sys.argv[1], "wb").write(struct.pack("<Q", len(header)) + header + struct.pack(f"<{len(tokens)}i", *tokens))
PY
logits=("$bin/cairn-engine" logits --model "$work/model" --tokens "$work/tokens.safetensors" --prefill 70 --chunk 32)

"${logits[@]}" --out "$work/all.safetensors"
status=0
limited "${logits[@]}" --out "$work/killed.safetensors" --expert-cache 1GiB || status=$?
[ "$status" = 137 ] || die "with all experts in memory it should be killed, but its status is $status"

check_limited() { # [FLAGS]
  rm -f "$work/out.safetensors"
  limited "${logits[@]}" --out "$work/out.safetensors" --json "$work/figures.json" "$@" || die "status $? with limit and $*"
  "$bin/cairn-engine" compare "$work/all.safetensors" "$work/out.safetensors" >/dev/null || die "other bits with $*"
  python3 - "$work/figures.json" "$bytes" <<'PY' || die "$(cat "$work/figures.json")"
import json, sys
f = json.load(open(sys.argv[1]))
sys.exit(not (f["expert_evictions"] > 0 and f["expert_places"] < f["experts"]))
PY
}
check_limited --expert-cache 48MiB
echo "$bytes bytes of model in $limit of memory, $(cat "$group/$peak") at the most, page cache included:" \
  "the same bits; $(tr -d '\n' <"$work/figures.json")"
# What fits is found out from the group itself, in version 2.
[ "$version" = 1 ] || check_limited

# ---- a file that is cut while it is served ----
"$bin/cairn-engine" serve --model "$work/model" --model-name cut --port 0 --expert-cache 16MiB >"$work/server.out" 2>"$work/server.log" &
server=$!
await grep -q '^serving on' "$work/server.out"
url=http://$(sed -n 's/^serving on //p' "$work/server.out")
ask() {
  curl -sS --max-time 60 -o "$work/answer.json" -w '%{http_code}' -H 'Content-Type: application/json' "$url/v1/completions" \
    -d '{"model": "cut", "prompt": [1, 2, 3, 4, 5], "max_tokens": 2}'
}
[ "$(ask)" = 200 ] || die "no answer: $(cat "$work/answer.json")"
grep -q '^cairn_engine_expert_evictions_total [1-9]' <<<"$(curl -sS "$url/metrics")" || die "nothing was evicted"
truncate -s $((bytes / 2)) "$work/model/model.safetensors"
for again in 1 2; do
  code=$(ask)
  [ "$code" -ge 500 ] || die "after the cut, asked $again times: $code $(cat "$work/answer.json")"
  grep -q 'model.safetensors: was changed while in use' "$work/answer.json" || die "no reason: $(cat "$work/answer.json")"
done
[ "$(curl -sS -o /dev/null -w '%{http_code}' "$url/health")" = 200 ] || die "the server is gone"
kill -TERM "$server"
wait "$server" || die "status $? after SIGTERM"
server=
echo "a file that was cut cost its requests an error and the server nothing"
