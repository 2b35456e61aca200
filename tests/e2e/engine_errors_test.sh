#!/usr/bin/env bash
# Bad input to cairn-engine: each gets one clear line on stderr and its own exit status, and writes nothing.
# Usage: engine_errors_test.sh BIN_DIR GOLDEN_DIR
set -euo pipefail
bin=$1
golden=$2/nano-plain
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# expect STATUS PATTERN COMMAND...: the status, exactly one line on stderr that matches, no output file.
expect() {
  local status=$1 pattern=$2 got=0
  shift 2
  rm -f "$work/out.safetensors"
  "$@" >"$work/stdout" 2>"$work/stderr" || got=$?
  if [ "$got" != "$status" ] || [ "$(wc -l <"$work/stderr")" != 1 ] || ! grep -q -e "$pattern" "$work/stderr" ||
    [ -e "$work/out.safetensors" ]; then
    echo "FAILED: wanted status $status and a line with '$pattern', got status $got and:"
    cat "$work/stderr"
    echo "  from: $*"
    failures=$((failures + 1))
  fi
}

logits() { # MODEL TOKENS PREFILL
  echo "$bin/cairn-engine logits --model $1 --tokens $2 --prefill $3 --out $work/out.safetensors --numerics plain"
}

# A safetensors file of I32 tokens.
tokens() { # FILE ID...
  local file=$1 header length
  shift
  header="{\"tokens\":{\"dtype\":\"I32\",\"shape\":[$#],\"data_offsets\":[0,$((4 * $#))]}}"
  length=${#header}
  {
    printf "\\x$(printf %02x $((length % 256)))\\x$(printf %02x $((length / 256)))\\0\\0\\0\\0\\0\\0"
    printf '%s' "$header"
    for id in "$@"; do
      printf "\\x$(printf %02x $((id & 255)))\\x$(printf %02x $(((id >> 8) & 255)))\\x$(printf %02x $(((id >> 16) & 255)))\\x$(printf %02x $(((id >> 24) & 255)))"
    done
  } >"$file"
}

copy() { # NAME: a model to spoil
  rm -rf "${work:?}/$1"
  cp -r "$golden" "$work/$1"
  rm -f "$work/$1/golden.safetensors"
}

tokens "$work/good.safetensors" 1 2 3 4 5
# The helper itself works, or every case below would pass for the wrong reason.
$(logits "$golden" "$work/good.safetensors" 3)
test -s "$work/out.safetensors"

tokens "$work/high.safetensors" 1 2 256 4
expect 12 'token 256 at position 2' $(logits "$golden" "$work/high.safetensors" 3)
tokens "$work/negative.safetensors" 1 -7
expect 12 'token -7 at position 1' $(logits "$golden" "$work/negative.safetensors" 1)

long=$(seq -s ' ' 1 1030 | sed 's/[0-9]\+/7/g')
# shellcheck disable=SC2086
tokens "$work/long.safetensors" $long
expect 13 'maximum is 1024' $(logits "$golden" "$work/long.safetensors" 10)
head -c 2000 /dev/zero | tr '\0' 'x' >"$work/long.txt"
expect 13 'maximum is 1024' "$bin/cairn-engine" generate --model "$golden" --prompt-file "$work/long.txt" --quiet

expect 14 'nothing.safetensors' $(logits "$golden" "$work/nothing.safetensors" 1)
head -c 20 "$work/good.safetensors" >"$work/cut.safetensors"
expect 14 'cut.safetensors' $(logits "$golden" "$work/cut.safetensors" 1)
expect 2 '--prefill 9' $(logits "$golden" "$work/good.safetensors" 9)
expect 2 'nothing.txt' "$bin/cairn-engine" generate --model "$golden" --prompt-file "$work/nothing.txt" --quiet

copy cut
truncate -s -1000 "$work/cut/model.safetensors"
expect 11 'model.safetensors' $(logits "$work/cut" "$work/good.safetensors" 3)
copy garbage
printf '\xff\xff\xff\xff\xff\xff\xff\x7f' | dd of="$work/garbage/model.safetensors" conv=notrunc status=none
expect 11 'model.safetensors' $(logits "$work/garbage" "$work/good.safetensors" 3)
copy empty
: >"$work/empty/model.safetensors"
expect 11 'model.safetensors' $(logits "$work/empty" "$work/good.safetensors" 3)
copy renamed
sed -i 's/"layers.1.attn.wkv.weight"/"layers.1.attn.wkw.weight"/' "$work/renamed/model.safetensors"
expect 11 'layers.1.attn.wkv.weight' $(logits "$work/renamed" "$work/good.safetensors" 3)
copy config
echo '{"dim": 64' >"$work/config/config.json"
expect 10 'config.json' $(logits "$work/config" "$work/good.safetensors" 3)
copy narrow
sed -i 's/"dim": 64/"dim": 96/' "$work/narrow/config.json"
expect 11 'embed.weight' $(logits "$work/narrow" "$work/good.safetensors" 3)
expect 10 'nowhere' $(logits "$work/nowhere" "$work/good.safetensors" 3)

copy tokenizer
cp "$2/../../engine/text/testdata/tokenizer.json" "$work/tokenizer/"
expect 10 "tokenizer.json: has the id 2270, but the model's vocabulary is 256" \
  "$bin/cairn-engine" generate --model "$work/tokenizer" --prompt-file "$work/long.txt" --quiet
expect 10 'nothing.json' \
  "$bin/cairn-engine" generate --model "$golden" --tokenizer "$work/nothing.json" --prompt-file "$work/long.txt" --quiet

# A cache that cannot be used is said once and costs no answer.
printf 'hello, cache' >"$work/prompt.txt"
"$bin/cairn-engine" generate --model "$golden" --prompt-file "$work/prompt.txt" --quiet --new-tokens 2 \
  --cache "unix:$work/nobody.sock" --json "$work/figures.json" >/dev/null 2>"$work/stderr"
[ "$(grep -c 'cache not used' "$work/stderr")" = 1 ] || { echo "FAILED: absent cache not said once"; failures=$((failures + 1)); }
grep -q '"output_tokens": 2' "$work/figures.json"

# What the engine on the GPU does not have is said before anything is looked for.
expect 2 'full numerics only' \
  "$bin/cairn-engine" generate --model "$golden" --prompt-file "$work/prompt.txt" --device cuda --numerics kvq
serve() { "$bin/cairn-engine" serve --model "$golden" --port 0 "$@"; }
expect 2 'full numerics only' serve --device cuda --numerics kvq
expect 2 '--speculate is for --device cpu' serve --device cuda --speculate
expect 2 '--expert-cache is for --device cpu' serve --device cuda --expert-cache 1GiB
expect 2 '--kv-bytes is for --device cpu' serve --device cuda --kv-bytes 1GiB
expect 2 '--context is for --device cuda' serve --context 1000
expect 2 '--pin is for --device cuda with --cache' serve --device cuda --pin

# compare: 0 for the same, 30 for a differing bit.
$(logits "$golden" "$work/good.safetensors" 3)
cp "$work/out.safetensors" "$work/a.safetensors"
cp "$work/out.safetensors" "$work/b.safetensors"
"$bin/cairn-engine" compare "$work/a.safetensors" "$work/b.safetensors" >/dev/null
printf '\x01' | dd of="$work/b.safetensors" bs=1 seek=$(($(stat -c %s "$work/b.safetensors") - 1)) conv=notrunc status=none
expect 30 'differs, first at element' "$bin/cairn-engine" compare "$work/a.safetensors" "$work/b.safetensors"

[ "$failures" = 0 ] && echo "all cases as they should be" || { echo "$failures cases failed"; exit 1; }
