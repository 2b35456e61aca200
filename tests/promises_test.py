#!/usr/bin/env python3
"""Every test that store/PROMISES.md names exists, and every promise has one."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOUSES = ("store", "cache", "tests")
TEST = re.compile(r"^(?:TYPED_)?TEST(?:_[FP])?\(\s*(\w+),\s*(\w+)\)", re.MULTILINE)


class PromisesTest(unittest.TestCase):
    def setUp(self):
        text = (ROOT / "store" / "PROMISES.md").read_text(encoding="utf-8")
        self.sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]

    def test_named_tests_exist(self):
        there = set()
        for house in HOUSES:
            for file in (ROOT / house).rglob("*_test.cc"):
                there |= {f"{suite}.{name}" for suite, name in TEST.findall(file.read_text(encoding="utf-8"))}
        self.assertGreater(len(there), 100)
        for section in self.sections:
            for name in re.findall(r"`(\w+\.[A-Z]\w+)`", section):
                self.assertIn(name, there)
            for path in re.findall(r"`(tests/[\w/.]+)`", section):
                self.assertTrue((ROOT / path).exists() or (ROOT / f"{path}.cc").exists(), path)

    def test_every_promise_has_tests(self):
        self.assertGreaterEqual(len(self.sections), 7)
        for section in self.sections:
            for row in re.findall(r"^\| (?!broken by)(?!-)(.*) \|$", section, flags=re.MULTILINE):
                self.assertIn("`", row)
            self.assertRegex(section, r"\| broken by \| tests \|", section.split("\n", maxsplit=1)[0])


if __name__ == "__main__":
    unittest.main()
