#!/usr/bin/env python3
"""Runs the attacks of a list (tests/attacks.txt) one after another and prints one Markdown table: attack, seed, commit, counts,
result. Exit status 1 if one failed, gave no counts or had to be stopped.

usage: run_attacks.py commit|nightly --build DIR [--list FILE] [--minutes M] [--only NAME] [--report FILE]
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMIT_SECONDS = 600  # of one attack; more is a hang
GRACE_SECONDS = 120  # beyond its share, to end the trial it is in


class Attack:
    def __init__(self, line):
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 5:
            raise ValueError(f"not 'name | share | targets | commit | nightly': {line}")
        self.name, share, targets, commit, nightly = fields
        self.share = float(share)
        self.targets = targets.split()
        self.command = {"commit": commit, "nightly": nightly}


def read_list(path):
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return [Attack(line) for line in lines if line.strip() and not line.startswith("#")]


def run(attack, column, build, seconds):
    """What it reported, and its result in one word."""
    command = attack.command[column].format(build=build, seconds=int(seconds))
    limit = COMMIT_SECONDS if column == "commit" else seconds + GRACE_SECONDS
    print(f"== {attack.name}: {command}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(shlex.split(command), cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {}, f"stopped after {int(limit)} s"
    except OSError as error:
        return {}, f"not started: {error.strerror}"
    try:
        said = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
        complete = {"seed", "trials", "failed", "counts", "result"} <= said.keys()
    except (ValueError, AttributeError):
        said, complete = {}, False
    if not complete:
        return {}, f"no counts, status {done.returncode}"
    passed = said["result"] == "pass" and said["failed"] == 0 and done.returncode == 0
    return said, "pass" if passed else "**FAIL**"


def commit_name():
    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain") else "")


def row(attack, said, result, seconds, commit):
    counts = ", ".join(f"{value:,} {what}" for what, value in said.get("counts", {}).items())
    return f"| {attack.name} | {said.get('seed', '')} | {commit} | {said.get('trials', 0):,} | {counts} | {seconds:.0f} | {result} |"


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("column", choices=("commit", "nightly"))
    parser.add_argument("--build", required=True)
    parser.add_argument("--list", default=ROOT / "tests" / "attacks.txt")
    parser.add_argument("--minutes", type=float, default=240, help="of the whole nightly")
    parser.add_argument("--only", help="this attack alone")
    parser.add_argument("--report", help="the table goes into this file too")
    parser.add_argument("--targets", action="store_true", help="print what has to be built, and end")
    flags = parser.parse_args(arguments)
    attacks = [a for a in read_list(flags.list) if flags.only in (None, a.name)]
    if not attacks:
        parser.error(f"no attack {flags.only}")
    if flags.targets:
        print(*sorted({target for attack in attacks for target in attack.targets}))
        return 0

    table = ["| attack | seed | commit | trials | counts | s | result |", "|---|---|---|---|---|---|---|"]
    end = time.monotonic() + 60 * flags.minutes
    commit, failed = commit_name(), False
    for at, attack in enumerate(attacks):
        # What an attack leaves of its time goes to those after it.
        share = attack.share / sum(a.share for a in attacks[at:])
        began = time.monotonic()
        said, result = run(attack, flags.column, flags.build, max(1, (end - began) * share))
        failed |= result != "pass"
        table.append(row(attack, said, result, time.monotonic() - began, commit))
        if flags.report:
            pathlib.Path(flags.report).write_text("\n".join(table) + "\n", encoding="utf-8")
    print("\n".join(table))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
