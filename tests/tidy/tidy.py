# tidy.py - checks the house rules that no compiler checks: budgets, layers, calls, comments.
# SPDX-License-Identifier: Apache-2.0
"""Usage: python3 tests/tidy/tidy.py ROOT

check(files) takes {path: text} and gives a sorted list of Finding. The rules: head, columns,
space, todo, lines, function, parameters, layer, call, dead, comment."""
import re
import sys
from pathlib import Path
from typing import NamedTuple

COLUMNS_MAX = 100
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
KERNEL_LINES_MAX = 120
PARAMETERS_MAX = 6

FOLDERS = ("include", "src", "tools", "tests", "examples", "bench", "scripts", "cmake", "docs",
           ".ci")
CODE = (".c", ".h", ".inc", ".def")
SCRIPT = (".py", ".sh", ".bash", ".cmake", ".map", ".in")
SCRIPT_NAMES = ("CMakeLists.txt", "Makefile", ".clang-format", ".clang-tidy", ".editorconfig",
                ".gitignore", "run")

# The sources that CMakeLists.txt and tests/CMakeLists.txt pick up, and those that
# bench/peers/run.sh and bench/llama.sh build; a .c beside these is dead.
BUILT = re.compile(r"""src/(base|cache|model)/[^/]+\.c | src/backend/.+\.c | tools/quire/[^/]+\.c
    | tests/[^/]+/test_[^/]+\.c | tests/support/[^/]+\.c | tests/fuzz/(fuzz_[^/]+|replay)\.c
    | tests/abi/outside\.c | examples/(support/)?[^/]+\.c
    | bench/peers/(quire_peer|llama_seq|ggml_attend)\.c""", re.X)

# Folder, what it may include with quotes, what it may include with angle brackets.
SIMD = r"(?!\w*intrin\.h|arm_\w+\.h)"
PURE = r"(assert|errno|inttypes|limits|math|pthread|std(align|atomic|bool|def|int|io)|string)\.h"
LAYERS = (
    ("include/quire/", r"(?!)", r"quire/|std(bool|def|int)\.h"),
    ("src/base/", r"base/", SIMD),
    ("src/cache/", r"(base|cache)/", rf"quire/|{PURE}"),
    ("src/backend/", r"(base|backend)/", r""),
    ("src/model/", r"(base|model)/", SIMD),
    ("tools/", r"(base|model|quire)/|tools/", SIMD),
    ("examples/", r"model/|(examples/)?support/", SIMD),
    ("examples/embed.c", r"(?!)", SIMD),  # these show the public headers alone
    ("examples/paged.c", r"(?!)", SIMD),
)

HEAP = "malloc|calloc|realloc|reallocarray|aligned_alloc|posix_memalign|free|strdup|strndup"
OUTPUT = "printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|putc|fputc|perror|dprintf"
# Calls, where they are allowed, what to do instead.
CALLS = (
    ("strcpy|strcat|stpcpy|sprintf|vsprintf|gets|strtok|alloca", r"(?!)", "it has no bound"),
    ("atoi|atol|atoll|atof", r"(?!)", "it hides errors: use strto*"),
    ("exit|_exit|_Exit|quick_exit", r"tools/quire/main\.c|tests/|examples/", "return a status"),
    ("abort", r"src/base/status\.c|tests/", "use QUIRE_CHECK"),
    (HEAP, r"src/base/alloc\.c|tools/|tests/|examples/", "use quire__alloc and its kin"),
    ("f?open|openat|fdopen|popen|socket|system", r"src/base/|tools/|tests/|examples/",
     "src/base does the input and output"),
    ("mmap|munmap|madvise", r"src/base/|tests/", "use quire__reserve or quire__file_map"),
    ("getenv|secure_getenv|setenv", r"src/base/|tools/|tests/|examples/", "use quire__getenv"),
    ("clock_gettime|gettimeofday|time", r"src/base/|tools/|tests/|examples/", "use quire__now_ns"),
    (OUTPUT, r"src/base/status\.c|tools/|tests/|examples/", "the library never prints"),
)


class Finding(NamedTuple):
    path: str
    line: int
    rule: str
    text: str


class Function(NamedTuple):
    name: str
    line: int
    lines: int
    parameters: list


def blank(match):
    return re.sub(r"[^\n]", " ", match[0])


def without_comments(text):
    """Comments and what is inside literals become spaces; lines and columns stay."""
    token = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''

    def clean(match):
        if match[0][0] == "/":
            return blank(match)
        return match[0][0] + re.sub(r"[^\n]", " ", match[0][1:-1]) + match[0][-1]

    return re.sub(token, clean, text, flags=re.S)


def split_parameters(text):
    """The names in a parameter list; (void) has none."""
    parts, depth = [""], 0
    for char in text:
        depth += char in "([{"
        depth -= char in ")]}"
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    names = []
    for part in parts:
        pointer = re.search(r"\(\s*\*\s*(\w+)", part)
        words = re.findall(r"\w+|\.\.\.", re.sub(r"\[.*?\]", "", part))
        if words and words != ["void"]:
            names.append(pointer[1] if pointer else words[-1])
    return names


def matching(text, start):
    """Where the bracket that opens at start closes, or -1."""
    depth = 0
    for at in range(start, len(text)):
        depth += text[at] in "({["
        depth -= text[at] in ")}]"
        if depth == 0:
            return at
    return -1


def signature(head):
    """Name and parameters of a function whose body follows head, or None."""
    if re.search(r"=\s*$", head) or re.match(r"\s*extern\s+\"\s*\"\s*$", head):
        return None
    found, at = None, 0
    while (match := re.compile(r"(\w+)\s*\(").search(head, at)) is not None:
        end = matching(head, match.end() - 1)
        if end < 0:
            return None
        if not re.fullmatch(r"__\w+__|_Alignas|[A-Z][A-Z0-9_]*", match[1]):
            found = (match[1], split_parameters(head[match.end():end]))
        at = end + 1
    return found


def functions(text):
    """The function definitions of a C file; ValueError when its brackets do not match."""
    body = without_comments(text)
    body = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blank, body, flags=re.M)
    at = start = 0
    while at < len(body):
        if body[at] in ";}":
            start = at + 1
        elif body[at] == "{":
            head = body[start:at]
            if re.match(r"\s*extern\s+\"\s*\"\s*$", head):
                start = at + 1
            else:
                end = matching(body, at)
                if end < 0:
                    raise ValueError("brackets do not match")
                found = signature(head)
                if found:
                    first = start + len(head) - len(head.lstrip())
                    line = body.count("\n", 0, first) + 1
                    yield Function(found[0], line, body.count("\n", first, end) + 1, found[1])
                    start = end + 1
                at = end
        at += 1


def check_text(path, text):
    lines = text.split("\n")
    if text and lines.pop() != "":
        yield Finding(path, len(lines) + 1, "space", "no newline at the end of the file")
    for number, line in enumerate(lines, 1):
        if line != line.rstrip():
            yield Finding(path, number, "space", "space at the end of the line")
        if re.search(r"\b(TO[D]O|FIX[M]E|X[X]X)\b", line):
            yield Finding(path, number, "todo", "do it, or open an issue")
        if len(line.expandtabs(4)) > COLUMNS_MAX and not path.endswith(".md"):
            yield Finding(path, number, "columns", f"{len(line)} columns, at most {COLUMNS_MAX}")
    if is_code(path) or is_script(path):
        if len(lines) > FILE_LINES_MAX:
            yield Finding(path, 1, "lines", f"{len(lines)} lines, at most {FILE_LINES_MAX}")
        yield from check_head(path, lines)


def check_head(path, lines):
    number = 2 if lines and lines[0].startswith("#!") else 1
    first, second = (lines[number - 1:] + ["", ""])[:2]
    name = path.rsplit("/", 1)[-1].removesuffix(".in")
    opening = "/*" if path.endswith((*CODE, ".map")) else "#"
    if not re.match(rf"{re.escape(opening)} {re.escape(name)} - \S.*", first):
        yield Finding(path, number, "head", f"must begin: {opening} {name} - what it is.")
    if "SPDX-License-Identifier: Apache-2.0" not in second:
        yield Finding(path, number + 1, "head", "must have SPDX-License-Identifier: Apache-2.0")


def check_functions(path, text):
    kernels = path.startswith("src/backend/cpu/") and "quire_k_" in text
    limit = KERNEL_LINES_MAX if kernels else FUNCTION_LINES_MAX
    try:
        found = list(functions(text))
    except ValueError as error:
        yield Finding(path, 1, "function", str(error))
        return
    for function in found:
        if function.lines > limit:
            yield Finding(path, function.line, "function",
                          f"{function.name} has {function.lines} lines, at most {limit}")
        count = len(function.parameters)
        if count > PARAMETERS_MAX:
            yield Finding(path, function.line, "parameters",
                          f"{function.name} takes {count} parameters, at most {PARAMETERS_MAX}")


def includes(path, text, files):
    """Line, bracket and target of every include; a target of ours is given from the root of src,
    or from the root of the project where it lies outside src and include."""
    for number, line in enumerate(text.split("\n"), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match:
            local = f"{path.rsplit('/', 1)[0]}/{match[2]}"
            while re.search(r"[^/]+/\.\./", local):
                local = re.sub(r"[^/]+/\.\./", "", local, count=1)
            known = match[1] == '"' and local in files
            yield number, match[1], re.sub(r"^(src|include)/", "", local) if known else match[2]


def check_layers(path, text, files):
    for folder, quoted, angled in LAYERS:
        if not path.startswith(folder):
            continue
        for number, bracket, target in includes(path, text, files):
            if not re.match(quoted if bracket == '"' else angled, target):
                yield Finding(path, number, "layer", f"{folder} must not include {target}")


def check_calls(path, text):
    if not path.startswith(("src/", "tools/", "tests/", "examples/")):
        return
    for number, line in enumerate(without_comments(text).split("\n"), 1):
        for names, allowed, instead in CALLS:
            for match in re.finditer(rf"(?<![\w.>])({names})\s*\(", line):
                if not re.match(allowed, path):
                    yield Finding(path, number, "call", f"{match[1]} is banned here: {instead}")


def check_dead(files):
    included = set()
    for path, text in files.items():
        if is_code(path):
            for _, _, target in includes(path, text, files):
                included |= {f"{root}{target}" for root in ("", "src/", "include/", "tools/",
                                                            "tests/", "tests/support/")}
    for path in files:
        if path.endswith(".c") and not BUILT.fullmatch(path) and path not in included:
            yield Finding(path, 1, "dead", "no glob of CMake builds it, and nobody includes it")
        if path.endswith(CODE[1:]) and path not in included and path != "include/quire/quire.h":
            yield Finding(path, 1, "dead", "nobody includes it")


def check_comments(path, text):
    """Every QUIRE_API function: a comment directly above with its five parts."""
    if not path.startswith("include/quire/"):
        return
    for match in re.finditer(r"^QUIRE_API\b[^;(]*?(\w+)\(", text, flags=re.M):
        number = text.count("\n", 0, match.start()) + 1
        above = text[:match.start()]
        comment = above[above.rfind("/*"):]
        if not comment.endswith("*/\n") or "SPDX-License-Identifier" in comment:
            yield Finding(path, number, "comment", f"{match[1]} has no comment directly above")
            continue
        words = re.sub(r"\s*\n \*[ /]?", "\n", comment[2:])
        if not re.match(r"\s*[A-Z`][^\n]*(\n[^\n]+)*?\.(\s|$)", words):
            yield Finding(path, number, "comment", f"{match[1]} does not begin with a sentence")
        places = [words.find(part) for part in ("Statuses:", "Threads:", "Cost:")]
        if -1 in places or places != sorted(places):
            yield Finding(path, number, "comment", f"{match[1]} needs Statuses:, Threads:, Cost:")
        told = words[:places[0]]
        end = matching(text, match.end() - 1)
        names = split_parameters(without_comments(text[match.end():end]))
        missing = [name for name in names if not re.search(rf"\b{name}\b", told)]
        if missing or (not names and "No parameters" not in told):
            yield Finding(path, number, "comment",
                          f"{match[1]} does not describe {', '.join(missing) or 'its parameters'}")


def is_code(path):
    return path.endswith(CODE)


def is_script(path):
    return path.endswith(SCRIPT) or path.rsplit("/", 1)[-1] in SCRIPT_NAMES


def check(files):
    findings = list(check_dead(files))
    for path, text in files.items():
        findings += check_text(path, text)
        if is_code(path):
            findings += check_functions(path, text)
            findings += check_layers(path, text, files)
            findings += check_calls(path, text)
            findings += check_comments(path, text)
    return sorted(findings)


def load(root):
    """Every file that the rules are about, but the samples of this folder and recorded data."""
    root = Path(root)
    paths = [path for path in root.iterdir() if path.is_file()]
    for folder in FOLDERS:
        paths += (path for path in (root / folder).rglob("*") if path.is_file())
    files = {}
    for path in paths:
        name = path.relative_to(root).as_posix()
        if name.startswith(("tests/tidy/bad/", "tests/tidy/good/")):
            continue
        if is_code(name) or is_script(name) or name.endswith(".md"):
            files[name] = path.read_text(encoding="utf-8")
    return files


def main():
    findings = check(load(sys.argv[1]))
    for finding in findings:
        print(f"{finding.path}:{finding.line}: {finding.rule}: {finding.text}")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
