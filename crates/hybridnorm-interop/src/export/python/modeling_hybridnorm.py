"""A decoder-only transformer with its norms in any place: HybridNorm (arXiv 2503.04598), its rivals and your own.

Written by `hybridnorm-train export`. It works with `transformers` 4.48 and later, by `trust_remote_code=True`.

Shape letters: B batch, T query positions, S key positions, H query heads, K key/value heads, D head_dim, N tokens.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_hybridnorm import HybridNormConfig

# What transformers calls the key/value cache: `cache` in newer versions.
CACHE = "cache" if any(f.name == "cache" for f in dataclasses.fields(CausalLMOutputWithPast)) else "past_key_values"


class HybridNormNorm(nn.Module):
    """RMSNorm or LayerNorm over the last dimension, in float32 or better."""

    def __init__(self, config, width, affine):
        super().__init__()
        self.centred = {"rms": False, "layer": True}[config.norm["kind"]]
        self.epsilon, self.offset = config.norm["epsilon"], config.norm["unit_offset"]
        self.weight = nn.Parameter(torch.zeros(width) if self.offset else torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine and config.norm["bias"] else None

    def forward(self, x):
        dtype = x.dtype
        x = x.to(torch.promote_types(dtype, torch.float32))
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon)
        x = x.to(dtype)
        if self.weight is not None:
            x = x * (1 + self.weight if self.offset else self.weight)
        if self.bias is not None:
            x = x + self.bias
        return x


class HybridNormResidual(nn.Module):
    """The residual connection around a sublayer F, and the norms that its placement puts there:

    s = stream(x)
    y = after(alpha * s + beta * output(F(input_scale * input(s))))
    """

    def __init__(self, config, record):
        super().__init__()
        for place in ("stream", "input", "output", "after"):
            norm = HybridNormNorm(config, config.hidden_size, config.norm["affine"]) if record[place] else nn.Identity()
            self.add_module(place, norm)
        self.alpha, self.beta, self.input_scale = record["alpha"], record["beta"], record["input_scale"]

    def forward(self, x, sublayer):
        s = self.stream(x)
        f = self.output(sublayer(scaled(self.input(s), self.input_scale)))
        return self.after(scaled(s, self.alpha) + scaled(f, self.beta))


def scaled(x, factor):
    return x if factor is None or factor == 1.0 else x * factor


def softcapped(x, cap):
    return x if cap is None else cap * torch.tanh(x / cap)


def rotary_frequencies(rotary, dim):
    """Radians per token for each pair of a head's numbers, [D / 2], and a factor on rotated queries and keys."""
    theta, scaling = rotary["theta"], rotary.get("scaling")
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device="cpu") / dim
    frequencies = (1.0 / (theta**exponents).float()).double()
    if scaling is None:
        return frequencies.float(), 1.0
    factor = scaling["factor"]
    if "low_freq_factor" in scaling:  # Llama 3: long wavelengths are stretched, short ones stay
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_max_position"] * frequencies / (2 * math.pi)
        kept, attention_factor = ((turns - low) / (high - low)).clamp(0.0, 1.0), 1.0
    elif "beta_fast" in scaling:  # YaRN: the same by the pair's number

        def pair(turns):
            return dim * math.log(scaling["original_max_position"] / (turns * 2 * math.pi)) / (2 * math.log(theta))

        low, high = pair(scaling["beta_fast"]), pair(scaling["beta_slow"])
        low, high = (math.floor(low), math.ceil(high)) if scaling["truncate"] else (low, high)
        low, high = max(low, 0.0), min(high, dim - 1.0)
        high = high + 0.001 if low == high else high
        ramp = (torch.arange(dim // 2, dtype=torch.float64, device="cpu") - low) / (high - low)
        kept, attention_factor = 1.0 - ramp.clamp(0.0, 1.0), scaling["attention_factor"]
    else:  # linear: all are stretched
        kept, attention_factor = 0.0, 1.0
    return ((1.0 - kept) * frequencies / factor + kept * frequencies).float(), attention_factor


def rotary_tables(rotary, dim, position_ids):
    """Cosines and sines, each [B, 1, T, D / 2] in float32."""
    frequencies, factor = rotary_frequencies(rotary, dim)
    angles = position_ids[:, None, :, None].float() * frequencies.to(position_ids.device)
    return angles.cos() * factor, angles.sin() * factor


def rotate(x, cos, sin):
    """Turns each pair (x[i], x[i + D / 2]) by its position's angle."""
    a, b = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


class HybridNormAttention(nn.Module):
    """Causal grouped-query attention with norms on queries, keys, values and context."""

    def __init__(self, config, layer):
        super().__init__()
        self.config, self.layer = config, layer
        heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.scale = config.softmax_scale if config.softmax_scale is not None else dim**-0.5
        self.q_proj = nn.Linear(config.hidden_size, heads * dim, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, kv_heads * dim, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, kv_heads * dim, bias=config.attention_bias)
        self.o_proj = nn.Linear(heads * dim, config.hidden_size, bias=config.attention_bias)
        self.full_width = set()
        for name, site, n in (
            ("q_norm", "query", heads),
            ("k_norm", "key", kv_heads),
            ("v_norm", "value", kv_heads),
            ("c_norm", "context", heads),
        ):
            found = config.norm_inside(layer, site)
            if found is None:
                self.add_module(name, nn.Identity())
                continue
            span, affine = found
            if span == "full-width":
                self.full_width.add(name)
            self.add_module(name, HybridNormNorm(config, dim * (n if span == "full-width" else 1), affine))

    def normed(self, name, x):
        """The norm called `name` on x [B, T, heads, D]."""
        norm = getattr(self, name)
        return norm(x.flatten(2)).view_as(x) if name in self.full_width else norm(x)

    def forward(self, x, mask, rotary, cache=None, output_attentions=False):
        config = self.config
        clip = config.clip_qkv if config.clip_qkv is not None else math.inf
        before, behind = (math.inf, clip) if config.clip_normed else (clip, math.inf)

        def project(name, linear):
            heads = linear(x).unflatten(-1, (-1, config.head_dim))
            heads = heads if before == math.inf else heads.clamp(-before, before)
            heads = self.normed(name, heads).transpose(1, 2)
            return heads if behind == math.inf else heads.clamp(-behind, behind)

        query = rotate(project("q_norm", self.q_proj), *rotary)
        key = rotate(project("k_norm", self.k_proj), *rotary)
        value = project("v_norm", self.v_proj)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
            if mask is not None:
                # A static cache gives all its room: what is not written yet lies ahead.
                mask = F.pad(mask, (0, key.shape[2] - mask.shape[3]), value=False)
        groups = config.num_attention_heads // config.num_key_value_heads
        if groups > 1:
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)

        weights = None
        plain = config.attention_softcap is None and not output_attentions
        if plain and getattr(config, "_attn_implementation", None) != "eager":
            context = F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, is_causal=mask is None and query.shape[2] > 1, scale=self.scale
            )
        else:
            mask = causal_mask(None, query.shape[2], key.shape[2], 0, x.device) if mask is None else mask
            scores = softcapped((query * self.scale) @ key.transpose(2, 3), config.attention_softcap)
            scores = scores.masked_fill(~mask, -math.inf)
            # A row of padding sees nothing: zeros rather than NaN.
            weights = scores.softmax(-1, dtype=torch.promote_types(x.dtype, torch.float32)).nan_to_num(0.0).to(x.dtype)
            context = weights @ value
        context = self.normed("c_norm", context.transpose(1, 2))
        return self.o_proj(context.flatten(2)), weights


def causal_mask(window, queries, keys, past, device):
    """True where attention is allowed, [1, 1, T, S]; query i stands at place past + i."""
    ahead = torch.arange(keys, device=device) - (past + torch.arange(queries, device=device))[:, None]
    allowed = ahead <= 0
    if window is not None:
        allowed = allowed & (ahead > -window)
    return allowed[None, None]


# What is on the gate, or on the value where there is none.
ACTIVATIONS = {
    "swi-glu": F.silu,
    "ge-glu": lambda x: F.gelu(x, approximate="tanh"),
    "ge-glu-exact": F.gelu,
    "re-glu": F.relu,
    "gelu": F.gelu,
    "relu": F.relu,
}


class HybridNormMLP(nn.Module):
    """A dense feed-forward layer: `act(gate) * up` where the activation is gated, `act(up)` where not."""

    def __init__(self, config, inner, activation, bias):
        super().__init__()
        self.gated = activation not in ("gelu", "relu")
        self.act = ACTIVATIONS[activation]
        # The second half is the gate.
        self.in_proj = nn.Linear(config.hidden_size, 2 * inner if self.gated else inner, bias=bias)
        self.out_proj = nn.Linear(inner, config.hidden_size, bias=bias)

    def forward(self, x):
        h = self.in_proj(x)
        if not self.gated:
            return self.out_proj(self.act(h))
        up, gate = h.chunk(2, dim=-1)
        return self.out_proj(self.act(gate) * up)


class HybridNormExpert(nn.Module):
    """A gated feed-forward layer."""

    def __init__(self, config, inner, activation):
        super().__init__()
        self.act = ACTIVATIONS[activation]
        self.gate_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.down_proj = nn.Linear(inner, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class HybridNormSparseMLP(nn.Module):
    """A feed-forward layer of which each token uses a few experts: their outputs, summed by weight."""

    def __init__(self, config):
        super().__init__()
        sparse, router = config.sparse, config.sparse["router"]
        self.n_experts, self.top_k = router["n_experts"], router["top_k"]
        self.score, self.renormalize = router.get("score", "softmax"), router.get("renormalize", False)
        self.jitter, self.capacity_factor = router.get("jitter"), sparse.get("capacity_factor")
        self.router = nn.Linear(config.hidden_size, self.n_experts, bias=False)
        # Added to the scores for the choice only. The Rust program moves it in training; no gradient reaches it.
        biased = router.get("bias_update") is not None
        bias = nn.Parameter(torch.zeros(self.n_experts), requires_grad=False) if biased else None
        self.register_parameter("selection_bias", bias)
        activation = sparse.get("activation", "swi-glu")
        experts = [HybridNormExpert(config, sparse["d_ff"], activation) for _ in range(self.n_experts)]
        self.experts = nn.ModuleList(experts)
        shared = sparse.get("shared_d_ff")
        self.shared = None if shared is None else HybridNormMLP(config, shared, activation, False)

    def route(self, x):
        """The experts of each token, best first, and their weights, both [N, top_k]."""
        if self.training and self.jitter is not None:
            x = x * torch.empty_like(x).uniform_(1.0 - self.jitter, 1.0 + self.jitter)
        logits = self.router(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        scores = logits.softmax(-1) if self.score == "softmax" else logits.sigmoid()
        ranked = scores.detach() if self.selection_bias is None else scores.detach() + self.selection_bias
        # Stable, so that equal scores go to the lower expert.
        chosen = ranked.sort(dim=-1, descending=True, stable=True).indices[:, : self.top_k]
        weights = scores.gather(1, chosen)
        if self.renormalize:
            weights = weights / weights.sum(-1, keepdim=True)
        return chosen, weights

    def kept(self, chosen):
        """Which choices their experts have room for, [N, top_k]: first choices go first, then earlier tokens."""
        if self.capacity_factor is None:
            return torch.ones_like(chosen, dtype=torch.bool)
        capacity = math.ceil(self.capacity_factor * chosen.numel() / self.n_experts)
        by_choice = F.one_hot(chosen.t().flatten(), self.n_experts)
        place = (by_choice.cumsum(0) * by_choice).sum(-1)
        return (place <= capacity).view(chosen.shape[1], chosen.shape[0]).t()

    def forward(self, hidden):
        x = hidden.flatten(0, 1)
        chosen, weights = self.route(x)
        taken = torch.where(self.kept(chosen), chosen, -1)
        y = torch.zeros_like(x)
        for expert in taken.unique().tolist():
            if expert >= 0:
                token, choice = torch.where(taken == expert)
                output = self.experts[expert](x[token]) * weights[token, choice, None].to(x.dtype)
                y = y.index_add(0, token, output)
        y = y.view_as(hidden)
        return y if self.shared is None else y + self.shared(hidden)


class HybridNormLayer(nn.Module):
    """One block. For HybridNorm (eq. 6): Y = X + Attn_QKV(X), then N(Y) + FFN(N(Y))."""

    def __init__(self, config, layer):
        super().__init__()
        self.attention_residual = HybridNormResidual(config, config.norms_around(layer, "attention"))
        self.self_attn = HybridNormAttention(config, layer)
        self.feed_forward_residual = HybridNormResidual(config, config.norms_around(layer, "feed_forward"))
        dense = (config.intermediate_size, config.activation, config.feed_forward_bias)
        self.mlp = HybridNormSparseMLP(config) if config.is_sparse(layer) else HybridNormMLP(config, *dense)

    def forward(self, x, mask, rotary, cache=None, output_attentions=False):
        weights = None

        def attention(h):
            nonlocal weights
            y, weights = self.self_attn(h, mask, rotary, cache, output_attentions)
            return y

        y = self.attention_residual(x, attention)
        return self.feed_forward_residual(y, self.mlp), weights


class HybridNormPreTrainedModel(PreTrainedModel):
    config_class = HybridNormConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HybridNormLayer"]
    _skip_keys_device_placement = [CACHE]
    _supports_sdpa = True
    _supports_cache_class = True

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, HybridNormNorm) and module.weight is not None:
            nn.init.constant_(module.weight, 0.0 if module.offset else 1.0)
        for name in ("bias", "selection_bias"):
            if isinstance(getattr(module, name, None), nn.Parameter):
                nn.init.zeros_(getattr(module, name))


class HybridNormModel(HybridNormPreTrainedModel):
    """Embedding, blocks, final norm."""

    def __init__(self, config):
        super().__init__(config)

        def norm(wanted):
            return HybridNormNorm(config, config.hidden_size, config.norm["affine"]) if wanted else nn.Identity()

        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_norm = norm(config.embedding_norm)
        self.layers = nn.ModuleList([HybridNormLayer(config, layer) for layer in range(config.num_hidden_layers)])
        self.norm = norm(config.final_norm)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self):
        return self.embed_tokens

    def set_input_embeddings(self, value):
        self.embed_tokens = value

    def rotary(self, window, position_ids):
        """The tables of layers with this window."""
        local = self.config.local_rotary if window is not None else None
        return rotary_tables(local or self.config.rotary, self.config.head_dim, position_ids)

    def mask(self, window, attention_mask, queries, past, device):
        """Where attention is allowed, [B or 1, 1, T, past + T]; None for plain causal attention."""
        keys = past + queries
        padded = attention_mask is not None and not (attention_mask.dim() == 2 and bool(attention_mask.all()))
        if not padded and past == 0 and (window is None or window >= queries):
            return None
        allowed = causal_mask(window, queries, keys, past, device)
        if not padded:
            return allowed
        if attention_mask.dim() == 4:
            given = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
            return allowed & given[..., :keys]
        given = F.pad(attention_mask.bool(), (0, max(0, keys - attention_mask.shape[1])), value=True)
        allowed = allowed & given[:, None, None, :keys]
        # A row of left padding sees itself, so that no softmax runs over nothing.
        own = torch.arange(keys, device=device) == (past + torch.arange(queries, device=device))[:, None]
        return allowed | (own & ~allowed.any(-1, keepdim=True))

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        cache=None,
        **kwargs,
    ):
        config = self.config
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds is needed")
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        x = self.embed_norm(scaled(x, config.embedding_scale))
        cache = cache if cache is not None else past_key_values
        use_cache = config.use_cache if use_cache is None else use_cache
        checkpointing = self.gradient_checkpointing and self.training
        if use_cache and cache is None and not checkpointing:
            cache = DynamicCache()
        queries, past = x.shape[1], int(cache.get_seq_length()) if cache is not None else 0
        if position_ids is None:
            position_ids = torch.arange(past, past + queries, device=x.device)[None]
        windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
        masks = {window: self.mask(window, attention_mask, queries, past, x.device) for window in set(windows)}
        tables = {window: self.rotary(window, position_ids) for window in set(windows)}

        hidden, attentions = [], []
        for layer, window in zip(self.layers, windows):
            hidden.append(x)
            arguments = (x, masks[window], tables[window], cache, bool(output_attentions))
            if checkpointing:
                x, weights = self._gradient_checkpointing_func(layer.__call__, *arguments)
            else:
                x, weights = layer(*arguments)
            attentions.append(weights)
        x = self.norm(x)
        hidden.append(x)
        output = BaseModelOutputWithPast(
            last_hidden_state=x,
            hidden_states=tuple(hidden) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
            **{CACHE: cache if use_cache else None},
        )
        return output.to_tuple() if return_dict is False else output


class HybridNormForCausalLM(HybridNormPreTrainedModel, GenerationMixin):
    """A HybridNormModel and the head that predicts the next token."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = HybridNormModel(config)
        bias = config.head_bias and not config.tie_word_embeddings
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=bias)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        logits_to_keep=0,
        cache=None,
        **kwargs,
    ):
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            cache=cache if cache is not None else past_key_values,
        )
        hidden = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else logits_to_keep
        hidden = hidden if isinstance(kept, int) else hidden[:, kept]
        logits = softcapped(scaled(self.lm_head(hidden), self.config.logit_scale), self.config.logit_softcap)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: getattr(outputs, CACHE)},
        )
        return output.to_tuple() if return_dict is False else output


__all__ = ["HybridNormForCausalLM", "HybridNormModel", "HybridNormPreTrainedModel"]
