#!/usr/bin/env bash
# run_tests.sh - runs the tests of one preset; its last line is the runner's count.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: scripts/run_tests.sh release|debug|asan|tsan [CTEST OPTION...]
# QUIRE_TEST_MODEL names the real model; without it the tests that need it skip, and say so.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -n "${QUIRE_TEST_MODEL-}" ] || unset QUIRE_TEST_MODEL
preset=$1
shift
log=build/$preset/Testing/last-run.txt
mkdir -p "$(dirname "$log")"
result=0
ctest --preset "$preset" "$@" 2>&1 | tee "$log" || result=$?
if [ -z "${QUIRE_TEST_MODEL-}" ]; then
    echo "run_tests: without QUIRE_TEST_MODEL the tests of the real model did not run"
fi
grep 'tests passed' "$log" || true
exit "$result"
