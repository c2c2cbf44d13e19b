"""Loads exported folders in transformers and holds them against what the Rust model computed.

    python3 compare.py FOLDER..

Each folder holds `expected.json`: token ids `ids`, their `logits`, and the greedy continuation `greedy` of `prompt`. Prints what differs,
and exits with 1 where anything does. Writes each model once more into FOLDER/again.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

ATOL = 1e-4
# The models are too small to divide.
torch.set_num_threads(1)


def check(folder):
    expected = json.loads((folder / "expected.json").read_text())
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, torch_dtype=torch.float32, output_loading_info=True
    )
    model.eval()
    wrong = [f"{kind}: {sorted(names)}" for kind, names in info.items() if names]
    ids = torch.tensor(expected["ids"])
    logits = torch.tensor(expected["logits"]).view(*ids.shape, -1)
    with torch.no_grad():
        output = model(ids, labels=ids)
    difference = (output.logits - logits).abs().max().item()
    if not difference <= ATOL:
        wrong.append(f"logits differ by {difference:.2e}, the largest is {logits.abs().max():.2f}")
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()
    if not abs(output.loss.item() - loss) <= ATOL:
        wrong.append(f"the loss is {output.loss.item()} instead of {loss}")
    prompt = torch.tensor([expected["prompt"]])
    for use_cache in (True, False):
        options = {"max_new_tokens": len(expected["greedy"]), "do_sample": False, "use_cache": use_cache, "eos_token_id": None}
        greedy = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)[0, prompt.shape[1] :].tolist()
        if greedy != expected["greedy"]:
            wrong.append(f"greedy text {greedy} instead of {expected['greedy']} (use_cache={use_cache})")
    model.save_pretrained(folder / "again")
    print(f"{folder.name}: {type(model).__name__}, logits differ by {difference:.2e}" + "".join(f"; WRONG: {w}" for w in wrong))
    return not wrong


results = [check(Path(folder)) for folder in sys.argv[1:]]
sys.exit(0 if all(results) else 1)
