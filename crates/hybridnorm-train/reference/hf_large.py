#!/usr/bin/env python3
"""Makes a large Llama of random numbers in two shards, and measures the peak resident memory of a command.

    python3 hf_large.py make f32|bf16 DIR        # 2 GB
    python3 hf_large.py peak COMMAND ..          # file pages included
"""
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

WIDTH, FEED_FORWARD, VOCAB = 2048, 5632, 32_000


def make(kind, out):
    import torch
    from safetensors.torch import save_file
    dtype, layers = {"f32": (torch.float32, 8), "bf16": (torch.bfloat16, 18)}[kind]
    out.mkdir(parents=True)
    config = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=WIDTH, intermediate_size=FEED_FORWARD,
                  num_hidden_layers=layers, num_attention_heads=16, num_key_value_heads=4, vocab_size=VOCAB, max_position_embeddings=2048,
                  rms_norm_eps=1e-5, rope_theta=1e4, tie_word_embeddings=False, torch_dtype=str(dtype).split(".")[-1])
    (out / "config.json").write_text(json.dumps(config, indent=1))
    shapes = {"model.embed_tokens.weight": (VOCAB, WIDTH), "lm_head.weight": (VOCAB, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in range(layers):
        for name, shape in [("self_attn.q_proj", (WIDTH, WIDTH)), ("self_attn.k_proj", (WIDTH // 4, WIDTH)),
                            ("self_attn.v_proj", (WIDTH // 4, WIDTH)), ("self_attn.o_proj", (WIDTH, WIDTH)),
                            ("mlp.gate_proj", (FEED_FORWARD, WIDTH)), ("mlp.up_proj", (FEED_FORWARD, WIDTH)),
                            ("mlp.down_proj", (WIDTH, FEED_FORWARD)), ("input_layernorm", (WIDTH,)),
                            ("post_attention_layernorm", (WIDTH,))]:
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    names, places = list(shapes), {}
    half = len(names) // 2
    for number, part in enumerate((names[:half], names[half:]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: (torch.rand(shapes[name]) * 0.02).to(dtype) for name in part}, out / file)
        places.update(dict.fromkeys(part, file))
    (out / "model.safetensors.index.json").write_text(json.dumps(dict(metadata={}, weight_map=places)))


def peak(command):
    start = time.time()
    code = subprocess.run(command).returncode
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"exit code {code}, peak {used.ru_maxrss * 1024 / 1e9:.3f} GB, {time.time() - start:.1f} s")


if sys.argv[1] == "make":
    make(sys.argv[2], Path(sys.argv[3]))
else:
    peak(sys.argv[2:])
