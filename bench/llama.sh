#!/usr/bin/env bash
# llama.sh - Quire's tokens/s and attention beside llama.cpp's, on one model and machine.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: bench/llama.sh [--level native|avx2|avx512|avx512bf16] [OPTION...] MODEL.gguf
#
# Builds llama.cpp where it is not built yet (bench/peers/get_llama.sh), with instructions of that
# level, and ggml_attend.c against it. QUIRE names the command (build/release/quire). Options go to
# bench/peers/speed.py: --threads N, --runs N, --only models|batch|shared|attention, --json. PREFIX
# holds words to put before every measured command, as PREFIX="chrt -f 1".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
level=native

usage() {
    echo "usage: bench/llama.sh [--level native|avx2|avx512|avx512bf16] [OPTION...] MODEL.gguf" >&2
    exit 2
}

if [ "${1-}" = --help ] || [ "${1-}" = -h ]; then
    sed -n '2s/^# //p; 5,10{s/^# //; s/^#$//; p}' "$0"
    exit
fi
if [ "${1-}" = --level ]; then
    level=${2-}
    shift $(($# < 2 ? $# : 2))
fi
[ $# -gt 0 ] || usage
model=${!#}
if [ ! -f "$model" ]; then
    echo "bench: there is no file $model" >&2
    usage
fi
quire=${QUIRE:-$here/../build/release/quire}
if [ ! -x "$quire" ]; then
    echo "bench: no $quire: run scripts/build.sh release, or set QUIRE" >&2
    exit 1
fi

llama=$("$here/peers/get_llama.sh" "$level")
"${CC:-cc}" -std=c11 -D_GNU_SOURCE -O2 "-I$llama/source/ggml/include" \
    "$here/peers/ggml_attend.c" -o "$llama/ggml_attend" "-L$llama/bin" -lggml -lggml-cpu \
    -lggml-base -lm "-Wl,-rpath-link,$llama/bin" || {
    echo "bench: ggml_attend.c does not build: ggml's API differs from the one it knows (11434)" >&2
    exit 1
}
exec "${PYTHON:-python3}" "$here/peers/speed.py" --quire "$quire" --llama "$llama" \
    --level "$level" "$@"
