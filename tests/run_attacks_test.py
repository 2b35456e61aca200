#!/usr/bin/env python3
"""Tests run_attacks.py: with attacks that pass, fail, say nothing, hang."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
GOOD = '{"attack": "a", "seed": 7, "trials": 3, "failed": 0, "counts": {"kills": 1234}, "result": "pass"}'
BAD = GOOD.replace('"failed": 0', '"failed": 1').replace("pass", "fail")


class RunAttacksTest(unittest.TestCase):
    def run_list(self, lines, column="commit", *flags):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            (path / "good").write_text(GOOD, encoding="utf-8")
            (path / "bad").write_text(BAD, encoding="utf-8")
            (path / "say_seconds").write_text(f"sed s/7/$1/ {path}/good", encoding="utf-8")
            (path / "list").write_text("# a comment\n" + "\n".join(lines) + "\n", encoding="utf-8")
            done = subprocess.run(
                [sys.executable, HERE / "run_attacks.py", column, "--build", folder, "--list", path / "list", "--report", path / "report", *flags],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
            report = (path / "report").read_text(encoding="utf-8") if (path / "report").exists() else ""
            return done, report

    def test_a_pass_is_a_row(self):
        done, report = self.run_list(["one | 1 | t1 t2 | cat {build}/good | false"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| one | 7 |", done.stdout)
        self.assertIn("1,234 kills", done.stdout)
        self.assertEqual(report, done.stdout)

    def test_each_way_to_fail_is_a_failure_and_the_others_go_on(self):
        for command, word in (("cat {build}/bad", "**FAIL**"), ("echo nonsense", "no counts"), ("false", "no counts"),
                              ("/nowhere/at/all", "not started"), ("sh -c 'cat {build}/good; exit 3'", "**FAIL**")):
            done, _ = self.run_list([f"one | 1 | t | {command} | true", "two | 1 | t | cat {build}/good | true"])
            self.assertEqual(done.returncode, 1, command)
            self.assertIn(word, done.stdout)
            self.assertIn("| two | 7 |", done.stdout)

    def test_the_nightly_shares_its_time(self):
        lines = [f"{name} | {share} | t | false | sh {{build}}/say_seconds {{seconds}}" for name, share in (("one", 3), ("two", 1))]
        done, _ = self.run_list(lines, "nightly", "--minutes", "2")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        seeds = [int(line.split("|")[2]) for line in done.stdout.splitlines()[2:]]
        self.assertIn(seeds[0], range(85, 91))  # three quarters
        self.assertIn(seeds[1], range(110, 121))  # what the first one left

    def test_targets_and_unknown_names(self):
        done, _ = self.run_list(["one | 1 | t2 t1 | true | true"], "commit", "--targets")
        self.assertEqual(done.stdout, "t1 t2\n")
        done, _ = self.run_list(["one | 1 | t | true | true"], "commit", "--only", "three")
        self.assertNotEqual(done.returncode, 0)


if __name__ == "__main__":
    unittest.main()
