#!/usr/bin/env python3
# run.py - breaks one rule of the cache at a time, and expects the model test to fail.
# SPDX-License-Identifier: Apache-2.0
"""Usage: tests/mutants/run.py [NAME...]

Needs a release build of the target test-model_based-pool_model. For each mutant of mutants.txt (or
those whose "RULE name" contains one of the NAMEs) compiles the one changed file, links it before
the library, and runs the test in build/mutants. QUIRE_MUTANT_OPS: operations at most (400,000)."""
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build/release"
OUT = ROOT / "build/mutants"
TARGET = "test-model_based-pool_model"
RULES = ("P1 P2 P3 P4 P5 X1 X2 X3 X4 E1 E2 W1 S1 S2 S3 T1 T2").split()
OPS = os.environ.get("QUIRE_MUTANT_OPS", "400000")
TEST_SECONDS_MAX = 300


class Mutant(NamedTuple):
    name: str
    what: str
    path: str
    old: str
    new: str


def read_mutants(text):
    form = re.compile(r"^== (\w+ \w+): ([^\n]+)\n(\S+)\n<<<<\n(.*?)^----\n(.*?)^>>>>\n",
                      re.M | re.S)
    found = [Mutant(*match.groups()) for match in form.finditer(text)]
    if len(found) != len(re.findall(r"^== ", text, re.M)):
        sys.exit("mutants.txt: a mutant is malformed")
    lacking = set(RULES) - {mutant.name.split()[0] for mutant in found}
    if lacking:
        sys.exit(f"mutants.txt: no mutant of {', '.join(sorted(lacking))}")
    return found


def mutate(mutant):
    text = (ROOT / mutant.path).read_text(encoding="utf-8")
    old = mutant.old.rstrip("\n")
    if text.count(old) != 1:
        sys.exit(f"{mutant.name}: its text stands {text.count(old)} times in {mutant.path}")
    return text.replace(old, mutant.new.rstrip("\n"))


def link_command():
    """What links the test in the release build, as words."""
    lines = subprocess.run(["ninja", "-C", BUILD, "-t", "commands", TARGET], check=True,
                           capture_output=True, text=True).stdout.strip().split("\n")
    return re.sub(r"^: && | && :$", "", lines[-1])


def compile_commands():
    entries = json.loads((BUILD / "compile_commands.json").read_text(encoding="utf-8"))
    return {entry["file"]: entry for entry in entries}


def build(mutant, source, commands, link):
    folder = OUT / mutant.name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    changed, compiled = folder / Path(mutant.path).name, folder / "mutant.o"
    changed.write_text(source, encoding="utf-8")
    entry = commands[str(ROOT / mutant.path)]
    words = shlex.split(entry["command"])
    words[words.index("-o") + 1] = str(compiled)
    words = [str(changed) if word == entry["file"] else word for word in words]
    subprocess.run(words + ["-w"], cwd=entry["directory"], check=True)
    words = shlex.split(link)
    program = folder / TARGET
    words[words.index("-o") + 1] = str(program)
    first = next(i for i, word in enumerate(words) if word.endswith(".a"))
    subprocess.run(words[:first] + [str(compiled)] + words[first:], cwd=BUILD, check=True)
    return program


def run(mutant, commands, link):
    """None when the test saw the mutant; else what went wrong. Prints what it saw."""
    program = build(mutant, mutate(mutant), commands, link)
    environment = {**os.environ, "QUIRE_TEST_OPS": OPS, "QUIRE_TEST_SHRINK": "0"}
    for name in ("QUIRE_TEST_SEED", "QUIRE_TEST_SCRIPT", "QUIRE_TEST_RUNS"):
        environment.pop(name, None)
    done = subprocess.run([program], env=environment, capture_output=True, text=True,
                          errors="replace", timeout=TEST_SECONDS_MAX, check=False)
    seen = re.search(r"^FAILED: (.*)$", done.stderr, re.M)
    if done.returncode == 0 or not seen:
        return f"{mutant.name}: {mutant.what}: nobody saw it"
    print(f"{mutant.name}: {seen[1]}", flush=True)
    return None


def main():
    mutants = read_mutants((Path(__file__).parent / "mutants.txt").read_text(encoding="utf-8"))
    wanted = [mutant for mutant in mutants
              if not sys.argv[1:] or any(name in mutant.name for name in sys.argv[1:])]
    for mutant in mutants:
        mutate(mutant)
    commands, link = compile_commands(), link_command()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        missed = [text for text in pool.map(lambda m: run(m, commands, link), wanted) if text]
    for text in missed:
        print(text, file=sys.stderr)
    print(f"mutants: {len(wanted) - len(missed)} of {len(wanted)} seen")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
