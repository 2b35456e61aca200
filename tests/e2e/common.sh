# common.sh: what the scripts beside it share. Sourced once `bin` is set; gives `work`, a folder that goes at the end, as do all
# processes started in the background.
work=$(mktemp -d)
daemon=
finish() {
  local processes
  processes=$(jobs -p)
  [ -z "$processes" ] || kill -9 $processes 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

die() {
  echo "FAILED: $*"
  for log in "$work"/*.log; do echo "--- $log"; tail -n 20 "$log"; done
  exit 1
}
pause() { read -rt 0.02 <> <(:) || true; }
# await COMMAND...: until it succeeds.
await() {
  local end=$((SECONDS + 60))
  until "$@"; do
    ((SECONDS < end)) || die "in a minute not: $*"
    pause
  done
}
equals() { [ "$2" = "$3" ] || die "$1: wanted $3, got $2"; }

ctl() { "$bin/cairnctl" --socket "$work/admin.sock" "$@"; }
start_daemon() { # FLAGS
  "$bin/cairnd" --dir "$work/data" --socket "$work/cairn.sock" --admin-socket "$work/admin.sock" "$@" >>"$work/cairnd.log" 2>&1 &
  daemon=$!
  until ctl version >/dev/null 2>&1; do
    kill -0 "$daemon" 2>/dev/null || die "cairnd ended at start"
    pause
  done
}
stop_daemon() { # SIGNAL; its status
  kill "-$1" "$daemon"
  local status=0
  wait "$daemon" || status=$?
  daemon=
  return "$status"
}

# Of $work/NAME.json and $work/NAME.safetensors, which an engine wrote.
figure() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/$1.json" "$2"; }
same() { "$bin/cairn-engine" compare "$work/$1.safetensors" "$work/$2.safetensors" >/dev/null || die "$1 and $2 differ"; }
