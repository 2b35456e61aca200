#!/usr/bin/env bash
# A real cairn-engine serve with a real cairnd, asked by curl: what is cached is said and changes no answer, a client that goes
# away frees its place, and neither a daemon killed under load nor SIGTERM costs an answer.
# Usage: serve_test.sh BIN_DIR GOLDEN_DIR
set -euo pipefail
bin=$1
model=$2/nano-plain
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
server=

daemon_flags=(--host-bytes 64MiB --disk-bytes 256MiB --segment-bytes 8MiB --policy full)
start_server() { # [FLAGS]
  : >"$work/server.out"
  "$bin/cairn-engine" serve --model "$model" --model-name nano --port 0 "$@" >>"$work/server.out" 2>>"$work/server.log" &
  server=$!
  await grep -q '^serving on' "$work/server.out"
  url=http://$(sed -n 's/^serving on //p' "$work/server.out")
}
stop_server() {
  kill -TERM "$server"
  local status=0
  wait "$server" || status=$?
  server=
  equals "status after SIGTERM" "$status" 0
}
ask() { # PATH BODY
  curl -sS --max-time 120 -H 'Content-Type: application/json' "$url$1" -d "$2"
}
get() { python3 -c 'import json,sys; v = json.load(sys.stdin)
for k in sys.argv[1].split("."): v = v[int(k)] if k.isdigit() else v[k]
print(json.dumps(v))' "$1"; }
metric() { curl -sS "$url/metrics" | sed -n "s/^cairn_engine_$1 //p"; }
metric_is() { [ "$(metric "$1")" = "$2" ]; }

prompt=$(seq 1 200 | tr '\n' ' ' | head -c 600)
body="{\"model\": \"nano\", \"prompt\": \"$prompt\", \"max_tokens\": 24, \"seed\": 5, \"logprobs\": 2}"
chat="{\"model\": \"nano\", \"messages\": [{\"role\": \"system\", \"content\": \"$prompt\"}, {\"role\": \"user\", \"content\": \"why?\"}], \"max_tokens\": 24, \"temperature\": 0}"

# ---- without a cache: what every answer below must be ----
start_server
cold=$(ask /v1/completions "$body" | get choices)
cold_chat=$(ask /v1/chat/completions "$chat" | get choices.0.message)
stop_server

# ---- a cache of its own ----
start_server --embedded-cache 64MiB --embedded-policy full
equals "first answer" "$(ask /v1/completions "$body" | get choices)" "$cold"
found_here() { ask /v1/completions "$body" >"$work/own.json" && [ "$(get usage.prompt_cache_hit_tokens <"$work/own.json")" = 512 ]; }
await found_here
equals "answer from its own" "$(get choices <"$work/own.json")" "$cold"
stop_server

# ---- with keys ----
printf '# ours\nsk-%s\n' 0123456789abcdef >"$work/keys"
chmod 644 "$work/keys"
! "$bin/cairn-engine" serve --model "$model" --port 0 --api-keys "$work/keys" 2>"$work/keys.log" || die "keys that others may read"
grep -q 'chmod 600' "$work/keys.log" || die "it does not say what to do: $(cat "$work/keys.log")"
chmod 600 "$work/keys"
start_server --api-keys "$work/keys"
models() { curl -sS -o "$work/models.json" -w '%{http_code}' "$url/v1/models" "$@"; }
equals "without a key" "$(models)" 401
equals "its code" "$(get error.code <"$work/models.json")" '"invalid_api_key"'
equals "with another" "$(models -H 'Authorization: Bearer sk-0123456789abcdee')" 401
equals "with a key" "$(models -H 'Authorization: Bearer sk-0123456789abcdef')" 200
equals "in the log" "$(grep -c 0123456789 "$work/server.log" "$work/server.out" "$work/keys.log" | cut -d: -f2 | sort -u)" 0
stop_server

# ---- cached, speculating, and the same ----
start_daemon "${daemon_flags[@]}"
start_server --cache "unix:$work/cairn.sock" --speculate
ask /v1/completions "$body" >"$work/first.json"
equals "first answer" "$(get choices <"$work/first.json")" "$cold"
equals "cached of the first" "$(get usage.prompt_tokens_details.cached_tokens <"$work/first.json")" 0
all_put() { [ "$(ctl ls --json | grep -c digest)" -ge 4 ]; }
await all_put
ask /v1/completions "$body" >"$work/second.json"
equals "second answer" "$(get choices <"$work/second.json")" "$cold"
equals "cached of the second" "$(get usage.prompt_tokens_details.cached_tokens <"$work/second.json")" 512
equals "hit" "$(get usage.prompt_cache_hit_tokens <"$work/second.json")" 512
equals "miss" "$(get usage.prompt_cache_miss_tokens <"$work/second.json")" 88
equals "hits in /metrics" "$(metric prompt_cached_tokens_total)" 512
[ "$(metric drafted_tokens_total)" -gt 0 ] || die "nothing was speculated"
equals "chat" "$(ask /v1/chat/completions "$chat" | get choices.0.message)" "$cold_chat"

# ---- streamed ----
ask /v1/completions "${body%?}, \"stream\": true, \"stream_options\": {\"include_usage\": true}}" >"$work/stream"
python3 - "$work/stream" "$cold" <<'PY' || die "the stream differs"
import json, sys
events = [line[6:].strip() for line in open(sys.argv[1], encoding="utf-8") if line.startswith("data: ")]
assert events.pop() == "[DONE]"
events = [json.loads(event) for event in events]
assert events.pop()["usage"]["completion_tokens"] == 24
cold = json.loads(sys.argv[2])[0]
assert "".join(e["choices"][0]["text"] for e in events) == cold["text"]
assert events[-1]["choices"][0]["finish_reason"] == "length"
assert sum((e["choices"][0]["logprobs"]["tokens"] for e in events), []) == cold["logprobs"]["tokens"]
PY

# ---- refused ----
code() { curl -sS -o "$work/error.json" -w '%{http_code}' -H 'Content-Type: application/json' "$url$1" -d "$2"; }
equals "bad JSON" "$(code /v1/completions '{')" 400
equals "bad value" "$(code /v1/completions '{"model": "nano", "prompt": "a", "temperature": 9}')" 400
equals "its field" "$(get error.param <"$work/error.json")" '"temperature"'
equals "other model" "$(code /v1/chat/completions '{"model": "gpt"}')" 404
equals "too long" "$(code /v1/completions '{"model": "nano", "prompt": "a", "max_tokens": 100000}')" 400

# begin BODY: a stream of many tokens of which the first has come when it returns; its curl is $client, its reader reads fd 3.
begin() {
  exec 3< <(exec curl -sS -N --max-time 120 -H 'Content-Type: application/json' "$url/v1/completions" -d "${1%?}, \"stream\": true}")
  client=$!
  read -r _ <&3 || die "no stream"
}

# ---- a client that goes away ----
# One that is killed only after its last token is not such a client: another goes.
went_away() {
  begin '{"model": "nano", "prompt": "a", "max_tokens": 900}'
  kill -9 "$client"
  await metric_is requests_running 0
  [ "$(metric 'requests_total{end="cancelled"}')" = 1 ]
}
await went_away
equals "its memory" "$(metric kv_used_bytes)" 0

# ---- a daemon killed, then stopped, under load ----
load() { # NAME: six requests at once, half of which begin with something new
  local pids=() i
  for i in 1 2 3 4 5 6; do
    ask /v1/completions "$body" >"$work/$1.$i" &
    pids+=($!)
  done
  ask /v1/completions "${body/\"prompt\": \"/\"prompt\": \"$1 }" >/dev/null
  for i in "${pids[@]}"; do wait "$i" || die "a request failed"; done
  for i in 1 2 3 4 5 6; do equals "answer $i of $1" "$(get choices <"$work/$1.$i")" "$cold"; done
}
load whole &
loading=$!
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
wait "$loading" || die "the load with a daemon killed"
load gone
equals "attached" "$(metric cache_attached)" 0
equals "said once" "$(grep -c 'cache not used' "$work/server.log")" 1
start_daemon "${daemon_flags[@]}"
found() { ask /v1/completions "$body" >"$work/found.json" && [ "$(get usage.prompt_cache_hit_tokens <"$work/found.json")" = 512 ]; }
await found
equals "answer when it is back" "$(get choices <"$work/found.json")" "$cold"
kill -STOP "$daemon"
load hung
kill -CONT "$daemon"
equals "failed in all this" "$(metric 'requests_total{end="failed"}')" 0

# ---- SIGTERM amid an answer ----
begin "{\"model\": \"nano\", \"prompt\": \"$prompt\", \"max_tokens\": 400}"
stop_server
tail -n 2 <&3 >"$work/last"
grep -q '^data: \[DONE\]' "$work/last" || die "the request that ran at SIGTERM"
echo "all as it should be"
