# Every verb of the project; CI calls only these. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/stateful-guardian
export PATH := $(cache)/tools/bin:$(PATH)

include e2e/cluster.mk

.PHONY: help build fetch image-beside fmt lint deny unit browser monitoring properties model fuzz fuzz-short rotation test test-long e2e demo tools bench bench-build bench-create bench-stop bench-collect bench-fleet bench-instructions bench-instructions-update

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## All binaries, for development
	cargo build --workspace --locked

fmt: ## Format the code
	cargo fmt --all

lint: tools ## Format, lints, dependencies, one crypto provider
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo deny --locked check --hide-inclusion-graph bans licenses sources
	@! cargo tree --workspace --locked --edges normal,build --prefix none | grep -E '^(aws-lc-|openssl |openssl-sys|native-tls)' || { echo "a second crypto provider"; exit 1; }

# One test in three waits for a process, and leaves its processor to another.
unit: tools ## Every test that needs no cluster and no browser
	cargo nextest run --workspace --locked --test-threads $$(($$(nproc) * 3 / 2)) -E 'not package(guardian-e2e) and not binary(browser)'

browser: tools ## The dashboard in a Chromium, which is installed where it is missing
	e2e/browser/install.sh
	cargo nextest run --workspace --locked -E 'binary(browser)'

monitoring: ## The alerts in promtool, which is fetched where it is missing
	e2e/monitoring/install.sh
	promtool check rules manifests/monitoring/alerts.yaml
	promtool test rules manifests/monitoring/alerts.test.yaml

properties = admission::tests::properties lifecycle::property role::tests::whatever rehearse::tests::whatever metric::tests::served::whatever
# Optimised, into a directory of its own: a debug build takes hours for so many.
properties: ## The properties over 100,000 cases each, other ones each time (`make unit`: a few thousand, always the same)
	export PROPTEST_RNG_SEED=$$RANDOM$$RANDOM && echo "PROPTEST_RNG_SEED=$$PROPTEST_RNG_SEED" && \
	CARGO_PROFILE_TEST_OPT_LEVEL=2 PROPTEST_CASES=100000 cargo test -p guardian-core --locked --lib --target-dir $(built)/properties -- $(properties)

# The core is built with less by default, for the sake of every other test.
model: ## Every order in which some faults can come to a small set, explored (`make unit`: fewer of them)
	CARGO_PROFILE_TEST_OPT_LEVEL=2 cargo --config 'profile.dev.package.guardian-core.opt-level=2' test -p guardian-core --locked --lib --target-dir $(built)/model -- lifecycle::model --ignored --nocapture

fuzz: ## Each fuzz target for SECONDS (60), all at once
	fuzz/run.sh -- -max_total_time=$(or $(SECONDS),60)

fuzz-short: ## Each fuzz target for a number of inputs
	fuzz/run.sh -- -runs=20000

e2e: ## The cluster tests, on the cluster of KUBECONFIG, or on our own, which is brought up
	e2e/run.sh

test: fetch monitoring lint unit browser image-beside cluster-test e2e ## Everything that must pass before a change lands

rotation: ## CA and leaf replaced as fast as the rules allow, for two minutes under load (`make e2e`: 20 s)
	GUARDIAN_ROTATION_SECONDS=120 RUN=rotation e2e/run.sh

test-long: bench-instructions fuzz properties model rotation ## What takes long besides, before a release

# In the background: the network works while the processors do.
fetch:
	@e2e/cluster/fetch.sh > /dev/null 2>&1 &

# In the background: the proof of the scripts waits for most of its time. `make e2e` waits for it, and says so if it fails.
image-beside:
	@nice $(MAKE) --no-print-directory image PROFILE=quick > /dev/null 2>&1 &

bench: bench-build ## How fast the webhook answers, beside an echo and a webhook in Go: make bench BENCH="--rounds 1 --case 4k --markdown FILE"
	@$(built)/release/bench-admission admission --guardian $(built)/release/guardian --peer $(built)/bench/peer $(BENCH)
	@if [ -n "$$KUBECONFIG" ]; then $(built)/release/bench-admission create; else echo "no KUBECONFIG: what the webhook adds to a create is not measured" >&2; fi

bench-build:
	cargo build --release --locked --package stateful-guardian --package guardian-bench-admission --bin guardian --bin bench-admission
	cd benches/peers && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w' -o $(abspath $(built))/bench/peer .

bench-create: bench-build ## What the webhook adds to a create, on the cluster of KUBECONFIG
	@$(built)/release/bench-admission create

bench-stop: bench-build ## How long after a deletion preStop knows its reason, on the cluster of KUBECONFIG: make bench-stop STOP="--pods 8"
	@$(built)/release/bench-admission stop --guardian $(built)/release/guardian $(STOP)

bench-collect: build ## What it costs to ask pods for their role, on our own cluster
	@benches/collect.sh $(COLLECT)

bench-fleet: build ## The controller before 10,000 guarded pods on hollow nodes, on the cluster of KUBECONFIG: make bench-fleet FLEET="-sets 100 -metrics 5"
	cd benches/fleet && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w' -o $(abspath $(built))/bench/fleet .
	@$(built)/bench/fleet -guardian $(built)/debug/guardian -address $(or $(ADDRESS),10.99.0.1) $(FLEET)

bench-instructions: ## Instructions that the core spends on a review; fails at a tenth more than benches/core/instructions.txt has
	benches/core/instructions.sh check

bench-instructions-update: ## Writes the instructions down
	benches/core/instructions.sh update

demo: ## From nothing to a killed Redis that rejoins, told on the terminal
	e2e/demo.sh

tools: ## The cargo plugins that the other verbs call, at pinned versions
	@e2e/tools.sh $(cache)/tools
