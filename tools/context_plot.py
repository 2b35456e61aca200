#!/usr/bin/env python3
"""Draws how decode time grows with the context: cairn-bench --json engine-context engine-context-memory | context_plot.py > X.svg

Both axes are logarithmic. Points are medians, bars the range of the rounds; the line is a constant and a cost for each
token of the context, through the points at the second shortest and the longest context.
"""

import json
import math
import re
import sys

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 416, 70, 74, 20, 50
INK, MUTED, GRID, MARK = "#1f2328", "#57606a", "#d0d7de", "#0b62c4"


def axis(low, high, begin, end):
    scale = (end - begin) / (math.log10(high) - math.log10(low))
    return lambda v: begin + (math.log10(v) - math.log10(low)) * scale


def text(x, y, words, anchor="middle", size=12, colour=INK):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{words}</text>'


def tokens_label(tokens):
    return f"{tokens >> 20}M" if tokens >= 1 << 20 else f"{tokens >> 10}k"


def main():
    benches = {bench["name"]: bench for bench in json.load(sys.stdin)["benches"]}
    points = sorted((int(re.search(r"\d+", c["name"]).group()), c["figure"]) for c in benches["engine-context"]["contenders"])
    longest, last = points[-1][0], points[-1][1]["median"]
    second, early = points[1][0], points[1][1]["median"]
    per_token = (last - early) / (longest - second)
    constant = early - per_token * second
    low = 10 ** math.floor(math.log10(min(p["low"] for _, p in points)))
    high = 10 ** math.ceil(math.log10(max(p["high"] for _, p in points)))
    x = axis(points[0][0] / 1.3, longest * 1.3, LEFT, WIDTH - RIGHT)
    y = axis(low, high, HEIGHT - BOTTOM, TOP)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           text(LEFT, 22, "Time to decode one token after a context (nano)", "start", 15)]
    notes = [f"line: {constant:.0f} us + {per_token * 1e3:.1f} ns for each token of the context"]
    if "engine-context-memory" in benches:
        ours, layout = (c["figure"]["median"] for c in benches["engine-context-memory"]["contenders"])
        notes.append(f"memory at 1M: {ours:.1f} B a token, of which the layout's rows {layout:.1f} B")
    out += [text(LEFT, 40 + 16 * i, note, "start", 12, MUTED) for i, note in enumerate(notes)]
    decade = low
    while decade <= high:
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(decade):.1f}" y2="{y(decade):.1f}" stroke="{GRID}"/>')
        label = f"{decade / 1e3:g} ms" if decade >= 1e3 else f"{decade:g} us"
        out.append(text(LEFT - 8, y(decade) + 4, label, "end", 12, MUTED))
        decade *= 10
    curve = [points[0][0] * (longest / points[0][0]) ** (i / 60) for i in range(61)]
    path = " ".join(f"{x(t):.1f},{y(max(constant + per_token * t, low)):.1f}" for t in curve)
    out.append(f'<polyline points="{path}" fill="none" stroke="{MARK}" stroke-width="1.5" stroke-dasharray="5 4"/>')
    for tokens, figure in points:
        at = x(tokens)
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y(figure["low"]):.1f}" y2="{y(figure["high"]):.1f}" '
                   f'stroke="{MARK}" stroke-width="2"/>')
        out.append(f'<circle cx="{at:.1f}" cy="{y(figure["median"]):.1f}" r="4" fill="{MARK}"/>')
        out.append(text(at, HEIGHT - BOTTOM + 20, tokens_label(tokens), colour=MUTED))
    out.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "tokens of context", colour=MUTED))
    print("\n".join(out + ["</svg>"]))


if __name__ == "__main__":
    main()
