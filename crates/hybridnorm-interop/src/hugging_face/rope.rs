//! Rotary positions in a `config.json`: `rope_parameters`, or `rope_theta` and `rope_scaling` as older files have it
//! (transformers 5.24, `modeling_rope_utils.py`).

use hybridnorm_core::attention::rope::{
    LinearScaling, Llama3Scaling, RopeScaling, RotaryConfig, YarnScaling,
};
use serde_json::{Map, Value};

use super::fields::Fields;
use crate::error::{InteropError, unsupported};

const WHOLE: &str = "rotary positions are over whole heads here";

impl Fields<'_> {
    /// Rotary positions of a model for `positions` tokens; `theta` is its architecture's base.
    ///
    /// # Errors
    /// Names a scaling that is not implemented.
    pub fn rotary(&self, theta: f64, positions: usize) -> Result<RotaryConfig, InteropError> {
        let (theta, old, new) = self.spellings(theta)?;
        match (&old, &new) {
            (Some(map), _) => self.parameters(map, "rope_scaling.", theta, positions),
            (None, Some(map)) => self.parameters(map, "rope_parameters.", theta, positions),
            (None, None) => Ok(RotaryConfig {
                theta,
                scaling: None,
            }),
        }
    }

    /// Those of layers with full attention, and those of layers with a window (Gemma 3). Older files scale the former only.
    ///
    /// # Errors
    /// As [`rotary`](Self::rotary).
    pub fn rotary_by_kind(
        &self,
        [theta, local]: [f64; 2],
        positions: usize,
    ) -> Result<(RotaryConfig, RotaryConfig), InteropError> {
        let (theta, old, new) = self.spellings(theta)?;
        let local: f64 = self.or("rope_local_base_freq", local)?;
        let empty = Map::new();
        let kinds = new.unwrap_or_default();
        let kinds = Fields::new(&kinds, "rope_parameters.");
        let full: Option<Map<String, Value>> = kinds.get("full_attention")?;
        let sliding: Option<Map<String, Value>> = kinds.get("sliding_attention")?;
        kinds.finish()?;
        let full = match (&full, &old) {
            (Some(_), Some(_)) => {
                let reason = "rope_parameters.full_attention says the same";
                return unsupported(&self.path("rope_scaling"), "a table", reason);
            }
            (Some(map), None) => {
                self.parameters(map, "rope_parameters.full_attention.", theta, positions)
            }
            (None, old) => {
                let map = old.as_ref().unwrap_or(&empty);
                self.parameters(map, "rope_scaling.", theta, positions)
            }
        }?;
        let sliding = sliding.as_ref().unwrap_or(&empty);
        let prefix = "rope_parameters.sliding_attention.";
        Ok((full, self.parameters(sliding, prefix, local, positions)?))
    }

    /// The base, and both tables.
    #[allow(clippy::type_complexity)]
    fn spellings(
        &self,
        theta: f64,
    ) -> Result<(f64, Option<Map<String, Value>>, Option<Map<String, Value>>), InteropError> {
        self.only("partial_rotary_factor", 1.0.into(), WHOLE)?;
        let theta: Option<f64> = self.or("rope_theta", Some(theta))?;
        let theta = theta.unwrap_or(1e4);
        Ok((
            theta,
            self.get("rope_scaling")?,
            self.get("rope_parameters")?,
        ))
    }

    /// One table.
    fn parameters(
        &self,
        map: &Map<String, Value>,
        prefix: &'static str,
        theta: f64,
        positions: usize,
    ) -> Result<RotaryConfig, InteropError> {
        let rope = Fields::new(map, prefix);
        let theta = rope.or("rope_theta", theta)?;
        rope.only("partial_rotary_factor", 1.0.into(), WHOLE)?;
        let (kind, older): (Option<String>, Option<String>) =
            (rope.get("rope_type")?, rope.get("type")?);
        let kind = kind.or(older).unwrap_or_else(|| "default".to_string());
        let original = || rope.or("original_max_position_embeddings", positions as f64);
        let scaling = match kind.as_str() {
            "default" => None,
            "linear" => Some(RopeScaling::Linear(LinearScaling {
                factor: rope.needed("factor")?,
            })),
            "llama3" => Some(RopeScaling::Llama3(Llama3Scaling {
                factor: rope.needed("factor")?,
                low_freq_factor: rope.needed("low_freq_factor")?,
                high_freq_factor: rope.needed("high_freq_factor")?,
                original_max_position: original()?,
            })),
            "yarn" => Some(RopeScaling::Yarn(yarn(&rope, original()?, positions)?)),
            other => {
                let reason = "implemented are default, linear, llama3 and yarn; others change with the length of a text";
                return unsupported(&rope.path("rope_type"), other, reason);
            }
        };
        rope.finish()?;
        Ok(RotaryConfig { theta, scaling })
    }
}

fn yarn(rope: &Fields<'_>, original: f64, positions: usize) -> Result<YarnScaling, InteropError> {
    let factor: Option<f64> = rope.get("factor")?;
    let factor = factor.unwrap_or(positions as f64 / original);
    let given: Option<f64> = rope.get("attention_factor")?;
    let scales: [Option<f64>; 2] = [rope.get("mscale")?, rope.get("mscale_all_dim")?];
    let magnitude = |scale: f64| match factor <= 1.0 {
        true => 1.0,
        false => 0.1 * scale * factor.ln() + 1.0,
    };
    // 0 counts as absent there.
    let attention_factor = given.unwrap_or(match scales {
        [Some(scale), Some(all)] if scale != 0.0 && all != 0.0 => magnitude(scale) / magnitude(all),
        _ => magnitude(1.0),
    });
    let beta = |name, default: f64| {
        let given: Option<f64> = rope.get(name)?;
        Ok::<_, InteropError>(given.filter(|beta| *beta != 0.0).unwrap_or(default))
    };
    Ok(YarnScaling {
        factor,
        original_max_position: original,
        beta_fast: beta("beta_fast", 32.0)?,
        beta_slow: beta("beta_slow", 1.0)?,
        attention_factor,
        truncate: rope.or("truncate", true)?,
    })
}
