#!/usr/bin/env bash
# Fails if a library holds an instruction that multiplies, then adds and subtracts by turns, in one rounding. Nobody writes
# those by hand here, and GCC 12 makes them at -O3 of two products and an alternating sum although -ffp-contract=off
# forbids it: a rounding that the source has and the program has not.
# Usage: check_fused.sh LIBRARY...
set -euo pipefail
found=0
for library in "$@"; do
  [ -s "$library" ] || { echo "no library $library"; exit 1; }
  if objdump -d --no-show-raw-insn "$library" | awk '/^[0-9a-f]+ <.*>:$/ {f = $2} /vfm(addsub|subadd)/ {print f, $2; n = 1} END {exit !n}' | sort | uniq -c; then
    echo "  in $library: write these sums with intrinsics (kernels/README.md)"
    found=1
  fi
done
exit "$found"
