#!/usr/bin/env python3
"""Checks the rules of the tree that a compiler does not: which house may include which, include guards, contract
comments, file length, banned calls, clang-format. That each header compiles alone is checked by the build
(tools/CMakeLists.txt, target header_check). Prints one line per finding, with what to do; exit status 1 if any.

usage: check_tree.py [--no-format] [ROOT]
"""

import pathlib
import re
import subprocess
import sys

# house -> what its sources may include of ours. tools and tests may include everything.
ARROWS = {
    "proto": (),
    "store": ("store/",),
    "cache": ("cache/", "store/", "proto/", "cairn/v1/"),
    "kernels": ("kernels/", "store/base/"),
    "engine": ("engine/", "kernels/", "cache/client/", "store/base/", "store/device/"),
}
# What single files may include beyond that.
ARROWS_OF_FILES = {"engine/cairn_engine/embedded_cache.cc": ("cache/core/", "store/tier/")}
HOUSES = (*ARROWS, "tools", "tests")
OURS = tuple(f"{house}/" for house in HOUSES) + ("cairn/v1/",)

CODE_SUFFIXES = {".h", ".cc", ".cu", ".cuh"}
TEXT_SUFFIXES = CODE_SUFFIXES | {".proto", ".py", ".sh", ".cmake", ".toml", ".yaml"}
LINES_MAX = 450

# (what, pattern, where it is allowed, what to do instead)
BANNED = (
    ("getenv", r"\b(?:secure_)?getenv\s*\(", ("cache/client/default_paths.cc", "cache/daemon/notify.cc"), "take a flag or a field of the options"),
    ("clock", r"\b(?:steady|system|high_resolution)_clock::now\b|\babsl::Now\s*\(|\bclock_gettime\s*\(",
     ("store/base/clock.cc", "tests/sim/one_thread.cc"), "use cairn::Clock (store/base/clock.h)"),
    ("randomness", r"\brandom_device\b|\bgetrandom\s*\(|\bRAND_bytes\s*\(|\bs?rand\s*\(",
     ("store/base/random.cc",), "use cairn::Random (store/base/random.h)"),
    ("regex", r"\bstd::regex\b", (), "parse by hand: std::regex recurses on its input"),
    ("throw", r"\bthrow\b", (), "return an absl::Status"),
    ("strcpy", r"\b(?:strcpy|strcat|sprintf|gets)\s*\(", (), "use std::string and absl::StrCat"),
)
SLEEP = re.compile(r"\b(?:u?sleep|nanosleep|sleep_for|sleep_until|SleepFor)\s*\(")
# Written apart so that this file does not match itself.
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def code_of(line):
    """The line without string literals and a trailing // comment: good enough for bans and arrows."""
    return re.sub(r"//.*", "", re.sub(r'"(?:[^"\\]|\\.)*"', '""', line))


def check_includes(path, house, lines):
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match.group(1)
        if not target.startswith(OURS):
            if "/" not in target or target.startswith("."):
                yield number, f'include "{target}" by its full path from the root'
            continue
        arrows = ARROWS.get(house, OURS) + ARROWS_OF_FILES.get(path, ())
        if not target.startswith(arrows):
            allowed = ", ".join(arrows) or "nothing of ours"
            yield number, f'{house}/ may not include "{target}" (it may include {allowed})'


def check_header(path, lines):
    guard = "CAIRN_" + re.sub(r"[^A-Z0-9]", "_", path.upper()) + "_"
    text = "\n".join(lines)
    if f"#ifndef {guard}\n#define {guard}\n" not in text or f"#endif  // {guard}" not in text:
        yield 1, f"the include guard must be {guard}"
    name = path.rsplit("/", 1)[-1]
    if not lines or not re.match(rf"// {re.escape(name)}:? ", lines[0]):
        yield 1, f"a header opens with its contract: '// {name}: what it is', threads, ownership, units, errors"


def check_bans(path, lines):
    is_test = path.endswith("_test.cc") or path.startswith("tests/")
    for number, line in enumerate(lines, 1):
        code = code_of(line)
        for what, pattern, allowed, instead in BANNED:
            if path not in allowed and re.search(pattern, code):
                yield number, f"{what} is banned here: {instead}"
        if is_test and SLEEP.search(code):
            yield number, "a test does not sleep: turn a FakeClock, or wait on a notification"


def check_file(root, file):
    path = file.relative_to(root).as_posix()
    lines = file.read_text(encoding="utf-8").split("\n")
    if lines[-1] != "":
        yield path, len(lines), "the last line must end with a newline"
    if len(lines) - 1 > LINES_MAX:
        yield path, len(lines), f"{len(lines) - 1} lines; split it by idea (at most {LINES_MAX})"
    for number, line in enumerate(lines, 1):
        if UNFINISHED.search(line):
            yield path, number, "unfinished work does not go into the tree: do it or file an issue"
    if file.suffix not in CODE_SUFFIXES:
        return
    findings = [*check_includes(path, path.split("/", 1)[0], lines), *check_bans(path, lines)]
    if file.suffix == ".h":
        findings += check_header(path, lines)
    for number, message in findings:
        yield path, number, message


def main(arguments):
    formatted = "--no-format" not in arguments
    positional = [a for a in arguments if not a.startswith("--")]
    root = pathlib.Path(positional[0] if positional else pathlib.Path(__file__).parent.parent).resolve()
    files = [f for house in HOUSES + ("cmake",) for f in sorted((root / house).rglob("*"))
             if f.is_file() and f.suffix in TEXT_SUFFIXES]
    if not files:
        print(f"check_tree: no sources under {root}", file=sys.stderr)
        return 2
    findings = [finding for file in files for finding in check_file(root, file)]
    for path, number, message in findings:
        print(f"{path}:{number}: {message}")
    status = 1 if findings else 0
    if formatted and subprocess.run([root / "tools" / "check_format.sh"], check=False).returncode != 0:
        print("check_tree: sources are not formatted; run tools/check_format.sh --fix")
        status = 1
    print(f"check_tree: {len(files)} files, {len(findings)} findings")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
