#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each of them for a while: README.md.
#
# usage: tests/fuzz/fuzz.sh [--seconds N | --total-seconds N | --build | --replay DIR] [--keep] [TARGET...]
#   --seconds N  of fuzzing each target (60)
#   --total-seconds N  for all targets together, of which as many run at once as there are cores
#   --build      only builds them
#   --replay DIR only replays the corpora, by the programs of build folder DIR; needs no clang
#   --keep       afterwards adds the inputs that reach new code, minimised, to tests/fuzz/corpus
#   TARGET       as in tests/fuzz/CMakeLists.txt; all of them if none is named
#
# Prints one JSON line a target, then their sums as tests/attacks.txt wants them. Exit status 1 if any input crashed, hung for over a second or took over 512 MB; it
# then lies in build/fuzz/crashes/TARGET-*, and `build/asan/fuzz/fuzz_TARGET FILE` runs it again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds=60
total=
replay=
build_only=false
keep=false
targets=()
while (($# > 0)); do
  case $1 in
    --seconds) seconds=${2:?fuzz: --seconds needs a number}; shift 2 ;;
    --total-seconds) total=${2:?fuzz: --total-seconds needs a number}; shift 2 ;;
    --build) build_only=true; shift ;;
    --replay) replay=${2:?fuzz: --replay needs a build folder}; shift 2 ;;
    --keep) keep=true; shift ;;
    -*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) targets+=("$1"); shift ;;
  esac
done
for number in "$seconds" "${total:-1}"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || { echo "fuzz: $number is no number of seconds" >&2; exit 2; }
done

if [[ -z $replay && ! -e $(clang++ -print-file-name=libclang_rt.fuzzer-x86_64.a 2>/dev/null) ]]; then
  echo "fuzz: clang with libFuzzer is not installed: apt-get install --no-install-recommends clang libclang-rt-14-dev" >&2
  exit 2
fi

corpora=tests/fuzz/corpus
((${#targets[@]})) || mapfile -t targets < <(sed -n 's/^cairn_fuzz_target(\([a-z_]*\) .*/\1/p' tests/fuzz/CMakeLists.txt)
for target in "${targets[@]}"; do
  [[ -d $corpora/$target ]] || { echo "fuzz: there is no target $target" >&2; exit 2; }
done

# The attack's line: trials, failures, and what was counted.
sums() {
  printf '{"attack": "fuzz", "seed": 0, "trials": %s, "failed": %s, "counts": {"targets": %s, "%s": %s}, "result": "%s"}\n' \
    "$1" "$2" "${#targets[@]}" "$3" "$1" "$( (($2)) && echo fail || echo pass)"
  exit "$(($2 > 0))"
}

if [[ -n $replay ]]; then
  inputs=0 failed=0
  for target in "${targets[@]}"; do
    "$replay/fuzz/fuzz_$target" "$corpora/$target" >&2 || failed=$((failed + 1))
    inputs=$((inputs + $(find "$corpora/$target" -type f | wc -l)))
  done
  sums "$inputs" "$failed" "inputs replayed"
fi

at_once=$(nproc)
if [[ -n $total ]]; then
  rounds=$(((${#targets[@]} + at_once - 1) / at_once))
  seconds=$((total > rounds ? total / rounds : 1))
fi
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
cmake --preset fuzz --log-level=WARNING "${launcher[@]}" >&2
cmake --build --preset fuzz --parallel "$(nproc)" --target "${targets[@]/#/fuzz_}" >&2
if $build_only; then exit 0; fi

crashes=build/fuzz/crashes
mkdir -p "$crashes"

# The number behind a name in libFuzzer's log: the last one there.
figure() {
  local found
  found=$(grep -oE "$1 *[0-9]+" "$2" | tail -n 1 | grep -oE '[0-9]+$') || found=0
  echo "$found"
}

run_target() {
  local target=$1
  local program=build/fuzz/fuzz/fuzz_$target
  local found=build/fuzz/found/$target  # inputs that reached something new, kept between runs
  local log=build/fuzz/$target.log
  local options=(-rss_limit_mb=512 -timeout=1 -max_len=4096 -verbosity=1 -print_final_stats=1
    "-artifact_prefix=$crashes/$target-")
  [[ -f tests/fuzz/$target.dict ]] && options+=("-dict=tests/fuzz/$target.dict")
  mkdir -p "$found"
  local crashed=0
  "$program" "${options[@]}" "-max_total_time=$seconds" "$found" "$corpora/$target" >"$log" 2>&1 || crashed=1
  local cov ft runs
  runs=$(figure 'stat::number_of_executed_units:' "$log")
  cov=$(figure 'cov:' "$log")
  ft=$(figure 'ft:' "$log")
  printf '{"target": "%s", "executions": %s, "seconds": %s, "crashes": %s, "edges": %s, "features": %s}\n' \
    "$target" "$runs" "$seconds" "$crashed" "$cov" "$ft"
  if ((crashed)); then
    grep -m 3 -E 'does not hold|ERROR:|SUMMARY:|runtime error|Test unit written' "$log" >&2 || tail -n 5 "$log" >&2
  elif $keep; then
    # The fewest inputs that cover it all, short ones; only what the corpus lacks is written.
    "$program" "${options[@]}" -max_len=1024 -set_cover_merge=1 "$corpora/$target" "$found" >>"$log" 2>&1
  fi
  return "$crashed"
}

# Each target in a process group of its own, so that who ends this ends them.
set -m
trap 'for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || true; done' EXIT

failed=0
running=0
await_one() {
  wait -n || failed=$((failed + 1))
  running=$((running - 1))
}
for target in "${targets[@]}"; do
  if ((running == at_once)); then await_one; fi
  run_target "$target" &
  running=$((running + 1))
done
while ((running)); do await_one; done

executions=0
for target in "${targets[@]}"; do
  executions=$((executions + $(figure 'stat::number_of_executed_units:' "build/fuzz/$target.log")))
done
sums "$executions" "$failed" "inputs"
