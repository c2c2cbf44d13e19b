#!/usr/bin/env python3
"""PyTorch yardstick: greedy generation with a key/value cache by the decoder of torch_train_step.py, which lies beside this file.

The cache is allocated once and written in place; attention is scaled_dot_product_attention over its filled part; everything runs in
inference mode, eager. It prints one JSON object on the last line.

  python3 torch_generate.py --layers 4 --d-model 256 --heads 8 --kv-heads 8 --ffn 1024 --vocab 4096 --seq 16 --tokens 128 --batch 1
"""
import argparse, json, statistics, time
import torch
import torch.nn.functional as F
from torch_train_step import Decoder, rope_tables, rotate


def attend(attn, x, cos, sin, cache, start):
    b, t, d = x.shape
    kv = attn.kv_heads * attn.head_dim
    q, k, v = (part.view(b, t, -1, attn.head_dim).transpose(1, 2) for part in attn.qkv(x).split((d, kv, kv), -1))
    if attn.v_norm is not None:
        q, k, v = attn.q_norm(q), attn.k_norm(k), attn.v_norm(v)
    q, k = rotate(q, cos[start : start + t], sin[start : start + t]), rotate(k, cos[start : start + t], sin[start : start + t])
    keys, values = cache
    keys[:, :, start : start + t], values[:, :, start : start + t] = k, v
    keys, values = keys[:, :, : start + t], values[:, :, : start + t]
    y = F.scaled_dot_product_attention(q, keys, values, is_causal=t > 1, enable_gqa=attn.heads != attn.kv_heads)
    return attn.out(y.transpose(1, 2).reshape(b, t, d))


def logits(model, tokens, cos, sin, caches, start):
    """Of the last position."""
    x = model.embed(tokens)
    for block, cache in zip(model.blocks, caches):
        y = x + attend(block.attn, block.attn_norm(x) if block.attn_norm is not None else x, cos, sin, cache, start)
        n = block.ffn_norm(y)
        x = (n if block.normed_residual else y) + block.ffn(n)
    return model.head(model.norm(x[:, -1]))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--device", default="cpu")
    p.add_argument("--placement", default="hybrid-star", choices=["pre", "hybrid", "hybrid-star"])
    for name, value in dict(layers=4, d_model=256, heads=8, kv_heads=8, ffn=1024, vocab=4096, seq=16, tokens=128, batch=1,
                            experts=0, top_k=8, warmup=8).items():
        p.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    p.add_argument("--tied", action="store_true")
    a = p.parse_args()
    torch.manual_seed(0)
    device = torch.device(a.device)
    model = Decoder(a).to(device).eval()
    room = a.seq + a.tokens + a.warmup
    head_dim = a.d_model // a.heads
    cos, sin = rope_tables(room, head_dim, 5e5, device)
    sync = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    with torch.inference_mode():
        caches = [[torch.zeros(a.batch, a.kv_heads, room, head_dim, device=device) for _ in range(2)] for _ in range(a.layers)]
        prompt = torch.randint(0, a.vocab, (a.batch, a.seq), device=device)
        sync()
        start = time.perf_counter()
        next = logits(model, prompt, cos, sin, caches, 0).argmax(-1).tolist()
        prefill = time.perf_counter() - start
        times = []
        for step in range(a.warmup + a.tokens):
            start = time.perf_counter()
            tokens = torch.tensor(next, device=device)[:, None]
            next = logits(model, tokens, cos, sin, caches, a.seq + step).argmax(-1).tolist()
            if step >= a.warmup:
                times.append(time.perf_counter() - start)
    total = sum(times)
    print(json.dumps(dict(engine=f"torch {torch.__version__}", device=a.device, batch=a.batch, seq=a.seq, tokens=a.tokens,
                          params=sum(t.numel() for t in model.parameters()), step_ms=round(statistics.median(times) * 1e3, 4),
                          prefill_ms=round(prefill * 1e3, 3), tokens_per_s=round(a.batch * a.tokens / total, 1))))


if __name__ == "__main__":
    main()
