# make run    builds and starts a node
# make test   runs every test, the simulation among them
# make lint   what must hold before a change is taken, short of the tests
# make openapi  holds a node against its own /openapi.json, with schemathesis
# make fuzz   looks for bytes that break a parser, FUZZ_SECONDS (60) for each
# make help   says this
#
# Each checks first for what the build needs and installs what is missing, saying so (.ci/need).
# How long the parts of the tests may take, and how much they must do, stands in .ci/test and can
# be set on the command line: make test SIM_SEEDS=200

.PHONY: help run test lint openapi fuzz
.DEFAULT_GOAL := help

# Flags for the node: make run ARGS="--http-port 9071"
ARGS ?=

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

# The whole workspace is built, so that what `make test` compiled is used again.
run:
	@.ci/need
	@cargo build --release --workspace
	@exec target/release/sprawl $(ARGS)

test:
	@.ci/need
	@.ci/test

lint:
	@.ci/need
	@.ci/lint

openapi:
	@.ci/need curl python-schemathesis
	@.ci/openapi

fuzz:
	@.ci/need
	@.ci/fuzz

# Variables given to make are seen by the scripts.
export SIM_SEEDS SIM_BUDGET SIM_SEEDS_MIN GOSSIP_SEEDS GOSSIP_BUDGET
export CLUSTER_SEEDS CLUSTER_BUDGET CLUSTER_SEEDS_MIN
export DETERMINISM_SEEDS
export ZOO_BUDGET TEST_LOG
export FUZZ_SECONDS FUZZ_TARGETS OPENAPI_EXAMPLES OPENAPI_SEED
