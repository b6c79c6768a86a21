#!/usr/bin/env bash
# run_tests.sh - runs the tests of one preset; its last line is the runner's count.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: scripts/run_tests.sh release|debug|asan|tsan|arm [CTEST OPTION...]
# QUIRE_TEST_MODEL and QUIRE_TEST_MODEL_GEMMA3 name the real models; without one the tests that need
# it skip, and say so.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -n "${QUIRE_TEST_MODEL-}" ] || unset QUIRE_TEST_MODEL
[ -n "${QUIRE_TEST_MODEL_GEMMA3-}" ] || unset QUIRE_TEST_MODEL_GEMMA3
preset=$1
shift
log=build/$preset/Testing/last-run.txt
mkdir -p "$(dirname "$log")"
result=0
ctest --preset "$preset" "$@" 2>&1 | tee "$log" || result=$?
for name in QUIRE_TEST_MODEL QUIRE_TEST_MODEL_GEMMA3; do
    if [ -z "${!name-}" ]; then
        echo "run_tests: without $name the tests of that real model did not run"
    fi
done
grep 'tests passed' "$log" || true
exit "$result"
