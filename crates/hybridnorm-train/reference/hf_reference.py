#!/usr/bin/env python3
"""Makes the `hf_*` cases beside it (all but hf_mixtral) with transformers: tiny random models, what they compute, and every gradient.

    python3 hf_reference.py [OUT] [CASE ..]

transformers 5.24, torch 2.15, safetensors. Values named `*64` come from the same model in float64: transformers' own casts to float32 inside
norms and softmax are lifted there, those of the rotary tables are not, for they are part of the model.
"""
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

COMMON = dict(vocab_size=41, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=64, pad_token_id=None, bos_token_id=None, eos_token_id=None)
T = 13

CASES = {
    "hf_llama": ("Llama", dict(
        head_dim=6, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, rms_norm_eps=1e-5,
        rope_parameters=dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=16))),
    "hf_mistral": ("Mistral", dict(
        sliding_window=5, num_attention_heads=2, num_key_value_heads=1, head_dim=12,
        rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=8))),
    "hf_qwen3": ("Qwen3", dict(
        head_dim=8, attention_bias=True, use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    "hf_olmo2": ("Olmo2", dict(rms_norm_eps=1e-6, rope_parameters=dict(rope_type="default", rope_theta=5e5))),
    "hf_gemma2": ("Gemma2", dict(
        head_dim=6, sliding_window=4, query_pre_attn_scalar=10, attn_logit_softcapping=3.0, final_logit_softcapping=4.0)),
    "hf_gemma3": ("Gemma3", dict(
        head_dim=6, num_hidden_layers=3, sliding_window=4, query_pre_attn_scalar=9, final_logit_softcapping=5.0,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                             sliding_attention=dict(rope_type="default", rope_theta=1e4)))),
    "hf_qwen3_moe": ("Qwen3Moe", dict(
        head_dim=8, mlp_only_layers=[0], moe_intermediate_size=10, num_experts=5, num_experts_per_tok=2, norm_topk_prob=True,
        router_aux_loss_coef=0.02)),
    "hf_olmoe": ("Olmoe", dict(
        num_hidden_layers=1, num_key_value_heads=4, intermediate_size=10, num_experts=6, num_experts_per_tok=2, clip_qkv=0.7,
        tie_word_embeddings=True)),
    "hf_qwen3_moe_gelu": ("Qwen3Moe", dict(
        hidden_act="gelu", head_dim=8, mlp_only_layers=[0], moe_intermediate_size=10, num_experts=4, num_experts_per_tok=2)),
    "hf_olmoe_relu": ("Olmoe", dict(
        hidden_act="relu", num_hidden_layers=1, num_key_value_heads=4, intermediate_size=10, num_experts=4, num_experts_per_tok=2)),
    "hf_llama_relu": ("Llama", dict(hidden_act="relu", num_hidden_layers=1)),
}
CONFIGS = {"Gemma3": "Gemma3TextConfig"}


class Casts:
    """Lifts casts of float64 tensors to float32 while `on`."""
    on = False

    @classmethod
    def install(cls):
        to, to_float, softmax = torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax

        def lifted_to(x, *args, **kwargs):
            single = torch.float32 in args or kwargs.get("dtype") == torch.float32
            return x if cls.on and single and x.dtype == torch.float64 else to(x, *args, **kwargs)

        def lifted_float(x, *args, **kwargs):
            return x if cls.on and x.dtype == torch.float64 else to_float(x, *args, **kwargs)

        def lifted_softmax(x, *args, **kwargs):
            if cls.on and x.dtype == torch.float64:
                kwargs.pop("dtype", None)
            return softmax(x, *args, **kwargs)

        torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax = lifted_to, lifted_float, lifted_softmax


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda shape: torch.randn(shape, generator=generator)
    offset = 0.0 if "Gemma" in type(model).__name__ else 1.0
    for name, param in sorted(model.named_parameters()):
        if "norm" in name:
            param.data = offset + 0.2 * draw(param.shape)
        elif name.endswith("bias"):
            param.data = 0.3 * draw(param.shape)
        elif "embed_tokens" in name:
            param.data = 0.7 * draw(param.shape) / (4.0 if offset == 0.0 else 1.0)
        else:
            param.data = 1.3 * draw(param.shape) / param.shape[-1] ** 0.5


def compute(model, ids, double):
    """Every value of a forward and backward pass, by name."""
    config, values, handles = model.config, {}, []
    base = model.model

    def keep(name):
        def hook(_module, _args, out):
            values[name] = (out[0] if isinstance(out, tuple) else out).detach().clone()
        return hook

    def rope_in_single(module):
        inner = module.forward

        def forward(*args, **kwargs):
            on, Casts.on = Casts.on, False
            try:
                return inner(*args, **kwargs)
            finally:
                Casts.on = on
        module.forward = forward

    handles.append(base.layers[0].register_forward_pre_hook(
        lambda _m, args, kwargs: values.__setitem__("hidden.embed", (args[0] if args else kwargs["hidden_states"]).detach().clone()),
        with_kwargs=True))
    for i, layer in enumerate(base.layers):
        for name, module in ((f"attn_out.{i}", layer.self_attn), (f"ffn_out.{i}", layer.mlp), (f"hidden.{i}", layer)):
            handles.append(module.register_forward_hook(keep(name)))
        if hasattr(layer.mlp, "gate") and hasattr(layer.mlp, "experts"):
            def routed(_module, _args, out, i=i):
                logits, weights, chosen = out
                values[f"router_logits.{i}"] = logits.detach().clone()
                values[f"expert_weights.{i}"] = weights.detach().clone()
                values[f"expert_indices.{i}"] = chosen.clone()
            handles.append(layer.mlp.gate.register_forward_hook(routed))
    handles.append(base.norm.register_forward_hook(keep("hidden.ln_f")))
    rope_in_single(base.rotary_emb)
    model.zero_grad()
    sparse = hasattr(config, "router_aux_loss_coef")
    Casts.on = double
    out = model(input_ids=ids, use_cache=False, **(dict(output_router_logits=True) if sparse else {}))
    logits = out.logits
    values["logits"] = logits.detach().clone()
    width = logits.shape[-1]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, width), ids[:, 1:].reshape(-1))
    values["loss"] = loss.detach().reshape(1)
    total = loss
    if sparse:
        auxiliary = pooled_balance(config, [values, out])
        values["aux_loss"] = auxiliary.detach().reshape(1)
        total = loss + config.router_aux_loss_coef * auxiliary
        values["total_loss"] = total.detach().reshape(1)
    total.backward()
    Casts.on = False
    for handle in handles:
        handle.remove()
    return values


def pooled_balance(config, pair):
    """transformers' balancing loss, from the logits that it returns, in the type that the model computes in."""
    _, out = pair
    logits = torch.cat([x for x in out.router_logits if x is not None], 0)
    experts = logits.shape[-1]
    probabilities = torch.softmax(logits, -1)
    _, chosen = torch.topk(probabilities, config.num_experts_per_tok, -1)
    load = torch.nn.functional.one_hot(chosen, experts).to(logits.dtype).mean(0).sum(0)
    return experts * (load * probabilities.mean(0)).sum()


def gradients(model, folder):
    """By the names of the checkpoint: the model with its gradients as parameters, saved by transformers itself."""
    weights = {name: param.data for name, param in model.named_parameters()}
    for param in model.parameters():
        param.data = param.grad.clone()
    model.save_pretrained(folder)
    found = load_file(Path(folder) / "model.safetensors")
    for name, param in model.named_parameters():
        param.data = weights[name]
    return found


def greedy(model, prompt, n):
    ids, gap = list(prompt), float("inf")
    with torch.no_grad():
        for _ in range(n):
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            top = logits.topk(2).values
            gap = min(gap, float(top[0] - top[1]))
            ids.append(int(logits.argmax()))
    return ids[len(prompt):], gap


def legacy(config):
    """The older spelling of a configuration."""
    old = dict(config)
    rope = old.pop("rope_parameters")
    old["torch_dtype"] = old.pop("dtype")
    old["transformers_version"] = "4.51.0"
    if "full_attention" in rope:
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    old["rope_theta"] = rope["rope_theta"]
    old["rope_scaling"] = None if scaling == {"rope_type": "default"} else scaling
    return old


def make(name, out, seed):
    kind, changes = CASES[name]
    config = getattr(transformers, CONFIGS.get(kind, f"{kind}Config"))(**{**COMMON, **changes})
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    if hasattr(config, "_experts_implementation"):
        config._experts_implementation = "eager"
    randomise(model, seed)
    folder = out / name
    model.save_pretrained(folder / "model")
    (folder / "model" / "generation_config.json").unlink(missing_ok=True)
    ids = torch.randint(0, config.vocab_size, (1, T), generator=torch.Generator().manual_seed(seed + 1))
    single = compute(model, ids, False)
    single_grads = gradients(model, folder / "scratch")
    tokens, gap = greedy(model, ids[0, :5].tolist(), 12)
    double = compute(model.double(), ids, True)
    double_grads = gradients(model, folder / "scratch")
    for file in (folder / "scratch").iterdir():
        file.unlink()
    (folder / "scratch").rmdir()
    expected = {**single, **{f"grad.{key}": value for key, value in single_grads.items()}}
    exact = {**double, **{f"grad.{key}": value for key, value in double_grads.items()}}
    precision = {}
    for key, value in expected.items():
        if value.is_floating_point():
            precision[key] = dict(max_abs_err=float((value.double() - exact[key].double()).abs().max()))
    for key in ("logits", "loss"):
        expected[f"{key}64"] = exact[key].double()
    losses = dict(loss_ce=float(single["loss"]), loss_ce64=float(double["loss"]))
    moe = {}
    if "total_loss" in single:
        losses.update(total_loss=float(single["total_loss"]), total_loss64=float(double["total_loss"]))
        moe = dict(aux_loss=float(single["aux_loss"]), aux_loss64=float(double["aux_loss"]))
    save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected.safetensors")
    save_file(dict(input_ids=ids), folder / "inputs.safetensors")
    written = json.loads((folder / "model" / "config.json").read_text())
    (folder / "config_legacy.json").write_text(json.dumps(legacy(written), indent=1) + "\n")
    case = dict(
        name=name, kind="hf",
        source=dict(implementation=f"HuggingFace transformers {transformers.__version__}", model_class=f"{kind}ForCausalLM",
                    attention="eager"),
        torch_version=torch.__version__, seed=seed, n_params=sum(p.numel() for p in model.parameters()),
        losses=losses, moe=moe, precision_f32_vs_f64=precision,
        greedy=dict(prompt=ids[0, :5].tolist(), tokens=tokens, min_top1_top2_gap=gap))
    (folder / "case.json").write_text(json.dumps(case) + "\n")
    print(name, "gap", gap, "worst", max(precision.items(), key=lambda item: item[1]["max_abs_err"]))


if __name__ == "__main__":
    Casts.install()
    torch.set_num_threads(1)
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for index, name in enumerate(CASES):
        if len(sys.argv) <= 2 or name in sys.argv[2:]:
            make(name, out, 700 + 10 * index)
