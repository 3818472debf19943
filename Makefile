# `make run` and `make test` are all a newcomer needs; `make help` lists the rest.
.PHONY: help run lab image guest test test-image bench fuzz lint
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

run: lab ## the product; until there is an image, the lab

lab: ## every daemon on this machine, and a phone that enrols; ONCE=1 stops after it; TOKENS=softhsm|kryoptic|tpm2-pkcs11|tpm|split
	@.ci/install build
	@if [ "$(TOKENS)" = kryoptic ]; then .ci/kryoptic; fi
	cargo build --workspace --bins
	@target/debug/casemate-lab

image: ## the appliance's disk, signed and checked, in target/image/out; needs root
	@.ci/install image
	@image/build

guest: image ## boots the image in QEMU, and a phone enrols; ONCE=1 stops after it, KEEP=1 goes on with the disk of last time
	cargo build -p casemate-qemu -p casemate-phone --bins
	@target/debug/casemate-guest

test-image: image ## the tests on the guest: boots the image in QEMU, a minute or more a boot
	cargo build -p casemate-phone --bins
	cargo test -p casemate-guest-tests -- --test-threads=1 --nocapture

test: ## every test but those on the guest
	@.ci/install build
	@.ci/test

bench: ## the numbers of the README, measured here
	@.ci/install build
	@.ci/kryoptic
	cargo build --release --workspace --bins
	@target/release/casemate-bench

fuzz: ## every fuzz target for SECONDS_EACH (10) seconds on its corpus
	@.ci/install build
	@.ci/fuzz

lint: ## format, clippy, licences, banned crates, sources, nothing for tests in what ships
	@.ci/install lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny --config .cargo/deny.toml check licenses bans sources
	@.ci/shipped
