#!/usr/bin/env bash
# lint.sh - house rules, clang-tidy, cppcheck and shellcheck over the whole tree.
# SPDX-License-Identifier: Apache-2.0
#
# Needs a configured release build, for its compile commands.
set -euo pipefail
cd "$(dirname "$0")/.."

database=build/release
jobs=$(nproc)

python3 tests/tidy/tidy.py .

# One file a process: with several, the analyser takes every va_list after the first for unset.
find src tools tests examples -name '*.c' -not -path 'tests/tidy/*' -not -path 'tests/abi/*' \
    -print0 | xargs -0 -n 1 -P "$jobs" clang-tidy -p "$database" --quiet \
    2> >(grep -v -E '^[0-9]+ warnings? generated|^Suppressed|^Use -header-filter' >&2 || true)

cppcheck --quiet --error-exitcode=1 --inline-suppr -j "$jobs" --std=c11 -D_GNU_SOURCE \
    --enable=warning,performance,portability -Iinclude -Isrc -Itools src tools examples

{
    printf '%s\0' .ci/run
    find scripts bench tests tools \( -name '*.sh' -o -name '*.bash' \) -print0
} | xargs -0 shellcheck
echo "lint: nothing to complain about"
