# Makefile - the front door; CMake does the work.
# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.PHONY: help demo test bench lint format install clean

# A prompt may hold quotes, dollars and newlines: it goes through the environment as it is, and
# neither make nor a shell reads it again.
ifeq ($(origin PROMPT),undefined)
PROMPT := Why is the sky blue? Answer in two sentences.
endif
export QUIRE_DEMO_PROMPT := $(value PROMPT)
export QUIRE_DEMO_MODEL := $(value MODEL)
unexport PROMPT MODEL
PREFIX ?= /usr/local

help:
	@echo 'make demo      a real model answers; PROMPT="..." asks something else, MODEL=x.gguf too'
	@echo 'make test      build and run every test'
	@echo 'make bench     tokens/s and cache costs, beside llama.cpp where its tools are'
	@echo 'make lint      house rules, clang-tidy, cppcheck, shellcheck'
	@echo 'make format    lay out the C code'
	@echo 'make install   install under PREFIX (default /usr/local); DESTDIR is obeyed'
	@echo 'make clean     remove build/'

demo:
	@scripts/setup.sh demo
	@scripts/build.sh release quire-cli
	@model=$${QUIRE_DEMO_MODEL:-$$(scripts/get_model.sh)} && \
	build/release/quire run -m "$$model" -p "$$QUIRE_DEMO_PROMPT" -n 256 --temp 0.3 --seed 1 --stats

test:
	@scripts/setup.sh test
	@scripts/build.sh release
	@QUIRE_TEST_MODEL=$${QUIRE_TEST_MODEL:-$$(scripts/get_model.sh || true)} \
	scripts/run_tests.sh release

bench:
	@scripts/setup.sh demo
	@scripts/build.sh release quire-cli
	@model=$${QUIRE_DEMO_MODEL:-$$(scripts/get_model.sh)} && \
	build/release/quire bench model -m "$$model" && build/release/quire bench cache && \
	bench/llama.sh compare "$$model"

lint:
	@scripts/setup.sh lint
	@scripts/build.sh release
	@scripts/lint.sh

format:
	@scripts/setup.sh lint
	@scripts/format.sh

install:
	@scripts/build.sh release
	@cmake --install build/release --prefix "$(PREFIX)"

clean:
	@rm -rf build
