//! The two records behind every placement: the norms around a sublayer and the norms inside attention.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::spelling::TextOrTable;
use crate::error::ConfigError;
use crate::names;

/// The norms and scales around one sublayer, see [`Residual`](crate::Residual) for the equation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResidualNorms {
    /// Normalise the stream: residual source and input both see the normed x (norm-then-residual).
    pub stream: bool,
    /// Normalise the sublayer's input only (Pre-Norm).
    pub input: bool,
    /// Normalise the sublayer's output before it is added (output norm, sandwich).
    pub output: bool,
    /// Normalise the sum (Post-Norm).
    pub after: bool,
    /// α, on the residual source.
    pub alpha: f64,
    /// β, on the branch.
    pub beta: f64,
    /// Constant factor on the sublayer's input (LayerNorm Scaling: 1/√l).
    pub input_scale: f64,
}

impl ResidualNorms {
    /// No norm at all: `x + F(x)`.
    pub const PLAIN: Self = Self {
        stream: false,
        input: false,
        output: false,
        after: false,
        alpha: 1.0,
        beta: 1.0,
        input_scale: 1.0,
    };
    /// Pre-Norm: `x + F(N(x))`.
    pub const PRE: Self = Self {
        input: true,
        ..Self::PLAIN
    };
    /// Norm-then-residual, the shifted view of Post-Norm: `N(x) + F(N(x))`.
    pub const SHIFTED: Self = Self {
        stream: true,
        ..Self::PLAIN
    };
    /// Post-Norm, eq. 3: `N(x + F(x))`.
    pub const POST: Self = Self {
        after: true,
        ..Self::PLAIN
    };
    /// Output norm (OLMo 2): `x + N(F(x))`.
    pub const OUTPUT: Self = Self {
        output: true,
        ..Self::PLAIN
    };
    /// Sandwich: `x + N(F(N(x)))`.
    pub const SANDWICH: Self = Self {
        input: true,
        output: true,
        ..Self::PLAIN
    };

    /// The same with α on the residual source.
    pub const fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// How many norms there are.
    pub(crate) fn count(&self) -> usize {
        let all = [self.stream, self.input, self.output, self.after];
        all.into_iter().filter(|wanted| *wanted).count()
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("alpha", self.alpha),
            ("beta", self.beta),
            ("input_scale", self.input_scale),
        ] {
            if !value.is_finite() {
                return Err(ConfigError::new(field, value, "a finite number"));
            }
        }
        Ok(())
    }
}

impl Default for ResidualNorms {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// Over what a norm inside attention runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormSpan {
    /// Over `head_dim`, one weight vector shared by all heads (the paper, Qwen3).
    PerHead,
    /// Over the whole projection, `heads · head_dim` (OLMo 2, OLMoE).
    FullWidth,
}

/// One norm inside attention. Written `"per-head"` or `"full-width"`, or as a table `{ span, affine }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormSite {
    /// Per head or over the full width.
    pub span: NormSpan,
    /// `false` leaves this site without a learned scale even where the model's attention norms have one.
    pub affine: bool,
}

impl NormSite {
    /// Per head, affine.
    pub const PER_HEAD: Self = Self {
        span: NormSpan::PerHead,
        affine: true,
    };
    /// Full width, affine.
    pub const FULL_WIDTH: Self = Self {
        span: NormSpan::FullWidth,
        affine: true,
    };
}

/// How a site stands in a configuration file where text does not say it all.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteTable {
    span: NormSpan,
    affine: bool,
}

impl<'de> Deserialize<'de> for NormSite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const SPANS: [(&str, NormSite); 2] = [
            ("per-head", NormSite::PER_HEAD),
            ("full-width", NormSite::FULL_WIDTH),
        ];
        deserializer.deserialize_any(TextOrTable {
            expected: "\"per-head\", \"full-width\" or a table { span, affine }",
            text: |text| names::find("norm", text, &SPANS),
            table: |SiteTable { span, affine }| Ok(Self { span, affine }),
        })
    }
}

impl Serialize for NormSite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { span, affine } = *self;
        match affine {
            true => span.serialize(serializer),
            false => SiteTable { span, affine }.serialize(serializer),
        }
    }
}

/// Which of attention's own tensors are normalised: queries, keys and values before RoPE, and the context (each
/// head's output before the output projection). Equations 1, 5 and 43–48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QkvNormSites {
    /// Norm of the queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<NormSite>,
    /// Norm of the keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<NormSite>,
    /// Norm of the values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<NormSite>,
    /// Norm of the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<NormSite>,
}

impl QkvNormSites {
    /// Plain attention, eq. 1.
    pub const NONE: Self = Self::per_head("");
    /// QKV-norm, eq. 5.
    pub const QKV: Self = Self::per_head("qkv");

    /// Per-head norms at the sites whose letters (`q k v c`) occur in `letters`.
    ///
    /// # Panics
    /// As [`at`](Self::at).
    pub const fn per_head(letters: &str) -> Self {
        Self::at(letters, NormSite::PER_HEAD)
    }

    /// Norms of the form `site` where the letters (`q k v c`) occur in `letters`.
    ///
    /// # Panics
    /// On any other letter, which is a programming mistake.
    pub const fn at(letters: &str, site: NormSite) -> Self {
        let mut sites = Self {
            query: None,
            key: None,
            value: None,
            context: None,
        };
        let bytes = letters.as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            match bytes[i] {
                b'q' => sites.query = Some(site),
                b'k' => sites.key = Some(site),
                b'v' => sites.value = Some(site),
                b'c' => sites.context = Some(site),
                _ => panic!("a site is one of the letters q, k, v and c"),
            }
            i += 1;
        }
        sites
    }
}

/// All norms of one block.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LayerNorms {
    /// Around attention.
    pub attention: ResidualNorms,
    /// Around the feed-forward layer.
    pub feed_forward: ResidualNorms,
    /// Inside attention.
    pub qkv: QkvNormSites,
}

impl LayerNorms {
    /// The three records together.
    pub const fn new(
        qkv: QkvNormSites,
        attention: ResidualNorms,
        feed_forward: ResidualNorms,
    ) -> Self {
        Self {
            attention,
            feed_forward,
            qkv,
        }
    }

    /// Whether attention sees a stream that nothing has brought to a known scale (no norm before it, and neither
    /// values nor context normalised inside): the form that diverges in the paper's Table 6 (`qk-post`).
    pub fn is_attention_unbounded(&self) -> bool {
        !(self.attention.stream
            || self.attention.input
            || self.attention.output
            || self.attention.after
            || self.qkv.value.is_some()
            || self.qkv.context.is_some())
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let sublayers = [
            ("attention", &self.attention),
            ("feed_forward", &self.feed_forward),
        ];
        sublayers.into_iter().try_for_each(|(name, norms)| {
            norms.validate().map_err(|error| ConfigError {
                field: format!("{name}.{}", error.field),
                ..error
            })
        })
    }
}
