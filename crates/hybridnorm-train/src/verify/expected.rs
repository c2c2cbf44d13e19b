//! The values of a reference case, and how far the reference's own f32 run is off from them.

use std::collections::BTreeMap;

use hybridnorm_interop::{Array, InteropError, TensorFile};

use super::case::Precision;
use super::check::{Check, largest_difference};

/// `expected.safetensors` and what `case.json` says about it.
pub struct Expected {
    /// The values.
    pub file: TensorFile,
    /// The reference's own f32 error, by name.
    pub precision: BTreeMap<String, Precision>,
    /// Losses by name: from the f32 run and the f64 run.
    pub losses: BTreeMap<&'static str, (f64, f64)>,
}

impl Expected {
    /// Whether there is such a value.
    pub fn has(&self, name: &str) -> bool {
        self.file.contains(name)
    }

    /// Against the f64 value where there is one, otherwise the f32 one.
    ///
    /// # Errors
    /// When there is no such value.
    pub fn compare(&self, name: &str, found: Option<&Array>) -> Result<Check, InteropError> {
        self.compare_within(name, found, self.listed(name))
    }

    /// The same with an own error of the reference that follows from another value's.
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn compare_within(
        &self,
        name: &str,
        found: Option<&Array>,
        own: Option<f64>,
    ) -> Result<Check, InteropError> {
        let Some(found) = found else {
            return Ok(Check::exact(name, false, "there is no such value"));
        };
        let single = self.file.array(name)?;
        let double = self.double(name)?;
        let measured = double.as_ref();
        let measured = measured.map(|double| largest_difference(&double.values, &single.values));
        let own = own.or(measured).unwrap_or(0.0);
        let expected = double.as_ref().unwrap_or(&single);
        Ok(Check::close(name, &found.values, expected, own))
    }

    fn double(&self, name: &str) -> Result<Option<Array>, InteropError> {
        let double = format!("{name}64");
        if self.has(&double) {
            return self.file.array(&double).map(Some);
        }
        Ok(self.losses.get(name).map(|(_, double)| Array {
            shape: vec![1],
            values: vec![*double],
        }))
    }

    /// The reference's own f32 error as it lists it.
    ///
    /// transformers holds all experts of a layer in two tensors, its files hold each expert by itself: the error of the former is
    /// that of each of the latter.
    pub fn listed(&self, name: &str) -> Option<f64> {
        let of = |name: &str| self.precision.get(name)?.max_abs_err;
        of(name).or_else(|| {
            let inside = name.replace("block_sparse_moe", "mlp");
            let Some((layer, expert)) = inside.split_once(".experts.") else {
                return of(&inside);
            };
            let matrix = match expert.split('.').nth(1)? {
                "gate_proj" | "up_proj" | "w1" | "w3" => "gate_up_proj",
                "down_proj" | "w2" => "down_proj",
                _ => return None,
            };
            of(&format!("{layer}.experts.{matrix}"))
        })
    }
}

/// The losses called `single` in `losses` that have an f64 twin, under the names of `expected.safetensors`.
pub fn paired<'a>(
    losses: impl Fn(&str) -> Option<f64>,
    names: impl IntoIterator<Item = (&'static str, &'a str)>,
) -> BTreeMap<&'static str, (f64, f64)> {
    let pair = |(name, single): (&'static str, &str)| {
        let double = losses(&format!("{single}64"))?;
        Some((name, (losses(single)?, double)))
    };
    names.into_iter().filter_map(pair).collect()
}
