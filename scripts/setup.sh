#!/usr/bin/env bash
# setup.sh - installs the Debian packages that a task needs and that are missing.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: scripts/setup.sh demo|test|lint|arm|peers
# Prints nothing when all is there. As root, or where sudo asks for no password, it installs;
# otherwise it names what is missing in one line and fails.
set -euo pipefail

demo=(gcc libc6-dev cmake ninja-build pkg-config libpcre2-dev libjansson-dev python3 python3-pip
    ca-certificates)
test=("${demo[@]}" g++ libcmocka-dev)
lint=("${test[@]}" clang clang-tidy clang-format libclang-rt-14-dev cppcheck shellcheck)
arm=("${test[@]}" gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user libcmocka-dev:arm64)
peers=("${demo[@]}" clang libomp-dev make)

case "${1-}" in
demo) wanted=("${demo[@]}") ;;
test) wanted=("${test[@]}") ;;
lint) wanted=("${lint[@]}") ;;
arm) wanted=("${arm[@]}") ;;
peers) wanted=("${peers[@]}") ;;
*)
    echo "usage: scripts/setup.sh demo|test|lint|arm|peers" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this is not Debian; its packages would be ${wanted[*]}" >&2
    exit 0
fi

# Of two architectures of a package, a name without one means this machine's.
is_installed() {
    local native
    native=$(dpkg --print-architecture)
    case $1 in
    *:*) native=${1##*:} ;;
    esac
    dpkg-query -W -f='${Architecture} ${db:Status-Status}\n' "$1" 2>/dev/null |
        grep -qxE "(all|$native) installed"
}

missing=()
for package in "${wanted[@]}"; do
    is_installed "$package" || missing+=("$package")
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
case " ${missing[*]} " in
*:arm64*) "${as_root[@]}" dpkg --add-architecture arm64 ;;
esac
# The package lists are fetched only where the ones at hand do not do.
if ! apt install -y --no-install-recommends "${missing[@]}"; then
    apt update || fail
    apt install -y --no-install-recommends "${missing[@]}" || fail
fi
