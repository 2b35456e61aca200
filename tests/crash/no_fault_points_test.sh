#!/usr/bin/env bash
# The cairnd that is shipped has no fault points in it; the one of the kill campaign has.
# Usage: no_fault_points_test.sh CAIRND CAIRND_WITH_FAULTS
set -euo pipefail
fault_symbols() { nm -C "$1" | grep -cE 'FaultPoint|FaultBoard' || true; }

[ "$(fault_symbols "$1")" = 0 ] || { echo "FAILED: fault points in $1"; exit 1; }
[ "$(fault_symbols "$2")" != 0 ] || { echo "FAILED: no fault points in $2"; exit 1; }
