#!/usr/bin/env python3
"""Writes muon.json: steps of Muon in float64, from its formulas, and as torch.optim.Muon takes them.

torch's iterates in bfloat16. Run in float64 instead it agrees with the formulas to 1e-12; as it is, to ten bfloat16 roundings.

    python3 -W ignore crates/hybridnorm-train/tests/recipe/muon.py > crates/hybridnorm-train/tests/recipe/muon.json

Weights and gradients stand as Burn stores them, [in, out]; torch's are [out, in].
"""

import inspect
import json

import torch
from torch.optim import _muon

LR, DECAY, MOMENTUM, STEPS = 0.05, 0.1, 0.95, 3
SCALES = {"spectral": "original", "rms-match": "match_rms_adamw"}
CASES = [
    # in, out, scale, nesterov
    (6, 16, "spectral", True),
    (16, 6, "spectral", True),
    (4, 24, "rms-match", True),
    (8, 8, "rms-match", True),
    (12, 5, "rms-match", False),
]


def exact(weight, grads, scale, nesterov):
    """From the formulas of https://kellerjordan.github.io/posts/muon/ and arXiv 2502.16982, on [out, in]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    fan_out, fan_in = weight.shape
    factor = max(1.0, fan_out / fan_in) ** 0.5 if scale == "spectral" else 0.2 * max(fan_out, fan_in) ** 0.5
    momentum = torch.zeros_like(weight)
    for grad in grads:
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * grad
        x = MOMENTUM * momentum + (1 - MOMENTUM) * grad if nesterov else momentum
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        weight = weight * (1 - LR * DECAY) - LR * factor * x
        yield weight


def numbers(matrix):
    return matrix.T.flatten().tolist()


def in_torch(start, grads, scale, nesterov):
    weight = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Muon(
        [weight], lr=LR, weight_decay=DECAY, momentum=MOMENTUM, nesterov=nesterov, adjust_lr_fn=SCALES[scale]
    )
    for grad in grads:
        weight.grad = grad.clone()
        optimizer.step()
    return weight.detach().double()


def in_float64(function):
    source = inspect.getsource(function)
    assert source.count("torch.bfloat16") == 1
    scope = dict(vars(_muon))
    exec(source.replace("torch.bfloat16", "torch.float64"), scope)
    return scope[function.__name__]


published = _muon._zeropower_via_newtonschulz
cases = []
torch.manual_seed(1)
for fan_in, fan_out, scale, nesterov in CASES:
    start = torch.randn(fan_out, fan_in) * 0.1
    grads = [torch.randn(fan_out, fan_in) for _ in range(STEPS)]
    expected = list(exact(start.double(), [grad.double() for grad in grads], scale, nesterov))
    moved = (expected[-1] - start.double()).norm()
    found = in_torch(start, grads, scale, nesterov)
    off = ((found - expected[-1]).norm() / moved).item()
    assert off < 10 * 2**-9, off
    _muon._zeropower_via_newtonschulz = in_float64(published)
    same = in_torch(start.double(), [grad.double() for grad in grads], scale, nesterov)
    _muon._zeropower_via_newtonschulz = published
    assert (same - expected[-1]).abs().max() < 1e-12
    cases.append(
        {
            "inputs": fan_in,
            "outputs": fan_out,
            "scale": scale,
            "nesterov": nesterov,
            "start": numbers(start),
            "grads": [numbers(grad) for grad in grads],
            "exact": [numbers(weight) for weight in expected],
        }
    )
print(json.dumps({"torch_version": torch.__version__, "lr": LR, "weight_decay": DECAY, "momentum": MOMENTUM, "cases": cases}))
