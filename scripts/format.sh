#!/usr/bin/env bash
# format.sh - lays out every C file by .clang-format; --check only tells which ones differ.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."

mode=(-i)
[ "${1-}" != --check ] || mode=(--dry-run --Werror)
find include src tools tests examples bench \( -name '*.c' -o -name '*.h' \) \
    -not -path 'tests/tidy/*' -print0 | xargs -0 clang-format "${mode[@]}"
