# The front door. Every target installs what it needs (Debian packages, a Python package for the VM) and says in plain words
# what it cannot get. `make` alone shows this list.

CARGO ?= cargo
# What the crates link (libnftnl, libmnl) and what the scenarios use as real clients and as oracles.
BUILD_PACKAGES := pkg-config libnftnl-dev libmnl-dev
TEST_PACKAGES  := binutils nftables iproute2 conntrack curl procps

.PHONY: help demo test mutants test-vm lint bench build deps-build deps-test

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps-build:
	@scripts/need $(BUILD_PACKAGES)

deps-test: deps-build
	@scripts/need $(TEST_PACKAGES)

build: deps-build ## build everything, release profile
	$(CARGO) build --release --locked

demo: deps-build ## see a real Service being load-balanced by the real kernel, in namespaces of its own
	$(CARGO) build --release --locked --quiet -p sheave
	@target/release/sheave demo

test: deps-test ## prove it: unit tests, properties, scenarios with real packets, and a second kernel in a VM
	scripts/test

mutants: deps-build ## break policy and table one rule at a time; every break must fail a test
	scripts/mutants

test-vm: deps-test ## the plane and the SCTP scenarios on Debian's own kernel in qemu (no KVM needed)
	scripts/test-vm

lint: deps-build ## rustfmt, clippy with the workspace's lints, cargo-deny
	scripts/lint

bench: deps-test ## the promises of docs/performance.md as numbers of this machine
	scripts/bench
