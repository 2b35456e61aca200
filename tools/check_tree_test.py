#!/usr/bin/env python3
"""check_tree.py must find what it says it finds: each case is a one-file tree with one broken rule, next to a
clean one."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).parent / "check_tree.py"
CLEAN_HEADER = """// a.h: a thing.
#ifndef CAIRN_STORE_BASE_A_H_
#define CAIRN_STORE_BASE_A_H_
#endif  // CAIRN_STORE_BASE_A_H_
"""


def check(path, text):
    with tempfile.TemporaryDirectory() as root:
        file = pathlib.Path(root) / path
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")
        result = subprocess.run([sys.executable, CHECK, "--no-format", root], capture_output=True, text=True, check=False)
        return result.returncode, result.stdout


class CheckTree(unittest.TestCase):
    def expect_clean(self, path, text):
        status, output = check(path, text)
        self.assertEqual(status, 0, output)

    def expect_finding(self, path, text, fragment):
        status, output = check(path, text)
        self.assertEqual(status, 1, output)
        self.assertIn(fragment, output)

    def test_clean_files_pass(self):
        self.expect_clean("store/base/a.h", CLEAN_HEADER)
        self.expect_clean("engine/state/a.cc", '#include "cache/client/layout.h"\n#include "kernels/cpu/formats.h"\n')
        self.expect_clean("tools/x/a.cc", '#include "store/index/catalog.h"\n')
        self.expect_clean("store/base/clock.cc", "auto t = std::chrono::steady_clock::now();\n")
        self.expect_clean("store/base/a.cc", '// no throw here\nconst char* s = "getenv(";\n')

    def test_arrows(self):
        for path, target in [("store/base/a.cc", "cache/client/layout.h"), ("store/base/a.cc", "engine/model/config.h"),
                             ("cache/core/a.cc", "engine/model/config.h"), ("cache/core/a.cc", "kernels/cpu/formats.h"),
                             ("kernels/cpu/a.cc", "store/tier/host_tier.h"), ("kernels/cpu/a.cc", "engine/model/config.h"),
                             ("engine/resume/a.cc", "cache/core/cache_core.h"), ("engine/resume/a.cc", "store/tier/host_tier.h"),
                             ("engine/resume/a.cc", "cairn/v1/cache.pb.h")]:
            self.expect_finding(path, f'#include "{target}"\n', "may not include")
        self.expect_finding("store/base/a.cc", '#include "digest.h"\n', "full path")

    def test_headers(self):
        self.expect_finding("store/base/b.h", CLEAN_HEADER, "CAIRN_STORE_BASE_B_H_")
        self.expect_finding("store/base/a.h", CLEAN_HEADER.split("\n", 1)[1], "contract")

    def test_bans(self):
        for code, fragment in [("getenv(name);", "getenv"), ("auto t = std::chrono::steady_clock::now();", "cairn::Clock"),
                               ("std::random_device d;", "cairn::Random"), ("throw 1;", "absl::Status"),
                               ("strcpy(a, b);", "std::string"), ("std::regex r;", "recurses")]:
            self.expect_finding("cache/core/a.cc", code + "\n", fragment)
        self.expect_finding("cache/core/a_test.cc", "absl::SleepFor(d);\n", "does not sleep")

    def test_size_and_leftovers(self):
        self.expect_finding("cache/core/a.cc", "int a;\n" * 451, "451 lines")
        self.expect_finding("cache/core/a.cc", "// TO" "DO: later\n", "unfinished")
        self.expect_finding("cache/core/a.cc", "int a;", "newline")


if __name__ == "__main__":
    unittest.main()
