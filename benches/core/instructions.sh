#!/bin/bash
# instructions.sh check|update: counts the instructions of the core, and compares them with instructions.txt, or writes them there.
# The counts are those of the compiler of rust-toolchain.toml, the release profile and amd64; where one of them is another, they say nothing.
set -euo pipefail; cd "$(dirname "$0")/../.."
die() { echo "${0##*/}: $*" >&2; exit 1; }
if [ "$(uname -m)" != x86_64 ]; then
  echo "the instructions of the core are not counted on $(uname -m): what is written down is of x86_64"
  exit
fi
if ! command -v valgrind > /dev/null; then
  command -v apt-get > /dev/null || die "valgrind is missing, and this is not Debian: install it"
  [ "$(id -u)" = 0 ] || die "valgrind is missing: install it, or let root run this once"
  echo "installing valgrind"
  log=$(mktemp); trap 'rm -f "$log"' EXIT
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends valgrind; } > "$log" 2>&1 \
    || { tail -20 "$log" >&2; die "apt-get failed"; }
fi
cargo build --release --locked --package guardian-bench-core --bin bench-instructions
"${CARGO_TARGET_DIR:-target}/release/bench-instructions" "$1" benches/core/instructions.txt
