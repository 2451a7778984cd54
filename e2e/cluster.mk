# Verbs of the cluster that the tests run on, and of the image that they install there. Settings are variables:
# make cluster-up K8S_VERSION=1.34.4 NODES=1
cluster := $(dir $(lastword $(MAKEFILE_LIST)))cluster
triple = $(shell rustc -vV | sed -n 's/^host: //p')
built = $(or $(CARGO_TARGET_DIR),target)

.PHONY: cluster-up cluster-down cluster-status cluster-test image image-load

# Three nodes of a real Kubernetes, usable when it returns. A second call says that it is up.
cluster-up:
	@$(cluster)/up.sh

# Leaves nothing but the cache of binaries and images. LOGS=dir keeps the logs there.
cluster-down:
	@$(cluster)/down.sh

# What runs and what it costs; fails, and names the log to read, when the cluster is not up and whole.
cluster-status:
	@$(cluster)/status.sh

# Proves the scripts, on clusters of their own beside one that may be up.
cluster-test:
	@$(cluster)/test.sh

# Our image, static, as target/image/stateful-guardian.tar. --target keeps the flag from procedural macros, which cannot be static.
# PROFILE=quick: the guardian is compiled faster, and is slower.
image: export RUSTFLAGS = -C target-feature=+crt-static
image: profile = $(or $(PROFILE),release)
image:
	cargo build --locked --profile $(profile) --target $(triple) --package stateful-guardian --bin guardian
	RUSTFLAGS="$$RUSTFLAGS -C relocation-model=static" \
	cargo build --locked --profile hook --target $(triple) --package guardian-hook --bin guardian-hook --features freestanding
	@mkdir -p $(built)/image
	@$(cluster)/image.sh $(built)/image $(built)/$(triple)/$(profile)/guardian $(built)/$(triple)/hook/guardian-hook

# Into every node of the running cluster, as localhost/stateful-guardian:dev.
image-load: image
	@$(cluster)/image-load.sh $(built)/image/stateful-guardian.tar
