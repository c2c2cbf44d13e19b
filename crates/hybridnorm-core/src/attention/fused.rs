//! The inner attention in two operations of `hybridnorm-kernels`, where they compute what is configured.

use burn::tensor::Tensor;
use hybridnorm_kernels::{
    AttentionSpec, DecodeSpec, QkvSpec, attention, decode_attention, qkv_norm_rope,
};

use super::Attention;
use super::qkv_norm::HeadNorm;
use crate::pass::Pass;
use crate::precision::is_at_least_f32;

impl Attention {
    /// Norms, rotation and attention up to the context, `[B, T, H·D]`. `None` where something is asked for that the operations do not
    /// do: numbers smaller than f32; behind the tokens of a cache, several at once or products in another type.
    pub(super) fn fused<R>(&self, qkv: &Tensor<3>, pass: &mut Pass<R>) -> Option<Tensor<3>> {
        let settings = &self.settings;
        let [batch, seq, width] = qkv.dims();
        let decodes = pass.cache_mut().is_some_and(|cache| !cache.is_empty());
        let whole = !decodes || (seq == 1 && pass.products().is_none());
        if !whole || !is_at_least_f32(qkv) {
            return None;
        }
        let (heads, kv_heads, head_dim) = settings.heads;
        let device = qkv.device();
        let sites = [&self.norms.query, &self.norms.key, &self.norms.value];
        let left = sites.map(|site| {
            let site = site.as_ref().filter(|site| site.is_plain_rms());
            site.filter(|_| settings.clip_normed.is_none())
        });
        let mut qkv = self.prepared(qkv, left.map(|site| site.is_some()));
        let weights = left.map(|site| match site {
            Some(site) => site.scale(&qkv),
            None => Tensor::ones([head_dim], (&device, qkv.dtype())),
        });
        let norms = left.map(|site| site.map(HeadNorm::span));
        let epsilon = left.into_iter().flatten().map(|site| site.norm.epsilon());
        let angles = match &settings.rope {
            Some(rope) => pass.rotary(rope, head_dim, seq, &device).angles(),
            None => [(); 2].map(|()| Tensor::zeros([1, 1], &device)),
        };
        let spec = QkvSpec {
            heads,
            kv_heads,
            head_dim,
            norms,
            epsilon: epsilon.fold(0.0, f64::max),
            rotary: settings.rope.is_some(),
        };
        let mut angles = angles.map(|table| table.cast(qkv.dtype()));
        if decodes {
            // One token of each sequence: to norms and rotation they are the tokens of one sequence.
            qkv = qkv.reshape([1, batch, width]);
            if spec.rotary {
                angles = angles.map(|table| table.expand([batch, head_dim / 2]));
            }
        }
        let qkv = qkv_norm_rope(qkv, weights, angles, spec);
        if decodes {
            return self.decode(qkv, pass);
        }
        if let Some(cache) = pass.cache_mut() {
            let part = |first| qkv.clone().narrow(1, first, kv_heads);
            cache.extend(settings.layer, [part(heads), part(heads + kv_heads)]);
        }
        let spec = AttentionSpec {
            heads,
            kv_heads,
            scale: settings.scale,
            softcap: settings.softcap,
            window: settings.window,
            products: pass.products(),
        };
        Some(attention(qkv, pass.document_numbers(), spec))
    }

    /// The projection with those norms applied that the operation does not do, and clipped behind all of them where that is asked for.
    fn prepared(&self, qkv: &Tensor<3>, left: [bool; 3]) -> Tensor<3> {
        let sites = [&self.norms.query, &self.norms.key, &self.norms.value];
        let clip = self.settings.clip_normed;
        let now = |(site, left): (&Option<HeadNorm>, bool)| site.is_some() && !left;
        if clip.is_none() && !sites.into_iter().zip(left).any(now) {
            return qkv.clone();
        }
        let parts = self
            .split(qkv.clone())
            .into_iter()
            .zip(sites.into_iter().zip(left));
        let parts = parts.map(|(x, (site, left))| {
            let x = match site {
                Some(site) if !left => site.forward(x),
                _ => x,
            };
            clip.map_or(x.clone(), |clip| x.clamp(-clip, clip))
        });
        let parts = Tensor::cat(parts.collect(), 2);
        parts.reshape(qkv.dims())
    }

    /// The context of the newest token of each sequence, `[B, 1, H·D]`, from `[1, H + 2K, B, D]`.
    fn decode<R>(&self, qkv: Tensor<4>, pass: &mut Pass<R>) -> Option<Tensor<3>> {
        let settings = &self.settings;
        let (heads, kv_heads, head_dim) = settings.heads;
        let [_, _, batch, _] = qkv.dims();
        // [B, heads, 1, D]
        let part = |first, n| qkv.clone().narrow(1, first, n).swap_dims(0, 2);
        let cache = pass.cache_mut()?;
        let new = [part(heads, kv_heads), part(heads + kv_heads, kv_heads)];
        let [keys, values] = cache.append(settings.layer, new);
        let spec = DecodeSpec {
            attention: AttentionSpec {
                heads,
                kv_heads,
                scale: settings.scale,
                softcap: settings.softcap,
                window: settings.window,
                products: None,
            },
            len: cache.len() + 1,
            starts: cache.starts().to_vec(),
        };
        let query = part(0, heads).reshape([batch, heads, head_dim]);
        let context = decode_attention(query, keys, values, spec);
        Some(context.reshape([batch, 1, heads * head_dim]))
    }
}
