#!/usr/bin/env python3
"""Prefill and decode of cairn-engine beside Hugging Face transformers' deepseek_v4 on PyTorch's CPU build: the same
unquantised weights, the same tokens, in turn, round after round. Optional: nothing else in the tree needs Python packages.

Wants torch and transformers (5.8.1 or later) in the Python that runs it, and a model both can read:
    cairn-model make --preset mini --format bf16 --seed 1 --out DIR
First the logits of some tokens are compared, so that what is timed is the same model. Both compute in F32: on processors
without BF16 arithmetic that is PyTorch's fastest; on others --dtype bfloat16 times its BF16 as well (ours stays F32, and so
do the logits that are compared). Prints tokens a second of each round and the median ratios.

usage: compare_transformers.py --engine PATH --model DIR [--tokens 2048] [--steps 32] [--rounds 5] [--threads 2]
                               [--dtype float32|bfloat16]
"""

import argparse
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

CHUNK = 512
CHECKED_TOKENS = 300  # more than a window, two blocks, and an index that has to choose


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    return parser.parse_args()


def check_same(args, model, folder):
    tokens = torch.randint(0, model.config.vocab_size, (CHECKED_TOKENS,), dtype=torch.int32)
    save_file({"tokens": tokens}, folder / "tokens.safetensors")
    subprocess.run([args.engine, "logits", "--model", args.model, "--tokens", folder / "tokens.safetensors", "--prefill",
                    str(CHECKED_TOKENS), "--out", folder / "logits.safetensors", "--numerics", "plain"], check=True)
    ours = load_file(folder / "logits.safetensors")["prefill.logits"]
    theirs = model(tokens.long()[None]).logits[0].float()
    print(f"logits of {CHECKED_TOKENS} tokens: largest difference {(ours - theirs).abs().max():.2e}, "
          f"largest logit {theirs.abs().max():.2e}, same best token for {(ours.argmax(1) == theirs.argmax(1)).float().mean():.1%}")


def measure_ours(args, folder):
    text = "".join(random.choice("abcdefgh ") for _ in range(args.tokens))
    (folder / "prompt.txt").write_text(text)
    out = subprocess.run([args.engine, "generate", "--model", args.model, "--prompt-file", folder / "prompt.txt",
                          "--new-tokens", str(args.steps + 1), "--chunk", str(CHUNK), "--threads", str(args.threads),
                          "--json", "-", "--quiet"], check=True, capture_output=True).stdout
    figures = json.loads(out)
    return (figures["prompt_tokens"] / figures["prefill_ms"] * 1e3,
            (figures["output_tokens"] - 1) / figures["decode_ms"] * 1e3)


def measure_theirs(args, model):
    ids = torch.randint(0, model.config.vocab_size, (1, args.tokens))
    start = time.perf_counter()
    cache = None
    for at in range(0, args.tokens, CHUNK):
        cache = model(ids[:, at:at + CHUNK], past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
    prefilled = time.perf_counter()
    for _ in range(args.steps):
        cache = model(ids[:, :1], past_key_values=cache, use_cache=True).past_key_values
    return args.tokens / (prefilled - start), args.steps / (time.perf_counter() - prefilled)


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    ratios = {"prefill": [], "decode": []}
    with torch.inference_mode(), tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_same(args, model, folder)
        model = model.to(getattr(torch, args.dtype))
        measure_theirs(args, model)  # not counted: the first pass takes its memory
        for _ in range(args.rounds):
            for what, ours, theirs in zip(ratios, measure_ours(args, folder), measure_theirs(args, model)):
                ratios[what].append(ours / theirs)
                print(f"{what}: ours {ours:.1f}, transformers {theirs:.1f} tokens/s: {ours / theirs:.1f} times", flush=True)
    for what, values in ratios.items():
        print(f"{what}: {statistics.median(values):.1f} times ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main()
