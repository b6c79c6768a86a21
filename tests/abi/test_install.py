# test_install.py - installs the build, then builds and runs an outside program over it.
# SPDX-License-Identifier: Apache-2.0
"""Both ways (pkg-config, CMake package), both libraries (shared, static). The tree is moved after
it was installed, so nothing in it may name where it was."""
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(os.environ["QUIRE_SOURCE_DIR"])
BINARY = Path(os.environ["QUIRE_BINARY_DIR"])
WORK = BINARY / "tests" / "abi"
PREFIX = WORK / "prefix"
VERSION = re.search(r'QUIRE_VERSION\s+"(.*)"', (SOURCE / "include/quire/version.h").read_text())[1]


def run(*command, **environment):
    done = subprocess.run(command, env={**os.environ, **environment}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))}\n{done.stdout}exit status {done.returncode}")
    return done.stdout


def expect_version(program, **environment):
    said = run(program, **environment)
    if said != f"quire {VERSION}\n":
        sys.exit(f"{program} said {said!r}")


def install():
    shutil.rmtree(WORK, ignore_errors=True)
    run("cmake", "--install", BINARY, "--prefix", "/elsewhere", DESTDIR=str(WORK))
    (WORK / "elsewhere").rename(PREFIX)
    for path in PREFIX.rglob("*"):
        if path.suffix in (".pc", ".cmake") and str(BINARY) in path.read_text():
            sys.exit(f"{path} names the build folder")
    have = sorted(path.name for path in (PREFIX / "include/quire").iterdir())
    want = sorted(path.name for path in (SOURCE / "include/quire").glob("*.h"))
    if have != want:
        sys.exit(f"installed headers are {have}, not {want}")
    if "QUIRE_CLI" in os.environ:
        for path in ("bin/quire", "share/man/man1/quire.1",
                     "share/bash-completion/completions/quire"):
            if not (PREFIX / path).is_file():
                sys.exit(f"{path} was not installed")
        if VERSION not in run(PREFIX / "bin/quire", "--version"):
            sys.exit("the installed command does not say its version")


def pkg_config(*arguments):
    folder = next(PREFIX.rglob("quire.pc")).parent
    return shlex.split(run("pkg-config", *arguments, "quire", PKG_CONFIG_PATH=str(folder)))


def with_pkg_config():
    cc = shlex.split(os.environ["QUIRE_CC"])
    outside = SOURCE / "tests/abi/outside.c"
    if pkg_config("--modversion") != [VERSION]:
        sys.exit("quire.pc has another version than the headers")
    libraries = next(PREFIX.rglob("libquire.so")).parent
    shared = WORK / "pc-shared"
    run(*cc, "-std=c11", *pkg_config("--cflags"), outside, "-o", shared, *pkg_config("--libs"))
    expect_version(shared, LD_LIBRARY_PATH=str(libraries))
    static = WORK / "pc-static"
    run(*cc, "-std=c11", "-static", *pkg_config("--cflags"), outside, "-o", static,
        *pkg_config("--static", "--libs"))
    expect_version(static)


def with_cmake():
    build = WORK / "outside"
    run("cmake", "-G", "Ninja", "-S", SOURCE / "tests/abi", "-B", build,
        f"-DCMAKE_PREFIX_PATH={PREFIX}", f"-DCMAKE_C_COMPILER={os.environ['QUIRE_CC']}")
    run("cmake", "--build", build)
    expect_version(build / "outside-shared")
    expect_version(build / "outside-static")


install()
with_pkg_config()
with_cmake()
