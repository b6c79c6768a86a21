#!/usr/bin/env bash
# lint.sh - house rules, clang-tidy, cppcheck and shellcheck over the whole tree.
# SPDX-License-Identifier: Apache-2.0
#
# Needs a configured release build, for its compile commands.
set -euo pipefail
cd "$(dirname "$0")/.."

jobs=$(nproc)
failed=0

python3 tests/tidy/tidy.py . || failed=1

# One file a process: with several, the analyser takes every va_list after the first for unset.
# What it counts on stderr is of no use to anybody.
find src tools tests examples -name '*.c' -not -path 'tests/tidy/*' -not -path 'tests/abi/*' \
    -print0 | xargs -0 -n 1 -P "$jobs" clang-tidy -p build/release --quiet 2>build/clang-tidy.log ||
    failed=1
grep -E 'error:' build/clang-tidy.log >&2 || true

# It does not see that a conditional pointer fills an array of the lanes.
cppcheck --quiet --error-exitcode=1 --inline-suppr -j "$jobs" --std=c11 -D_GNU_SOURCE \
    --enable=warning,performance,portability --suppress='uninitvar:src/backend/cpu/lanes/*' \
    -Iinclude -Isrc -Itools src tools examples || failed=1

{
    printf '%s\0' .ci/run
    find scripts bench tests tools \( -name '*.sh' -o -name '*.bash' \) -print0
} | xargs -0 shellcheck || failed=1

[ "$failed" -ne 0 ] || echo "lint: nothing to complain about"
exit "$failed"
