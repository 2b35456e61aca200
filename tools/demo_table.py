#!/usr/bin/env python3
"""Prints the demo's table from the figures that the engine wrote; exits 1 if a resumed run's logits are not those of its cold run.

A row is NAME:TITLE:COLD: figures in DIRECTORY/NAME.json, logits in DIRECTORY/NAME.safetensors, compared with COLD's.
"""
import argparse
import json
import pathlib
import subprocess
import sys

COLUMNS = ["run", "prefix", "recomputed", "fetched", "copied", "tier", "first token", "speed-up", "logits"]


def size(count):
    return f"{count / 1e6:.1f} MB" if count else "0"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    parser.add_argument("--directory", type=pathlib.Path, required=True)
    parser.add_argument("rows", nargs="+")
    args = parser.parse_args()

    table, different = [], 0
    for row in args.rows:
        name, title, cold_name = row.split(":")
        figures = json.loads((args.directory / f"{name}.json").read_text())
        cold = json.loads((args.directory / f"{cold_name}.json").read_text())
        same = "-"
        if name != cold_name:
            files = [args.directory / f"{n}.safetensors" for n in (name, cold_name)]
            equal = subprocess.run([args.engine, "compare", *files], capture_output=True, check=False).returncode == 0
            same = "identical" if equal else "DIFFERENT"
            different += not equal
        table.append([
            title,
            f"{figures['prefix_tokens']:,}",
            f"{figures['recomputed_tokens']:,}",
            size(figures["fetched_bytes"]),
            size(figures["copied_bytes"]),
            figures["tier"],
            f"{figures['first_token_ms']:,.0f} ms",
            f"{cold['first_token_ms'] / figures['first_token_ms']:.0f} x" if name != cold_name else "1 x",
            same,
        ])
    widths = [max(len(line[i]) for line in [COLUMNS, *table]) for i in range(len(COLUMNS))]
    print()
    for line in [COLUMNS, *table]:
        print("  ".join(cell.ljust(w) if i in (0, 5, 8) else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))))
    print("\nprefix and recomputed in tokens; first token from the request on; speed-up over the same prompt without a cache")
    if different:
        sys.exit(f"{different} resumed runs differ from their cold runs")


if __name__ == "__main__":
    main()
