#!/usr/bin/env python3
"""PyTorch yardstick: saving and restoring the state of a training run, of the decoder of torch_train_step.py, which lies beside this file.

`torch.save` of the model's and AdamW's state dicts into one file, brought to the disk (fsync of the file and its folder) under another name and
renamed; restored with `torch.load` into both. Nothing is hashed. It prints one JSON object on the last line.

  python3 torch_checkpoint.py --layers 4 --d-model 256 --heads 8 --kv-heads 8 --ffn 1024 --vocab 4096 --saves 5
"""
import argparse, json, os, shutil, statistics, tempfile, time
import torch
from torch_train_step import Decoder


def sync(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--device", default="cpu")
    p.add_argument("--placement", default="hybrid-star", choices=["pre", "hybrid", "hybrid-star"])
    p.add_argument("--dir", default=".")
    for name, value in dict(layers=4, d_model=256, heads=8, kv_heads=8, ffn=1024, vocab=4096, experts=0, top_k=8, saves=5).items():
        p.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    p.add_argument("--tied", action="store_true")
    a = p.parse_args()
    torch.manual_seed(0)
    device = torch.device(a.device)
    model = Decoder(a).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    folder = tempfile.mkdtemp(dir=a.dir)
    saves, restores = [], []
    try:
        for step in range(a.saves):
            aside, path = os.path.join(folder, "state.tmp"), os.path.join(folder, f"step-{step}.pt")
            wait()
            start = time.perf_counter()
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, aside)
            sync(aside)
            os.rename(aside, path)
            sync(folder)
            saves.append(time.perf_counter() - start)
            start = time.perf_counter()
            state = torch.load(path, map_location=device)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            wait()
            restores.append(time.perf_counter() - start)
    finally:
        shutil.rmtree(folder)
    params = sum(t.numel() for t in model.parameters())
    save = statistics.median(saves)
    print(json.dumps(dict(engine=f"torch {torch.__version__}", device=a.device, params=params, bytes=12 * params, saves=a.saves,
                          save_ms=round(save * 1e3, 3), restore_ms=round(statistics.median(restores) * 1e3, 3),
                          mib_per_s=round(12 * params / 2**20 / save, 1))))


if __name__ == "__main__":
    main()
