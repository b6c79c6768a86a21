# test_symbols.py - the symbols and dependencies of the libraries are exactly the promised ones.
# SPDX-License-Identifier: Apache-2.0
"""libquire.so exports what the headers declare with QUIRE_API, nothing else, and needs libc, libm
and pthreads only. Globals of the static libraries carry the project's prefix."""
import os
import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(os.environ["QUIRE_SOURCE_DIR"])
BINARY = Path(os.environ["QUIRE_BINARY_DIR"])
SYSTEM = {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2",
          "ld-linux-aarch64.so.1"}


def output(*command):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def declared():
    names = set()
    for header in (SOURCE / "include/quire").glob("*.h"):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
        names |= set(re.findall(r"^QUIRE_API\b[^;(]*?\b(\w+)\(", text, flags=re.M))
    return names


def globals_of(library, *options):
    rows = (line.split() for line in output("nm", *options, "--defined-only", library).splitlines())
    return {row[-1].split("@")[0] for row in rows if len(row) == 3 and row[1] != "A"}


problems = []
exported = globals_of(BINARY / "libquire.so", "-D")
promised = declared()
if not promised:
    problems.append("no QUIRE_API found in the headers")
problems += [f"libquire.so exports {name}, which no header declares with QUIRE_API"
             for name in sorted(exported - promised)]
problems += [f"{name} is declared with QUIRE_API, but libquire.so lacks it"
             for name in sorted(promised - exported)]
problems += [f"{name} is exported, but has no public name"
             for name in sorted(exported) if not re.fullmatch(r"quire(_[a-z0-9]+)+", name)]

for library in (BINARY / "libquire.a", BINARY / "libquire-model.a"):
    if not library.exists():  # the model is an option
        continue
    names = globals_of(library, "-g")
    problems += [f"{library.name}: global {name} has no quire_ prefix"
                 for name in sorted(names) if not name.startswith("quire_")]
    if not names:
        problems.append(f"{library.name} is empty")

dynamic = output("readelf", "-d", BINARY / "libquire.so")
needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
problems += [f"libquire.so needs {name}" for name in sorted(needed - SYSTEM)]
if re.findall(r"\(SONAME\).*\[(.*)\]", dynamic) != ["libquire.so.0"]:
    problems.append("the SONAME of libquire.so is not libquire.so.0")

print("\n".join(problems) or f"{len(exported)} symbols")
sys.exit(bool(problems))
