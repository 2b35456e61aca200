#!/usr/bin/env python3
"""Makes the golden files of engine/text's tests with the `tokenizers` library (pip install tokenizers), which the
build and the tests do not need. Run it only to renew them.

usage: make_golden.py CORPUS_FILE...     (any text; it trains the small tokenizer)

tokenizer.json       DeepSeek's structure to the letter, 2,000 merges or so trained on the corpora
golden.json          [{"text" or "bytes" (hex), "ids"}] by that tokenizer, add_special_tokens=False
variants.json        small tokenizers with other splits, flags and forms of merges, and what they give
unicode.json         runs [first, last, kinds] of code points as the library's patterns class them
"""
import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
PATTERNS = [
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]
MARKS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
MORE_MARKS = ["<｜User｜>", "<｜Assistant｜>", "<｜latest_reminder｜>", "<｜action｜>", "<｜query｜>", "<｜authority｜>",
              "<｜domain｜>", "<｜title｜>", "<｜read_url｜>"]
PLAIN_MARKS = ["<think>", "</think>", "｜DSML｜"]

TEXTS = [
    "", " ", "a", "Hello, world!", "  two  spaces\tand\ttabs  ", "\n\n\r\n \r\r\n", "line\n  indented\n\n\n    more\n",
    "1234567890 12 1,000,000.25 0x1F ½ ² ٣٤٥ 一二三 Ⅷ 12345", "don't we'll I'M naïve-naïve -abc --abc !x !é",
    "def f(x: int) -> str:\n    return f\"{x!r}\\n\"  # comment\n\n\nclass A:\n\tpass\n",
    "for (int i = 0; i < n; ++i) { a[i] = b[i] * 2.5e-3; } // ok\r\n#include <vector>\r\n",
    "今天天气很好，我们去公园吧。東京タワーは高いです。カタカナ・テスト ー゛゜ ｶﾅ 한국어 문장입니다.",
    "Привет, мир! Ёлка 123. Καλημέρα κόσμε. שלום עולם. مرحبا بالعالم ١٢٣. नमस्ते दुनिया १२३ สวัสดีชาวโลก",
    "Việt Nam tiếng Việt; Čeština; Türkçe İıŞş; Íslenska þð; Zażółć gęślą jaźń; ქართული; հայերեն; አማርኛ",
    "👩‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽 ❤️ 🏳️‍🌈 😀😀😀 ☃ ™ © ∑∫√ ≤≥ → ♞",
    "e\u0301 a\u0300\u0323 \u0301alone \u200d\u200b\ufeff\u00ad \u180e \u2028 \u2029 \u0085 \u00a0\u3000 x\u0007\u0000y",
    "𝒜𝓑 𠀀𠀁 \U0010ffff \ue000 \ufffd ︎ ﷽ ǅ ʰ ٪ ⁰¹ ₂",
    "<｜User｜>你好<｜Assistant｜><think>推理</think>答案<｜end▁of▁sentence｜>",
    "<｜begin▁of▁sentence｜><｜｜User｜> <|User|> <think <think>> ｜DSML｜ <｜DSML｜invoke name=\"x\"> </think></think>",
    "a" * 300, "ab" * 200 + " " * 70 + "\n" + "9" * 100, "!" * 65 + "\n\n" + "?!" * 40, "字" * 120 + "かな" * 50,
    "http://example.com/a?b=c&d=%20 user@example.org C:\\path\\file.txt /usr/lib/x86_64",
    "Mixed中文and English混排123测试，ok？“引号”—dash…", "\t\t\tx\n \n x \u3000\u3000y  \n",
]
BROKEN = [b"\xff", b"ok \xe2\x82 cut", b"\xf0\x9f\x98", b"\xed\xa0\x80 surrogate", b"\xc0\xaf overlong", b"a\x80\x80b",
          b"\xf4\x90\x80\x80 \xf8\x88\x80\x80\x80", b"\xe4\xbd\xa0\xe5\xa5 \xe4\xbd\xa0", b"<think>\xe2</think>\xef\xbd\x9cDSML\xef\xbd"]

POOLS = ["abcdefghijklmnopqrstuvwxyzABCDEF", "0123456789", "     \t\n\r", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "éüñçß",
         "中文字你好的是一龥龦", "ぁあんァカン・ー゠ヿ", "한국어글", "абвгд", "αβγ", "אבג", "ابت", "कखग्ि", "กขค่", "\u0300\u0301\u20dd",
         "\u200b\u200d\ufeff\u00ad\u0000\u0007\u0085\u00a0\u2028\u3000\u180e", "½²٣४Ⅷ〇", "😀👍🏽🇩", "𠀀𝒜𞤀", "。，！？「」“”—…¥$€™"]


def random_texts(count):
    rng = random.Random(4)
    for _ in range(count):
        weights = [rng.random() ** 3 for _ in POOLS]
        yield "".join(rng.choice(rng.choices(POOLS, weights)[0]) for _ in range(rng.randint(1, 60)))


def deepseek_pre_tokenizer():
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(p), "isolated", invert=False) for p in PATTERNS]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(corpora, merges):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = deepseek_pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=256 + len(MARKS) + merges, show_progress=False, special_tokens=MARKS,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpora, trainer)
    tokenizer.add_special_tokens([AddedToken(m, normalized=False, special=True) for m in MORE_MARKS])
    tokenizer.add_tokens([AddedToken(m, normalized=False, special=False) for m in PLAIN_MARKS])
    return tokenizer


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def golden(tokenizer):
    for text in TEXTS + list(random_texts(400)):
        ids = encode(tokenizer, text)
        yield {"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)}
    for raw in BROKEN:
        ids = encode(tokenizer, raw.decode("utf-8", "replace"))
        yield {"bytes": raw.hex(), "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)}


def variants():
    """Tokenizers over bytes and a few merges, in all that a file may say, as JSON."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("Ġ", "a"), ("ab", "c"), ("Ġa", "b"), ("c", "c"), ("a", "a"), ("aa", "a"), ("-", "-")]
    vocab = {t: i for i, t in enumerate(alphabet + [a + b for a, b in merges] + ["abcc"])}
    texts = ["abc  abc-abc--c a", " ab<t> <t>ab  <T>x<w>y <w> z<w>", "aaaaaab--1a2", "\n <t> \n<tt>", "é<w>é <n>\u3000<n>b", ""]

    def one(name, pre, tokens=(), pairs=True, ignore_merges=False):
        model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                 "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": ignore_merges,
                 "vocab": vocab, "merges": [list(m) if pairs else " ".join(m) for m in merges]}
        file = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(tokens), "normalizer": None,
                "pre_tokenizer": pre, "post_processor": None,
                "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                "model": model}
        tokenizer = Tokenizer.from_str(json.dumps(file))
        return {"name": name, "pre_tokenizer": pre, "added_tokens": list(tokens), "pairs": pairs,
                "ignore_merges": ignore_merges, "ids": [encode(tokenizer, t) for t in texts]}

    def split(pattern, behavior, invert=False, kind="Regex"):
        return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}

    def token(index, content, **flags):
        base = {"id": vocab.get(content, len(vocab) + index), "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": False}
        return {**base, **flags}

    def byte_level(**flags):
        return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False, **flags}

    cases = []
    for behavior in ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            for pattern, kind in [("-", "String"), (r"[-\s]", "Regex"), (r"a*", "Regex")]:
                pre = {"type": "Sequence", "pretokenizers": [split(pattern, behavior, invert, kind), byte_level()]}
                cases.append(one(f"{behavior} {invert} {pattern}", pre))
    for prefix in [False, True]:
        for regex in [False, True]:
            cases.append(one(f"ByteLevel {prefix} {regex}", byte_level(add_prefix_space=prefix, use_regex=regex)))
    pre = {"type": "Sequence", "pretokenizers": [split("-", "Isolated"), byte_level(add_prefix_space=True)]}
    cases.append(one("prefix of each piece", pre))
    tokens = [token(0, "<t>"), token(1, "<tt>", special=True), token(2, "<T>", lstrip=True, rstrip=True),
              token(3, "<w>", single_word=True), token(4, "<n>", normalized=True, lstrip=True)]
    cases.append(one("added tokens", byte_level(), tokens))
    cases.append(one("added tokens, stripped", byte_level(), [{**t, "lstrip": True, "rstrip": True} for t in tokens]))
    cases.append(one("added tokens of words", byte_level(), [token(0, "ab", single_word=True), token(1, "a"), token(2, "abc", rstrip=True)]))
    cases.append(one("merges as strings", byte_level(), pairs=False))
    cases.append(one("ignore_merges", byte_level(use_regex=True), ignore_merges=True))
    return {"vocab": vocab, "merges": merges, "texts": texts, "cases": cases}


def unicode_runs():
    """Kinds: 1 letter or mark, 2 punctuation or symbol, 4 number, 8 space."""
    kinds = {1: r"[\p{L}\p{M}]", 2: r"[\p{P}\p{S}]", 4: r"\p{N}", 8: r"\s"}
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    kind_of = dict.fromkeys(points, 0)
    for bit, pattern in kinds.items():
        removing = pre_tokenizers.Split(Regex(pattern), "removed", False)
        for at in range(0, len(points), 4096):
            text = "".join(map(chr, points[at:at + 4096]))
            left = set("".join(piece for piece, _ in removing.pre_tokenize_str(text)))
            for char in text:
                if char not in left:
                    kind_of[ord(char)] |= bit
    runs = []
    for point in points:
        if runs and runs[-1][1] == point - 1 and runs[-1][2] == kind_of[point]:
            runs[-1][1] = point
        else:
            runs.append([point, point, kind_of[point]])
    return [run for run in runs if run[2]]


def write(name, value):
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    lines = text.replace("},{", "},\n{")
    assert json.loads(lines) == json.loads(text)
    (HERE / name).write_text(lines + "\n", encoding="utf-8")


def main(paths):
    corpora = [pathlib.Path(p).read_text(encoding="utf-8") for p in paths]
    tokenizer = train(corpora + TEXTS[:-8] * 3, 2000)
    file = json.loads(tokenizer.to_str())
    write("tokenizer.json", file)
    write("golden.json", list(golden(Tokenizer.from_file(str(HERE / "tokenizer.json")))))
    write("variants.json", variants())
    write("unicode.json", unicode_runs())


if __name__ == "__main__":
    main(sys.argv[1:])
