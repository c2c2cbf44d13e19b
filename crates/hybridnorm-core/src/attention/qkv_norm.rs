//! The norms inside attention: queries, keys, values and context, per head or over the full width.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use hybridnorm_kernels::QkvNorm;

use crate::error::ConfigError;
use crate::norm::{Norm, NormConfig, NormKind, NormStyle};
use crate::pass::Pass;
use crate::placement::{NormSite, NormSpan, QkvNormSites};
use crate::trace::Op;

/// One norm inside attention.
#[derive(Module, Debug)]
pub struct HeadNorm {
    /// The norm itself; `[head_dim]` per head, `[heads · head_dim]` over the full width.
    pub norm: Norm,
    #[module(skip)]
    full_width: bool,
    /// Numbers that are normed together.
    #[module(skip)]
    width: usize,
}

/// The configuration of the norm at `site`, over `heads` heads.
fn config(site: NormSite, style: &NormStyle, heads: usize, head_dim: usize) -> NormConfig {
    let mut config = style.inside_attention(match site.span {
        NormSpan::PerHead => head_dim,
        NormSpan::FullWidth => heads * head_dim,
    });
    config.affine &= site.affine;
    config
}

/// Each site of `sites` with the heads that it norms.
fn with_heads(
    sites: &QkvNormSites,
    n_heads: usize,
    n_kv_heads: usize,
) -> [(Option<NormSite>, usize); 4] {
    [
        (sites.query, n_heads),
        (sites.key, n_kv_heads),
        (sites.value, n_kv_heads),
        (sites.context, n_heads),
    ]
}

/// Parameters of the norms at `sites`, without building them.
pub(super) fn num_params(
    sites: &QkvNormSites,
    style: &NormStyle,
    (n_heads, n_kv_heads, head_dim): (usize, usize, usize),
) -> usize {
    let sites = with_heads(sites, n_heads, n_kv_heads).into_iter();
    let norms =
        sites.filter_map(|(site, heads)| Some(config(site?, style, heads, head_dim).num_params()));
    norms.sum()
}

impl HeadNorm {
    /// Whether it divides by an RMS, and nothing is added.
    pub(crate) fn is_plain_rms(&self) -> bool {
        self.norm.kind() == NormKind::Rms && self.norm.bias.is_none()
    }

    /// What is normed together.
    pub(crate) fn span(&self) -> QkvNorm {
        match self.full_width {
            true => QkvNorm::FullWidth,
            false => QkvNorm::PerHead,
        }
    }

    /// The learned scale, or ones of the type of `like`, `[width]`.
    pub(crate) fn scale(&self, like: &Tensor<3>) -> Tensor<1> {
        let ones = || Tensor::ones([self.width], (&like.device(), like.dtype()));
        self.norm.scale().unwrap_or_else(ones)
    }

    /// # Shapes
    /// - input `[batch, seq, heads, head_dim]`
    /// - output the same
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        if !self.full_width {
            return self.norm.forward(x);
        }
        let [batch, seq, heads, head_dim] = x.dims();
        let x = self.norm.forward(x.reshape([batch, seq, heads * head_dim]));
        x.reshape([batch, seq, heads, head_dim])
    }
}

/// The norms of one attention layer (eq. 5 and 43–48). Absent sites are the identity.
#[derive(Module, Debug)]
pub struct QkvNorms {
    /// Of the queries, before RoPE.
    pub query: Option<HeadNorm>,
    /// Of the keys, before RoPE and the cache.
    pub key: Option<HeadNorm>,
    /// Of the values, before the cache.
    pub value: Option<HeadNorm>,
    /// Of each head's output, before the output projection.
    pub context: Option<HeadNorm>,
}

impl QkvNorms {
    /// Builds the norms at `sites`.
    ///
    /// # Errors
    /// When the style holds a value that is not allowed.
    pub fn new(
        sites: &QkvNormSites,
        style: &NormStyle,
        (n_heads, n_kv_heads, head_dim): (usize, usize, usize),
        device: &Device,
    ) -> Result<Self, ConfigError> {
        let build = |(site, heads): (Option<NormSite>, usize)| {
            let norm = site.map(|site| {
                let config = config(site, style, heads, head_dim);
                Ok(HeadNorm {
                    norm: config.init(device)?,
                    full_width: site.span == NormSpan::FullWidth,
                    width: config.d,
                })
            });
            norm.transpose()
        };
        let [query, key, value, context] = with_heads(sites, n_heads, n_kv_heads).map(build);
        Ok(Self {
            query: query?,
            key: key?,
            value: value?,
            context: context?,
        })
    }
}

/// `norm(x)`, or `x` where the site has no norm.
pub(crate) fn apply<R>(
    norm: &Option<HeadNorm>,
    x: Tensor<4>,
    op: Op,
    pass: &mut Pass<R>,
) -> Tensor<4> {
    match norm {
        Some(norm) => pass.keep(op, norm.forward(x)),
        None => x,
    }
}
