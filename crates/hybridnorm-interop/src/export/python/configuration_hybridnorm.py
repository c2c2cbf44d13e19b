"""Configuration of a HybridNorm model, or of any other norm placement (arXiv 2503.04598).

Written by `hybridnorm-train export`. It works with `transformers` 4.48 and later, by `trust_remote_code=True`.
"""

from transformers import PretrainedConfig

RESIDUAL = {
    "stream": False,
    "input": False,
    "output": False,
    "after": False,
    "alpha": 1.0,
    "beta": 1.0,
    "input_scale": 1.0,
}
NORM = {
    "kind": "rms",
    "epsilon": 1e-5,
    "affine": True,
    "attention_affine": True,
    "bias": False,
    "unit_offset": False,
}


def complete(record, defaults, what):
    """`record` over `defaults`; a field that the defaults lack is refused."""
    record = record or {}
    unknown = set(record) - set(defaults)
    if unknown:
        raise ValueError(f"{what}: {sorted(unknown)} is not among {sorted(defaults)}")
    return {**defaults, **record}


class HybridNormConfig(PretrainedConfig):
    """What a `HybridNormForCausalLM` is built from.

    Args:
        vocab_size: rows of the embedding and of the head.
        tokenizer_vocab_size: tokens that the tokenizer knows; the rows beyond stand for none.
        hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim: sizes.
        intermediate_size: inner width of a dense feed-forward layer.
        max_position_embeddings: longest sequence that the model is meant for, in tokens.
        activation: `swi-glu`, `ge-glu` (tanh), `ge-glu-exact` (erf), `re-glu`; without a gate `gelu` (erf), `relu`.
        layer_norms: where the norms of each layer stand, a record for each:
            `{"attention": {..}, "feed_forward": {..}, "qkv": {..}}`. The first two stand for
            `s = stream(x); y = after(alpha * s + beta * output(F(input_scale * input(s))))`, in which a norm that is
            false is the identity. `qkv` says which of `query`, `key`, `value` and `context` are normalised inside
            attention: `"per-head"`, `"full-width"` or `{"span": .., "affine": ..}`.
        norm: how the norms normalise: `kind` (`rms` or `layer`), `epsilon`, `affine`, `attention_affine`, `bias` and
            `unit_offset` (the scale is `1 + weight`).
        embedding_norm, final_norm: a norm after the embedding, a norm before the head.
        embedding_scale: factor on the embedding's output.
        rotary: `theta` and, for longer contexts, `scaling`, whose fields say which it is: Llama 3's, YaRN or linear.
        local_rotary: that of layers with a window, where it is another one.
        attention_bias, feed_forward_bias, head_bias: biases on attention's projections, on those of dense feed-forward
            layers, on an untied head.
        clip_qkv: clamps queries, keys and values to plus or minus this; `clip_normed` does so behind their norms.
        softmax_scale: factor on the attention scores; `None` is `head_dim ** -0.5`.
        attention_softcap, logit_softcap: `cap * tanh(x / cap)` on scores and logits.
        attention_window: tokens a query sees, itself included; in `global_layers` it sees all before it.
        logit_scale: factor on the logits.
        sparse: the sparse feed-forward layers, `None` for a dense model: which `layers` are sparse (`"all"`,
            `{"every": n}` or `{"only": [..]}`), the experts' `d_ff`, `activation` (one with a gate), `shared_d_ff` and
            `capacity_factor`, and their `router`: `n_experts`, `top_k`, `score` (`softmax` or `sigmoid`), `renormalize`,
            `bias_update`, `jitter`.
            Its `losses` belong to training in Rust; the loss here is the cross-entropy alone.
    """

    model_type = "hybridnorm"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]

    def __init__(
        self,
        vocab_size=257,
        tokenizer_vocab_size=None,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=None,
        head_dim=None,
        max_position_embeddings=4096,
        activation="swi-glu",
        layer_norms=None,
        norm=None,
        embedding_norm=False,
        final_norm=True,
        embedding_scale=None,
        rotary=None,
        local_rotary=None,
        attention_bias=False,
        feed_forward_bias=False,
        head_bias=False,
        clip_qkv=None,
        clip_normed=False,
        softmax_scale=None,
        attention_softcap=None,
        attention_window=None,
        global_layers=(),
        logit_scale=None,
        logit_softcap=None,
        sparse=None,
        initializer_range=0.02,
        use_cache=True,
        tie_word_embeddings=True,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.tokenizer_vocab_size = tokenizer_vocab_size or vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.activation = activation
        self.layer_norms = layer_norms or [HYBRIDNORM] * num_hidden_layers
        self.norm = complete(norm, NORM, "norm")
        self.embedding_norm = embedding_norm
        self.final_norm = final_norm
        self.embedding_scale = embedding_scale
        self.rotary = rotary or {"theta": 500000.0}
        self.local_rotary = local_rotary
        self.attention_bias = attention_bias
        self.feed_forward_bias = feed_forward_bias
        self.head_bias = head_bias
        self.clip_qkv = clip_qkv
        self.clip_normed = clip_normed
        self.softmax_scale = softmax_scale
        self.attention_softcap = attention_softcap
        self.attention_window = attention_window
        self.global_layers = list(global_layers)
        self.logit_scale = logit_scale
        self.logit_softcap = logit_softcap
        self.sparse = sparse
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        if len(self.layer_norms) != num_hidden_layers:
            raise ValueError(f"layer_norms has {len(self.layer_norms)} records for {num_hidden_layers} layers")
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)

    def norms_around(self, layer, branch):
        """The record for `branch`, `attention` or `feed_forward`, of a layer."""
        return complete(self.layer_norms[layer].get(branch), RESIDUAL, f"layer_norms[{layer}].{branch}")

    def norm_inside(self, layer, site):
        """The span of the norm on `site` (query, key, value, context) and whether it is affine; `None` for no norm."""
        found = (self.layer_norms[layer].get("qkv") or {}).get(site)
        if isinstance(found, str):
            found = {"span": found, "affine": True}
        if found is None:
            return None
        return found["span"], found["affine"] and self.norm["attention_affine"]

    def window(self, layer):
        """Tokens that a query of the layer sees, itself included; `None` for all before it."""
        return None if layer in self.global_layers else self.attention_window

    def is_sparse(self, layer):
        """Whether the feed-forward layer has experts."""
        layers = "all" if self.sparse is None else self.sparse.get("layers", "all")
        if self.sparse is None or layers == "all":
            return self.sparse is not None
        return (layer + 1) % layers["every"] == 0 if "every" in layers else layer in layers["only"]


# HybridNorm, eq. 6: norms on queries, keys and values; the feed-forward layer normalises the stream itself.
HYBRIDNORM = {
    "feed_forward": {"stream": True},
    "qkv": {"query": "per-head", "key": "per-head", "value": "per-head"},
}
