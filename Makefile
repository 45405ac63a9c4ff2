# The front door. Every target installs what it needs (Debian packages, a Python package for the VM) and says in plain words
# what it cannot get. `make` alone shows this list.

CARGO ?= cargo
# What `sheave --version` and the results of the bench name; nothing where there is no repository.
export SHEAVE_COMMIT ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)
# What the crates link (libnftnl, libmnl) and what the scenarios use as real clients and as oracles.
BUILD_PACKAGES := pkg-config libnftnl-dev libmnl-dev
# netbase: /etc/protocols, by which nft lists `tcp` and not `6`, and /etc/hosts, for localhost. binutils: readelf, for the image.
TEST_PACKAGES  := binutils nftables iproute2 conntrack curl procps netbase iptables ipset ipvsadm arping ndisc6

.PHONY: help demo test mutants test-vm test-vm-all lint bench bench-docs bench-check bench-page build deps-build deps-test

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

test-vm: deps-test ## the plane and the SCTP scenarios on Debian's own kernel in qemu (no KVM needed), as in `make test`
	scripts/test-vm

test-vm-all: deps-test ## that, and the nftables scenarios over TCP and UDP on that second kernel too
	scripts/test-vm all

lint: deps-build ## rustfmt, clippy with the workspace's lints, cargo-deny
	scripts/lint

bench: deps-test ## the promises of docs/performance.md as numbers of this machine, and a page that shows them
	scripts/bench

bench-check: deps-build ## count the instructions of the hot rooms under valgrind and hold them to bench/budgets.toml
	@scripts/need valgrind
	scripts/bench-check

bench-docs: deps-build ## the tables of README and docs/performance.md, from the results in bench/results
	$(CARGO) run --locked --quiet -p sheave-bench -- report bench/results --docs README.md --docs docs/performance.md

bench-page: deps-build ## that page, in a headless Chromium (installs it)
	@scripts/need chromium-headless-shell
	$(CARGO) test --locked -p sheave-bench --test page -- --ignored
