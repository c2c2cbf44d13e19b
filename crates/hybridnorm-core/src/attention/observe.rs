//! Entropy and largest logit of attention, in blocks of queries.

use burn::tensor::{FloatDType, Tensor};
use hybridnorm_kernels::softcap;

use super::Attention;
use crate::pass::Pass;

/// Scores that exist at once: 8 MiB in f32.
const SCORES: usize = 1 << 21;
/// Blocks of queries at least: each leaves out the keys behind its last query, which is most of the masked half of the scores.
const BLOCKS: usize = 4;
/// Queries that are not divided for that.
const QUERIES: usize = 64;
/// A score that is masked: its exponential is 0, and so is that times itself.
const MASKED: f32 = -1e20;

impl Attention {
    /// Reports the attention that `qkv` `[B, T, (H + 2K)·D]` leads to.
    pub(super) fn observe<R>(&self, qkv: &Tensor<3>, pass: &mut Pass<R>) {
        let trace = pass.take_trace();
        let [query, key, _] = self.heads(self.split(qkv.clone()), pass);
        let (h, k, d) = self.settings.heads;
        let [b, _, t, _] = query.dims();
        let device = query.device();
        let query = query * self.settings.scale;
        let rows = (SCORES / (b * h * t).max(1)).min(t.div_ceil(BLOCKS).max(QUERIES));
        let rows = rows.clamp(1, t.max(1));
        let mut entropies: Option<Tensor<1>> = None;
        let mut largest: Option<Tensor<1>> = None;
        for start in (0..t).step_by(rows) {
            let n = rows.min(t - start);
            // Keys behind the last of these queries are masked from all of them.
            let s = start + n;
            let queries = query.clone().narrow(2, start, n);
            let keys = key.clone().narrow(2, 0, s).swap_dims(2, 3);
            let scores = pass.matmul(queries.reshape([b, k, h / k * n, d]), keys);
            let mut scores = scores.reshape([b, h, n, s]).cast(FloatDType::F32);
            if let Some(cap) = self.settings.softcap {
                scores = softcap(scores, cap);
            }
            let mask = pass.mask_of(self.settings.window, start, n, &device);
            let scores = scores.mask_fill(mask.expand([b, h, n, s]), MASKED);
            let most = scores.clone().max_dim(3);
            // −Σ p ln p = ln Σ eˣ − Σ x eˣ / Σ eˣ, for x = score − largest.
            let x = scores - most.clone();
            let e = x.clone().exp();
            let sum = e.clone().sum_dim(3);
            let entropy = sum.clone().log() - (e * x).sum_dim(3) / sum;
            let entropy = entropy
                .reshape([b, h, n])
                .sum_dim(0)
                .sum_dim(2)
                .reshape([h]);
            entropies = Some(match entropies {
                Some(before) => before + entropy,
                None => entropy,
            });
            let most = most.max();
            largest = Some(match largest {
                Some(before) => before.max_pair(most),
                None => most,
            });
        }
        if let (Some(entropies), Some(largest)) = (entropies, largest) {
            let entropy = entropies / (b * t) as f64;
            if let Some(probe) = pass.probe_mut() {
                probe.add_attention(entropy, largest);
            }
        }
        pass.put_trace(trace);
    }
}
