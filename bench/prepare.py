"""Tokens per second of `hybridnorm-train prepare` beside Hugging Face `tokenizers` in Python, alternately.

    pip install tokenizers
    python bench/prepare.py PROGRAM tokenizer.json FILE.jsonl

Both read the same file with the same tokenizer, on one thread and on all. Python's time is that of `encode_batch_fast` over
texts that are in memory already, 1,000 at a time; the program's is all of it: reading, parsing, hashing, tokenizing, writing
and bringing shards to disk.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 3
BATCH = 1000


def python(tokenizer, texts, threads):
    """In a process of its own: the number of threads is read once, and the cache of words starts empty."""
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true")
    command = [sys.executable, __file__, "--python", tokenizer, texts]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def encode(tokenizer, path):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer)
    with open(path, encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    tokens, start = 0, time.perf_counter()
    for first in range(0, len(texts), BATCH):
        batch = tokenizer.encode_batch_fast(texts[first : first + BATCH], add_special_tokens=False)
        tokens += sum(len(encoding) for encoding in batch)
    print((tokens + len(texts)) / (time.perf_counter() - start))


def prepare(program, tokenizer, path, threads):
    out = tempfile.mkdtemp()
    try:
        command = [program, "prepare", path, "--tokenizer", tokenizer, "--out", out, "--workers", str(threads)]
        said = subprocess.run(command + ["--validation", "0"], check=True, capture_output=True, text=True).stdout
        return float(re.search(r"([\d,]+) tokens/s", said)[1].replace(",", ""))
    finally:
        shutil.rmtree(out)


def main():
    program, tokenizer, path = sys.argv[1:]
    for threads in sorted({1, os.cpu_count()}):
        rates = {"prepare": [], "tokenizers in Python": []}
        for _ in range(ROUNDS):
            rates["prepare"].append(prepare(program, tokenizer, path, threads))
            rates["tokenizers in Python"].append(python(tokenizer, path, threads))
        for name, values in rates.items():
            spread = f"{min(values):,.0f} to {max(values):,.0f}"
            print(f"{threads} threads  {name:<22}{statistics.median(values):>12,.0f} tokens/s  ({spread})", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--python":
        encode(*sys.argv[2:])
    else:
        main()
