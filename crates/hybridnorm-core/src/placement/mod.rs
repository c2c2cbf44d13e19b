//! Where the norms stand: a [`Placement`] is a function from a layer index to the norms of that layer.
//!
//! Every named placement is one row of [`PLACEMENTS`]; help texts, documentation and tests read that table.
//!
//! # The name "hybrid norm" elsewhere
//!
//! Here *HybridNorm* is arXiv 2503.04598: normalised queries, keys and values inside attention, and a feed-forward
//! sublayer that normalises the stream first and adds its output to the *normed* stream ("norm-then-residual").
//! The flag `hybrid_norm` of Marin and Levanter is something else, a sandwich (norms before and after each
//! sublayer): that is [`sandwich`](PLACEMENTS) here. And the "Post" in `hybrid`, `pre-post` and `post-pre` is the
//! shifted view of Post-Norm, not `N(F(x) + x)`, which is `post`.

mod equation;
mod layer;
mod spelling;
mod table;

use std::collections::BTreeMap;

pub use equation::Equations;
pub use layer::{LayerNorms, NormSite, NormSpan, QkvNormSites, ResidualNorms};
pub use table::{PLACEMENTS, PlacementRow};

use crate::error::ConfigError;
use crate::init::InitScheme;
use crate::names;

/// A norm placement for a whole model: a named row or the user's own, with optional per-layer overrides.
///
/// As text (`FromStr`, and a string in TOML or JSON) it is a row's name; `mix-ln` takes its fraction as `mix-ln=0.5`.
/// As a table it can say everything:
///
/// ```toml
/// placement = { base = "hybrid", layers = { 0 = { attention = { input = true }, feed_forward = { input = true }, qkv = { query = "per-head" } } } }
/// ```
///
/// ```
/// use hybridnorm_core::Placement;
/// let star: Placement = "hybrid-star".parse()?;
/// assert_eq!(star.layer(1, 12)?.to_string(), "Y = X + Attn_QKV(X); X⁺ = N(Y) + FFN(N(Y))");
/// assert!("hybird-star".parse::<Placement>().unwrap_err().to_string().contains("hybrid-star"));
/// # Ok::<(), hybridnorm_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    rule: Rule,
    overrides: BTreeMap<usize, LayerNorms>,
}

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Named(&'static PlacementRow, f64),
    Custom(Box<LayerNorms>),
}

impl Placement {
    /// The row of the table with this name, for names that stand in code. What a user types is parsed instead.
    ///
    /// # Panics
    /// When no row is called so, which is a programming mistake.
    pub fn of_row(name: &'static str) -> Self {
        match table::row(name) {
            Some(row) => row.into(),
            None => panic!("no placement is called {name}"),
        }
    }

    /// A placement of your own: the same norms in every layer.
    pub fn custom(layer: LayerNorms) -> Self {
        Self {
            rule: Rule::Custom(Box::new(layer)),
            overrides: BTreeMap::new(),
        }
    }

    /// Mix-LN (arXiv 2412.13795): true Post-LN in the first `fraction` of the layers, Pre-LN above.
    ///
    /// # Errors
    /// When `fraction` is not between 0 and 1.
    pub fn mix_ln(fraction: f64) -> Result<Self, ConfigError> {
        format!("mix-ln={fraction}").parse()
    }

    /// The placement that gives exactly these norms, layer by layer: the first named row that does, otherwise the
    /// most frequent layer as a custom one, with overrides.
    ///
    /// # Errors
    /// When `layers` is empty.
    pub fn from_layers(layers: &[LayerNorms]) -> Result<Self, ConfigError> {
        let fits = |candidate: &Self| {
            layers
                .iter()
                .enumerate()
                .all(|(l, norms)| candidate.layer(l, layers.len()).as_ref() == Ok(norms))
        };
        if let Some(named) = PLACEMENTS.iter().map(Self::from).find(fits) {
            return Ok(named);
        }
        let count = |wanted: &LayerNorms| layers.iter().filter(|norms| *norms == wanted).count();
        let base = layers
            .iter()
            .max_by_key(|norms| count(norms))
            .ok_or_else(|| ConfigError::new("n_layers", 0, "at least 1"))?;
        let overrides = layers.iter().cloned().enumerate();
        Ok(Self {
            overrides: overrides.filter(|(_, norms)| norms != base).collect(),
            ..Self::custom(base.clone())
        })
    }

    /// The same placement with the norms of `layer` (0-based) replaced.
    #[must_use]
    pub fn with_layer(mut self, layer: usize, norms: LayerNorms) -> Self {
        self.overrides.insert(layer, norms);
        self
    }

    /// The norms of block `layer` (0-based) in a model of `n_layers`.
    ///
    /// # Errors
    /// When an override names a layer that the model does not have, or holds a number that is not allowed.
    pub fn layer(&self, layer: usize, n_layers: usize) -> Result<LayerNorms, ConfigError> {
        if let Some(last) = self.overrides.keys().next_back()
            && *last >= n_layers
        {
            return Err(ConfigError::new(
                "placement.layers",
                last,
                format!("a layer from 0 to {}", n_layers.saturating_sub(1)),
            ));
        }
        let norms = match (self.overrides.get(&layer), &self.rule) {
            (Some(norms), _) => norms.clone(),
            (None, Rule::Named(row, fraction)) => (row.norms)(layer, n_layers, *fraction),
            (None, Rule::Custom(norms)) => (**norms).clone(),
        };
        match norms.validate() {
            Ok(()) => Ok(norms),
            Err(error) => Err(ConfigError {
                field: format!("placement, layer {layer}: {}", error.field),
                ..error
            }),
        }
    }

    /// Every layer's equation, equal neighbours on one line.
    ///
    /// # Errors
    /// As [`layer`](Self::layer).
    pub fn equations(&self, n_layers: usize) -> Result<Equations, ConfigError> {
        (0..n_layers)
            .map(|layer| self.layer(layer, n_layers))
            .collect::<Result<Vec<_>, _>>()
            .map(Equations::new)
    }

    /// The table row behind this placement, unless it is custom.
    pub fn row(&self) -> Option<&'static PlacementRow> {
        match &self.rule {
            Rule::Named(row, _) => Some(row),
            Rule::Custom(_) => None,
        }
    }

    /// Whether the embedding is normalised before block 0.
    pub fn embedding_norm(&self) -> bool {
        self.row().is_some_and(|row| row.embedding_norm)
    }

    /// Whether a norm stands before the head of a model of `n_layers`: unless its last block ends with one already
    /// (Post-Norm, eq. 3).
    ///
    /// # Errors
    /// As [`layer`](Self::layer).
    pub fn final_norm(&self, n_layers: usize) -> Result<bool, ConfigError> {
        let last = self.layer(n_layers.saturating_sub(1), n_layers)?;
        Ok(!last.feed_forward.after)
    }

    /// The initialisation this placement works best with, as the paper chooses (§2.2).
    pub fn default_init(&self) -> InitScheme {
        self.row().map_or(InitScheme::Megatron, |row| row.init)
    }

    /// What is known against using this placement with `init`, if anything.
    pub fn clash(&self, init: InitScheme) -> Option<String> {
        let row = self.row()?;
        let reason = (row.clash)(init)?;
        Some(format!(
            "placement \"{}\" with init \"{init}\": {reason}; its own default is \"{}\"",
            row.name, row.init
        ))
    }
}

impl Default for Placement {
    /// HybridNorm*, the paper's best.
    fn default() -> Self {
        Self::of_row("hybrid-star")
    }
}

impl From<&'static PlacementRow> for Placement {
    fn from(row: &'static PlacementRow) -> Self {
        Self {
            rule: Rule::Named(row, table::MIX_LN_FRACTION),
            overrides: BTreeMap::new(),
        }
    }
}

impl core::str::FromStr for Placement {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let (name, argument) = match text.split_once('=') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let row = table::row(name).ok_or_else(|| {
            names::unknown("placement", name, PLACEMENTS.iter().map(|row| row.name))
        })?;
        let fraction = match argument {
            None => table::MIX_LN_FRACTION,
            Some(_) if name != "mix-ln" => {
                return Err(ConfigError::new(
                    "placement",
                    text,
                    "only mix-ln takes a fraction",
                ));
            }
            Some(argument) => argument
                .parse()
                .ok()
                .filter(|f| (0.0..=1.0).contains(f))
                .ok_or_else(|| {
                    ConfigError::new("placement", text, "mix-ln=F with F between 0 and 1")
                })?,
        };
        Ok(Self {
            rule: Rule::Named(row, fraction),
            overrides: BTreeMap::new(),
        })
    }
}

/// What `FromStr` reads, or `custom`.
impl core::fmt::Display for Rule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Named(row, fraction) if *fraction != table::MIX_LN_FRACTION => {
                write!(f, "{}={fraction}", row.name)
            }
            Self::Named(row, _) => f.write_str(row.name),
            Self::Custom(_) => f.write_str("custom"),
        }
    }
}

/// The short name: what `FromStr` reads, or `custom`; ` + N overrides` where layers differ.
impl core::fmt::Display for Placement {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.rule.fmt(f)?;
        match self.overrides.len() {
            0 => Ok(()),
            1 => f.write_str(" + 1 override"),
            n => write!(f, " + {n} overrides"),
        }
    }
}

#[cfg(test)]
mod tests;
