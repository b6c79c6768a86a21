#!/usr/bin/env bash
# setup.sh - installs the Debian packages that a task needs and that are missing.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: scripts/setup.sh demo|test|lint
# Prints nothing when all is there. As root, or where sudo asks for no password, it installs;
# otherwise it names what is missing in one line and fails.
set -euo pipefail

demo=(gcc libc6-dev cmake ninja-build pkg-config libpcre2-dev libjansson-dev python3 python3-pip
    ca-certificates)
test=("${demo[@]}" g++ libcmocka-dev)
lint=("${test[@]}" clang clang-tidy clang-format libclang-rt-14-dev cppcheck shellcheck)

case "${1-}" in
demo) wanted=("${demo[@]}") ;;
test) wanted=("${test[@]}") ;;
lint) wanted=("${lint[@]}") ;;
*)
    echo "usage: scripts/setup.sh demo|test|lint" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this is not Debian; its packages would be ${wanted[*]}" >&2
    exit 0
fi

missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "setup: missing packages; as root run: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo -n)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" \
        </dev/null >"$log" 2>&1
}
fail() {
    tail -n 20 "$log" >&2
    echo "setup: cannot install ${missing[*]}: see above" >&2
    exit 1
}

echo "setup: installing ${missing[*]}"
# The package lists are fetched only where the ones at hand do not do.
if ! apt install -y --no-install-recommends "${missing[@]}"; then
    apt update || fail
    apt install -y --no-install-recommends "${missing[@]}" || fail
fi
