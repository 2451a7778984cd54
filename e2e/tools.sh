#!/bin/bash
# tools.sh DIRECTORY: installs the cargo plugins of the Makefile into DIRECTORY/bin, at these versions. A second run does nothing.
# Not optimised, and without debug information: they start commands, and compiling them is most of what they will ever cost.
set -euo pipefail
directory=$1
declare -A versions=([cargo-nextest]=0.9.151 [cargo-deny]=0.20.2)
declare -A features=([cargo-nextest]="--no-default-features --features default-no-update" [cargo-deny]="--no-default-features")

for tool in "${!versions[@]}"; do
  stamp=$directory/$tool-${versions[$tool]}
  [ ! -x "$directory/bin/$tool" ] || [ ! -e "$stamp" ] || continue
  echo "tools: building $tool ${versions[$tool]}"
  # shellcheck disable=SC2086 # the features are words
  CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    CARGO_TARGET_DIR="$directory/build" cargo install --quiet --locked ${features[$tool]} --version "${versions[$tool]}" --root "$directory" "$tool"
  touch "$stamp"
done
rm -rf "$directory/build"
