# Two commands for a start: `make run` and `make test`. Everything is built with one profile, release.

TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/release

# The lab's scenario (`all`, or names that `dwcp-lab scenarios` lists), and how often and how long. EXTRA_RUNS is for the
# contenders that nothing is required against.
SCENARIO ?= all
RUNS ?= 5
EXTRA_RUNS ?= $(RUNS)
TIME ?= 30
# Scenarios at a time. Each run tells how idle the machine was; two cores carry four.
JOBS ?= 1
# Faults that strike the store's members, from a seed that repeats them (the time if not given).
ROUNDS ?= 100
SEED ?=
# How many kills `make kills` makes.
KILLS ?= 1000

# Seeds of `make sim`.
SEEDS ?= 100000

# Where `make test-page` puts its pictures, if anywhere.
SCREENSHOTS ?=

.PHONY: run test test-deploy test-page test-xdp test-rdma test-node test-kube sim lint doc fuzz bench bench-api bench-load bench-consensus bench-delta bench-regions bench-xdp lab lab-course chaos kills etcd-e2e deps programs kube-build kube-up kube-status kube-down images

## Sends a real tree over TLS on this machine, verifies it, compares with plain copying.
run: programs
	scripts/demo.sh

## Everything that has to hold before a change goes in. Ends with the tests that could not run here.
test: deps
	cargo fmt --all --check
	scripts/test.sh --workspace --release --locked --no-fail-fast
	scripts/in-time.sh 12 $(MAKE) lint
	scripts/in-time.sh 8 scripts/test-deploy.sh
	scripts/in-time.sh 5 scripts/test-openapi.sh
	scripts/in-time.sh 5 scripts/test-page.sh
	scripts/in-time.sh 4 $(MAKE) doc
	scripts/in-time.sh 30 scripts/test-rdma.sh
	FUZZ_SECONDS=$${FUZZ_SECONDS:-5} scripts/in-time.sh 20 fuzz/smoke.sh
	@cat $(TARGET)/test-skips.txt

## What deploy/ has, checked with the tools of its worlds. Part of `make test`.
test-deploy:
	scripts/test-deploy.sh

## XDP in this kernel, on veth pairs. Part of `make test`.
test-xdp: deps
	TEST_NAME=xdp scripts/test.sh -p dwcp-ebpf --features xdp --release --locked

## RDMA on Soft-RoCE in a virtual machine; RDMA=--compare also measures beside the verbs tools and writes docs/benchmarks.md (--compare-only: nothing else). Part of `make test`.
test-rdma: deps
	scripts/test-rdma.sh $(RDMA)

## XDP, tuning and tunnels with Debian's kernel, in a virtual machine. Not part of
## `make test`: on a loaded machine the emulated guest is too slow for its time limit.
test-node: deps
	scripts/test-node.sh

## The page of the HTTP API in headless Chromium, against real daemons. Part of `make test`.
test-page: deps
	SCREENSHOTS=$(abspath $(SCREENSHOTS)) scripts/test-page.sh

## Tests in a Kubernetes cluster on this machine (root), docs/kubernetes-tests.md. Skipped where Kubernetes is not built yet.
test-kube: programs
	tests/kube/test.sh

## Builds Kubernetes into the cache, once: ten minutes of one processor.
kube-build:
	tests/kube/build.sh

## A cluster to try things on, its state, and its end. KUBE_CLUSTER, KUBE_NODES, KUBE_DATASTORE: tests/kube/cluster.sh.
kube-up:
	tests/kube/up.sh

kube-status:
	tests/kube/status.sh

kube-down:
	tests/kube/down.sh

## Images of the programs, as archives in the target folder; nothing is pulled.
images: programs
	deploy/images/build.sh $(TARGET)/images

## The store on simulated disks, networks and clocks, once for each of SEEDS (100000) seeds. `make test` runs some.
sim: programs
	$(BIN)/sim --seeds 0..$(SEEDS)

lint: deps
	cargo fmt --all --check
	@# What is compiled where there is no clang.
	CLANG=/no/clang cargo clippy --release --locked -p dwcp-ebpf --features xdp --lib -- -D warnings
	cargo clippy --workspace --release --locked --all-targets -- -D warnings

doc: deps
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --release --locked --no-deps

## Every fuzz target for FUZZ_SECONDS (30).
fuzz: deps
	fuzz/smoke.sh

## DWCP beside its peers on loopback; writes docs/benchmarks.md. BENCH takes further flags of dwcp-bench.
bench: programs
	cargo bench --locked -p dwcp-benches --bench allocations --bench memory >$(TARGET)/counted.txt
	$(BIN)/dwcp-bench --json $(TARGET)/bench.json --counted $(TARGET)/counted.txt \
		--doc docs/benchmarks.md --readme README.md \
		$(addprefix --lab ,$(wildcard $(TARGET)/lab.json)) \
		$(addprefix --course ,$(wildcard $(TARGET)/course.json)) $(BENCH)

## The consensus store beside etcd: three members each, the same disk and clients. BENCH takes flags of consensus-bench:
## `--quick` for a look, `--only LOAD` for one load, which takes its place in consensus.json and docs/benchmarks.md.
bench-consensus: programs
	$(BIN)/consensus-bench --folder $(TARGET) --etcd "$$(scripts/etcd-build.sh)" --json $(TARGET)/consensus.json \
		--doc docs/benchmarks.md $(BENCH)
	$(BIN)/consensus-embedded --folder $(TARGET) --doc docs/benchmarks.md

## The second version of an image over the wire beside rsync and zstd --patch-from, and how fast deltas are made and decoded.
bench-delta: deps
	cargo build --release --locked -p dwcp-transfer --example versions
	cargo run --release --locked -p dwcp-delta --example delta_bench
	scripts/bench-delta.sh

## How long changes take to be in all regions, and how many bytes, in simulated time; writes docs/benchmarks.md.
bench-regions: deps
	scripts/bench-regions.sh

## The API beside a handler that only does the work, over the same store; writes docs/benchmarks.md. BENCH takes flags of api-bench.
bench-api: programs
	$(BIN)/api-bench --folder $(TARGET) --doc docs/benchmarks.md $(BENCH)

## A thousand users of k6 at the API, in stages, several times: how long they wait, what fails, whether it grows; writes
## docs/benchmarks.md. BENCH takes flags of tests/deploy/load.py.
bench-load: programs
	scripts/bench-load.sh --folder $(TARGET) --doc docs/benchmarks.md $(BENCH)

## What it costs a core to drop a flood, in XDP and in user space; to receive datagrams, by AF_XDP and by recvmmsg; and
## what XDP costs TCP beside them. Writes docs/benchmarks.md.
bench-xdp: deps
	scripts/bench-xdp.sh

## DWCP beside its peers over emulated WAN links. Each scenario takes its place in lab.json when it is done, so they can
## be measured one at a time; the next `make bench` puts them into docs/benchmarks.md.
lab: programs
	cargo build --release --locked -p dwcp-lab
	$(BIN)/dwcp-lab compare --scenario $(SCENARIO) --runs $(RUNS) --extra-runs $(EXTRA_RUNS) --time $(TIME) \
		--jobs $(JOBS) --novacron $(BIN)/novacron --peers $(BIN)/dwcp-peers --json $(TARGET)/lab.json

## Two minutes of DWCP alone on each link: how the number of links settles. `make bench` documents it.
lab-course: programs
	cargo build --release --locked -p dwcp-lab
	$(BIN)/dwcp-lab compare --scenario all --contenders novacron --runs 1 --time 120 \
		--jobs $(JOBS) --novacron $(BIN)/novacron --json $(TARGET)/course.json

## Members of the store are killed, stopped and cut off, ROUNDS times; is what their clients saw linearizable?
chaos: programs
	$(BIN)/chaos --rounds $(ROUNDS) $(addprefix --seed ,$(SEED)) --evidence $(TARGET)/chaos

## Senders, receivers and runs of `novacron store gc` are killed, KILLS times, at random moments. `make test` does some.
kills: deps
	KILLS=$(KILLS) cargo test --release --locked -p novacron --test cli kills -- --nocapture

## etcd's own end-to-end tests against our member: those in tests/etcd-e2e/pass.txt have to pass.
etcd-e2e: programs
	scripts/etcd-e2e.sh $(BIN)

programs: deps
	cargo build --release --locked --workspace --bins

deps:
	@scripts/install-deps.sh
	@scripts/rocksdb.sh
