#!/bin/bash
# Runs the fuzz targets: `fuzz/run.sh TARGET... -- LIBFUZZER_FLAGS...`, all of them when none is named.
#
# The toolchain is the pinned one: coverage is a pass of LLVM that every rustc has, and libFuzzer is a library. What was found to be worth
# keeping stays in target/fuzz/corpus; an input that fails is kept in target/fuzz/artifacts, and named.
set -euo pipefail
cd "$(dirname "$0")/.."
targets=()
while (($#)) && [[ $1 != -- ]]; do targets+=("$1"); shift; done
(($#)) && shift
((${#targets[@]})) || targets=(review policy template runner)
work=$PWD/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

# Inline counters of the edges, and the operands of comparisons; only with --target are build scripts and macros left out.
flags=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1)
RUSTFLAGS="${flags[*]}" cargo build --locked --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$work/build"

# The seeds are the golden cases: nothing is kept twice.
rm -rf "$work/seeds"
mkdir -p "$work"/{artifacts,seeds/{review,policy,template,runner}} "$work"/corpus/{review,policy,template,runner}
for case in core/src/admission/testdata/*.review.json; do
    # With fewer spaces, so that a mutation hits something.
    tr -s ' \n' ' ' <"$case" >"$work/seeds/review/$(basename "$case")"
done
cp core/src/policy/testdata/{whole.yaml,bad/*.yaml} "$work/seeds/policy/"
cp fuzz/seeds/runner/* "$work/seeds/runner/"

# A review is at most a few dozen KiB in practice, and a policy a few; 512 MiB are ten times what a target needs with its corpus. 60 s for
# an input of milliseconds: a busy machine finds no hang.
declare -A longest=([review]=65536 [policy]=16384 [template]=66 [runner]=16384)
fuzz() {                                             # target, flags...
    local target=$1; shift
    "$work/build/$host/debug/$target" -max_len="${longest[$target]}" -rss_limit_mb=512 -timeout=60 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="$work/artifacts/$target-" "$@" "$work/corpus/$target" "$work/seeds/$target" > "$work/$target.log" 2>&1 || {
        # Its last lines name the input and where it is kept.
        echo "fuzz: $target failed, see $work/$target.log:"; tail -n 40 "$work/$target.log"; return 1
    }
    awk -v target="$target" '/^stat::/ { stat[$1] = $2 } END { printf "fuzz: %-8s %s inputs, %s MB at most, nothing found\n",
        target, stat["stat::number_of_executed_units:"], stat["stat::peak_rss_mb:"] }' "$work/$target.log"
}
# All at once: they share the processors, and the time is the clock's.
failed=0 running=()
for target in "${targets[@]}"; do fuzz "$target" "$@" & running+=($!); done
for pid in "${running[@]}"; do wait "$pid" || failed=1; done
exit "$failed"
