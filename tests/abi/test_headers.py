# test_headers.py - every public header compiles alone, twice, as strict C11 and as C++17.
# SPDX-License-Identifier: Apache-2.0
import os
import shlex
import subprocess
import sys
from pathlib import Path

SOURCE = Path(os.environ["QUIRE_SOURCE_DIR"])
WARNINGS = ["-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wvla", "-Werror"]
LANGUAGES = {
    "c": [*shlex.split(os.environ["QUIRE_CC"]), "-std=c11", "-Wshadow", "-Wstrict-prototypes"],
    "c++": [*shlex.split(os.environ["QUIRE_CXX"]), "-std=c++17"],
}

headers = sorted((SOURCE / "include/quire").glob("*.h"))
if not headers:
    sys.exit("no headers found")
failures = 0
for header in headers:
    unit = f"#include <quire/{header.name}>\n" * 2
    for language, compiler in LANGUAGES.items():
        command = [*compiler, *WARNINGS, "-x", language, "-fsyntax-only", "-Iinclude", "-"]
        done = subprocess.run(command, cwd=SOURCE, input=unit, text=True, stderr=subprocess.PIPE)
        if done.returncode != 0:
            print(f"{header.name} as {language}:\n{done.stderr}")
            failures += 1
print(f"{len(headers)} headers, {failures} failures")
sys.exit(failures != 0)
