#!/usr/bin/env bash
# Installs what the build needs from Debian 12. Idempotent: with nothing missing it touches neither apt nor the network.
set -euo pipefail

packages=(
  build-essential cmake ninja-build pkg-config ccache python3 clang-format clang-tidy
  libabsl-dev libprotobuf-dev protobuf-compiler libgrpc-dev libgrpc++-dev protobuf-compiler-grpc
  librocksdb-dev liburing-dev libxxhash-dev libssl-dev libpcre2-dev
  libcli11-dev libspdlog-dev libtomlplusplus-dev nlohmann-json3-dev libcpp-httplib-dev
  libgtest-dev libgmock-dev libbenchmark-dev
)

if ! command -v dpkg-query >/dev/null; then
  echo "setup: this is not Debian; install the equivalents of: ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $state == installed ]] || missing+=("$package")
done

if ((${#missing[@]} == 0)); then
  echo "setup: all ${#packages[@]} packages are installed"
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "setup: run as root or install sudo; missing: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt_get() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q "$@" >>"$log" 2>&1 && return
  tail -n 20 "$log" >&2
  echo "setup: 'apt-get $*' failed (its last lines are above)" >&2
  exit 1
}
apt_get update
apt_get install --no-install-recommends "${missing[@]}"
echo "setup: installed ${#missing[@]} packages: ${missing[*]}"
