//! The inner attention in two operations of `hybridnorm-kernels`, where they compute what is configured.

use burn::tensor::Tensor;
use hybridnorm_kernels::{AttentionSpec, QkvSpec, attention, qkv_norm_rope};

use super::Attention;
use super::qkv_norm::HeadNorm;
use crate::norm::NormKind;
use crate::pass::Pass;
use crate::precision::is_at_least_f32;

impl Attention {
    /// Norms, rotation and attention up to the context, `[B, T, H·D]`. `None` where something is asked for that the operations do not
    /// do: other norms than RMS over a head, clipping behind norms, a soft cap, a cache that holds tokens already.
    pub(super) fn fused<R>(&self, qkv: &Tensor<3>, pass: &mut Pass<R>) -> Option<Tensor<3>> {
        let settings = &self.settings;
        let plain = settings.clip_normed.is_none() && settings.softcap.is_none();
        let whole = pass.cache_mut().is_none_or(|cache| cache.is_empty());
        if !plain || !whole || !is_at_least_f32(qkv) {
            return None;
        }
        let (heads, kv_heads, head_dim) = settings.heads;
        let ([_, seq, _], device) = (qkv.dims(), qkv.device());
        let sites = [&self.norms.query, &self.norms.key, &self.norms.value];
        let scales = sites.map(|site| scale(site, head_dim, qkv));
        let [query, key, value] = scales;
        let weights = [query?, key?, value?];
        let norms = sites.map(Option::is_some);
        let epsilon = sites.into_iter().flatten().map(|site| site.norm.epsilon());
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
        let angles = angles.map(|table| table.cast(qkv.dtype()));
        let qkv = qkv_norm_rope(qkv.clone(), weights, angles, spec);
        if let Some(cache) = pass.cache_mut() {
            let part = |first| qkv.clone().narrow(1, first, kv_heads);
            cache.extend(settings.layer, [part(heads), part(heads + kv_heads)]);
        }
        let spec = AttentionSpec {
            heads,
            kv_heads,
            scale: settings.scale,
            window: settings.window,
            products: pass.products(),
        };
        Some(attention(qkv, pass.document_numbers(), spec))
    }
}

/// The scale of a norm that is one by RMS over each head: ones where there is no norm, or one that has learned none. `None` for any
/// other norm.
fn scale(site: &Option<HeadNorm>, head_dim: usize, like: &Tensor<3>) -> Option<Tensor<1>> {
    let ones = || Tensor::ones([head_dim], (&like.device(), like.dtype()));
    let Some(HeadNorm { norm, .. }) = site else {
        return Some(ones());
    };
    let fits = norm.kind() == NormKind::Rms && norm.bias.is_none() && site.as_ref()?.is_per_head();
    fits.then(|| norm.scale().unwrap_or_else(ones))
}
