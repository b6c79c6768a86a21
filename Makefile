# Makefile - the front door; CMake does the work.
# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.PHONY: help demo test tests bench bench-peers lint format install clean

# A prompt may hold quotes, dollars and newlines: it goes through the environment as it is, and
# neither make nor a shell reads it again.
# The base model completes texts, and soon repeats itself.
ifeq ($(value MODEL),gemma3-270m)
demo_prompt := The printing press was invented
demo_tokens := 74
else
demo_prompt := Why is the sky blue? Answer in two sentences.
demo_tokens := 256
endif
ifeq ($(origin PROMPT),undefined)
PROMPT := $(demo_prompt)
endif
export QUIRE_DEMO_PROMPT := $(value PROMPT)
export QUIRE_DEMO_MODEL := $(value MODEL)
unexport PROMPT MODEL
PREFIX ?= /usr/local

# A name that is neither known nor a file is told before anything is installed or built.
check_model = case "$${QUIRE_DEMO_MODEL-}" in "" | smollm2 | gemma3-270m) ;; \
	*) [ -e "$$QUIRE_DEMO_MODEL" ] || { echo "make: there is no file $$QUIRE_DEMO_MODEL;" \
	"MODEL is smollm2, gemma3-270m, or the path of a GGUF file" >&2; exit 1; } ;; esac

help:
	@echo 'make demo      a real model answers; PROMPT="..." asks something else'
	@echo '               MODEL=gemma3-270m completes a text, MODEL=x.gguf takes your own'
	@echo 'make test      build and run every test'
	@echo 'make bench     tokens/s, kernels beside their roof, cache costs; drawings in build/bench'
	@echo 'make bench-peers  builds llama.cpp; tokens/s and attention beside it'
	@echo 'make lint      house rules, clang-tidy, cppcheck, shellcheck'
	@echo 'make format    lay out the C code'
	@echo 'make install   install under PREFIX (default /usr/local); DESTDIR is obeyed'
	@echo 'make clean     remove build/'

demo:
	@$(check_model)
	@scripts/setup.sh demo
	@scripts/build.sh release quire-cli
	@model=$$(scripts/get_model.sh $${QUIRE_DEMO_MODEL:+"$$QUIRE_DEMO_MODEL"}) && \
	build/release/quire run -m "$$model" -p "$$QUIRE_DEMO_PROMPT" -n $(demo_tokens) --temp 0.3 \
		--seed 1 --stats

tests: test

test:
	@scripts/setup.sh test
	@scripts/build.sh release
	@smollm2=$${QUIRE_TEST_MODEL:-$$(scripts/get_model.sh || true)}; \
	gemma3=$${QUIRE_TEST_MODEL_GEMMA3:-$$(scripts/get_model.sh gemma3-270m || true)}; \
	QUIRE_TEST_MODEL=$$smollm2 QUIRE_TEST_MODEL_GEMMA3=$$gemma3 scripts/run_tests.sh release

bench:
	@$(check_model)
	@scripts/setup.sh demo
	@scripts/build.sh release quire-cli
	@mkdir -p build/bench
	@model=$$(scripts/get_model.sh $${QUIRE_DEMO_MODEL:+"$$QUIRE_DEMO_MODEL"}) && \
	build/release/quire bench model -m "$$model" && \
	build/release/quire bench roof && \
	build/release/quire bench attn --svg build/bench/attn.svg && \
	build/release/quire bench linear --svg build/bench/linear.svg && \
	build/release/quire bench cache

bench-peers:
	@$(check_model)
	@scripts/setup.sh peers
	@scripts/build.sh release quire-cli
	@model=$$(scripts/get_model.sh $${QUIRE_DEMO_MODEL:+"$$QUIRE_DEMO_MODEL"}) && \
	bench/llama.sh "$$model"

lint:
	@scripts/setup.sh lint
	@scripts/build.sh release
	@scripts/lint.sh

format:
	@scripts/setup.sh lint
	@scripts/format.sh

install:
	@scripts/build.sh release quire-static quire-shared quire-cli
	@cmake --install build/release --prefix "$(PREFIX)"

clean:
	@rm -rf build
