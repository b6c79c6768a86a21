# test_tidy.py - the source obeys the house rules, and the check of it finds what it must.
# SPDX-License-Identifier: Apache-2.0
"""Each file of bad/ breaks one rule once. Its name begins with the rule; its first line says where
it would lie, and is taken off. It is put into the tree of good/, which breaks none."""
import sys
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import tidy  # noqa: E402

HEAD = "/* {} - a sample.\n * SPDX-License-Identifier: Apache-2.0 */\n"
problems = []


def good_tree():
    return {path.relative_to(HERE / "good").as_posix(): path.read_text()
            for path in (HERE / "good").rglob("*") if path.is_file()}


def expect(what, files, rules):
    found = tidy.check(files)
    if [finding.rule for finding in found] != rules:
        problems.append(f"{what}: expected {rules}, found {found}")


def function_of(lines):
    return "int f(void)\n{\n" + "    f();\n" * (lines - 4) + "    return 0;\n}\n"


good = good_tree()
expect("good/", good, [])
samples = sorted((HERE / "bad").iterdir())
rules_seen = {"lines", "function"}
for sample in samples:
    place, text = sample.read_text().split("\n", 1)
    rule = sample.name.split("-")[0]
    rules_seen.add(rule)
    expect(f"bad/{sample.name}", {**good, place.removeprefix("at: "): text}, [rule])

# The budgets, at the limit and one past it.
for path, extra, limit in (("src/base/f.c", "", tidy.FUNCTION_LINES_MAX),
                           ("src/cache/f.c", "/* quire_k_ */\n", tidy.FUNCTION_LINES_MAX),
                           ("src/backend/cpu/f.c", "", tidy.FUNCTION_LINES_MAX),
                           ("src/backend/cpu/f.c", "/* quire_k_ */\n", tidy.KERNEL_LINES_MAX)):
    text = HEAD.format("f.c") + extra
    expect(f"{path}, {limit} lines", {**good, path: text + function_of(limit)}, [])
    expect(f"{path}, {limit + 1} lines", {**good, path: text + function_of(limit + 1)},
           ["function"])
text = HEAD.format("f.c") + "int x;\n" * (tidy.FILE_LINES_MAX - 2)
expect("a file at the limit", {**good, "src/base/f.c": text}, [])
expect("a file past the limit", {**good, "src/base/f.c": text + "int x;\n"}, ["lines"])

every_rule = {"head", "columns", "space", "todo", "lines", "function", "parameters", "layer",
              "call", "dead", "comment"}
if rules_seen != every_rule:
    problems.append(f"rules without a bad sample, or unknown: {rules_seen ^ every_rule}")

files = tidy.load(HERE.parent.parent)
problems += [f"{finding.path}:{finding.line}: {finding.rule}: {finding.text}"
             for finding in tidy.check(files)]
print("\n".join(problems) or f"{len(files)} files obey; {len(samples)} bad samples were found out")
sys.exit(bool(problems))
