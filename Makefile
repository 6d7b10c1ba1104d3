# The manual of this repository: every verb with one line of help.
.DEFAULT_GOAL := help
SHELL := bash
.PHONY: help setup demo cluster cluster-down test bench-rl bench-evaluate bench-controller bench-merge check fmt generate lock clean

help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: ## make this clone ready: tools and dependencies into .venv (once; needs Python 3.11)
	@.ci/setup

demo: setup ## run a whole WARP procedure on this machine, about 3 minutes on two cores
	@.ci/demo

cluster: setup ## a Kubernetes on this machine, without root; prints the KUBECONFIG line (TIER=node: real pods, root)
	@.venv/bin/python -m tests.cluster.harness.developer up $(TIER)

cluster-down: ## remove the Kubernetes of `make cluster` and every trace of it
	@.venv/bin/python -m tests.cluster.harness.developer down

test: ## run everything that CI runs: check, the wheel, all tests
	@.ci/test

bench-rl: setup ## RL's speed and memory side by side with TRL, in its own environment (minutes, on a quiet machine)
	@.ci/bench-rl

bench-evaluate: setup ## CPU seconds of evaluating 24 points of 256 completions
	@.venv/bin/python -m tests.benchmarks.evaluate --laboratory $${WARPCTL_CACHE:-$$HOME/.cache/warpctl}/tiny

bench-controller: setup ## the controller under 10, 100 and 1,000 live runs on a real API server (about 15 minutes; RUNS=5,20 is quick)
	@PYTHONPATH=. OMP_NUM_THREADS=1 .venv/bin/python -m tests.benchmarks.controller --runs $${RUNS:-10,100,1000}

bench-merge: setup ## merging beside the copy of its bytes, mergekit and obstore (an hour, 20 GB of disk; OPTIONS="--scale 0.05" is quick)
	@.ci/bench-merge $(OPTIONS)

check: setup ## what is known without running anything: style, types, floors, generated files
	@.ci/check

fmt: setup ## format the code and mend what can be mended
	@.venv/bin/ruff check --fix --quiet . || true
	@.venv/bin/ruff format .

generate: setup ## make the generated files anew (docs/spec.md, docs/cli.md)
	@.ci/generate

lock: setup ## pin dependencies again after a change of pyproject.toml (UPGRADE=--upgrade for newer ones)
	@.ci/lock $(UPGRADE)

clean: ## remove what was built, not the artifact stores of runs
	@rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .stamps
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
