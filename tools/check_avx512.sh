#!/usr/bin/env bash
# Fails if code with 512-bit vectors could run where the processor has none: if another file of the library than the SOURCEs
# holds any, or if one of them defines more than its one function. An inline function of a header that is compiled there too
# would be such a symbol, and the linker keeps one copy of those for everybody.
# Usage: check_avx512.sh LIBRARY SOURCE FUNCTION [SOURCE FUNCTION]...
set -euo pipefail
library=$1
shift
[ -s "$library" ] || { echo "no library $library"; exit 1; }
sources=()
while [ $# -gt 0 ]; do
  source=$1 function=$2
  shift 2
  sources+=("$source.o:")
  defined=$(nm -A -C --defined-only --extern-only "$library" | sed -n "s/^.*:$source\.o:[0-9a-f]* //p")
  if [ "$defined" != "T $function" ]; then
    echo "$source defines, beside $function, what others may be linked to:"
    echo "$defined"
    exit 1
  fi
done
wide=$(objdump -d --no-show-raw-insn "$library" | awk '/^[^ ]+:     file format/ {file = $1} /%zmm/ {print file}' | sort -u)
allowed=$(printf '%s\n' "${sources[@]}" | sort -u)
if [ "$wide" != "$allowed" ]; then
  echo "512-bit vectors are to be in $allowed only, and are in: $wide"
  exit 1
fi
