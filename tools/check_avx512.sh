#!/usr/bin/env bash
# Fails if code with 512-bit vectors or tiles could run where the processor has none: if another file of the library than
# the SOURCEs holds any, or if one of those defines more than its one function. An inline function of a header that is
# compiled there too would be such a symbol, and the linker keeps one copy of those for everybody.
# Usage: check_avx512.sh LIBRARY (SOURCE FUNCTION)...
set -euo pipefail
library=$1
shift
[ -s "$library" ] || { echo "no library $library"; exit 1; }
[ $# -ge 2 ] || { echo "which files are to have them?"; exit 1; }
allowed=
while [ $# -ge 2 ]; do
  source=$1 function=$2
  shift 2
  defined=$(nm -A -C --defined-only --extern-only "$library" | sed -n "s/^.*:$source\.o:[0-9a-f]* //p")
  if [ "$defined" != "T $function" ]; then
    echo "$source defines, beside $function, what others may be linked to:"
    echo "$defined"
    exit 1
  fi
  allowed+="$source.o:"$'\n'
done
allowed=$(sort -u <<< "${allowed%$'\n'}")
wide=$(objdump -d --no-show-raw-insn "$library" |
  awk '/^[^ ]+:     file format/ {file = $1} /%zmm|%tmm|tilecfg|tilerelease/ {print file}' | sort -u)
if [ "$wide" != "$allowed" ]; then
  echo "512-bit vectors and tiles are to be in:"
  echo "$allowed"
  echo "and are in:"
  echo "$wide"
  exit 1
fi
