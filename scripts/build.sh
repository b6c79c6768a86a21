#!/usr/bin/env bash
# build.sh - configures and builds one preset, and says little when all is well.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: scripts/build.sh release|debug|asan|tsan|fuzz|arm [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1-}" in
release | debug | asan | tsan | fuzz | arm) ;;
*)
    echo "usage: scripts/build.sh release|debug|asan|tsan|fuzz|arm [TARGET...]" >&2
    exit 2
    ;;
esac
preset=$1
shift
mkdir -p "build/$preset"
log=build/$preset/configure.log
cmake --preset "$preset" --log-level=NOTICE >"$log" || {
    cat "$log" >&2
    exit 1
}
cmake --build --preset "$preset" ${1:+--target "$@"} -- --quiet |
    { grep -v '^ninja: no work to do' || true; }
