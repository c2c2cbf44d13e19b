//! A model's size in words.

use core::fmt;

use hybridnorm_core::{Activation, ConfigError};
use hybridnorm_moe::{ModelConfig, SparseConfig};

/// A number with commas: `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 document`, `1,758 documents`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

/// How often `trained` tokens are all of `corpus` tokens: `2.41 epochs`, `31 % of an epoch`.
pub(crate) fn epochs(trained: u64, corpus: u64) -> String {
    let share = trained as f64 / corpus.max(1) as f64;
    match 100.0 * share {
        _ if share >= 1.0 => format!("{share:.2} epochs"),
        percent if percent >= 10.0 => format!("{percent:.0} % of an epoch"),
        percent if percent >= 0.01 => format!("{percent:.2} % of an epoch"),
        _ => "less than 0.01 % of an epoch".to_string(),
    }
}

/// `815,616 parameters`, or for a sparse model `1,000 parameters, 500 of them active`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// All of them.
    pub total: usize,
    /// Those that work on any one token: what the cost of a step follows. Of a dense model, all.
    pub active: usize,
}

impl Parameters {
    pub(crate) fn of(model: &ModelConfig) -> Result<Self, ConfigError> {
        let (total, active) = model.num_params()?;
        Ok(Self { total, active })
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parameters", thousands(self.total as u64))?;
        if self.active != self.total {
            write!(f, ", {} of them active", thousands(self.active as u64))?;
        }
        Ok(())
    }
}

/// `64 experts of width 1024, 8 for each token, in all 16 layers`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Experts<'a> {
    sparse: &'a SparseConfig,
    n_layers: usize,
}

impl<'a> Experts<'a> {
    /// Of a model that has any.
    pub(crate) fn of(model: &'a ModelConfig) -> Option<Self> {
        let n_layers = model.decoder.n_layers;
        model
            .sparse
            .as_ref()
            .map(|sparse| Self { sparse, n_layers })
    }

    /// Their configuration.
    pub(crate) fn sparse(&self) -> &'a SparseConfig {
        self.sparse
    }

    /// Blocks with experts.
    pub(crate) fn layers(&self) -> usize {
        let layers = &self.sparse.layers;
        (0..self.n_layers)
            .filter(|layer| layers.contains(*layer))
            .count()
    }

    /// Whether every block has them, so that the model's own feed-forward width stands for nothing.
    pub(crate) fn everywhere(&self) -> bool {
        self.layers() == self.n_layers
    }
}

impl fmt::Display for Experts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let router = &self.sparse.router;
        write!(
            f,
            "{} experts of width {}",
            router.n_experts, self.sparse.d_ff
        )?;
        if self.sparse.activation != Activation::default() {
            write!(f, " ({})", self.sparse.activation)?;
        }
        write!(f, ", {} for each token", router.top_k)?;
        if let Some(d_ff) = self.sparse.shared_d_ff {
            write!(f, " beside a shared one of width {d_ff}")?;
        }
        match self.everywhere() {
            true => write!(f, ", in all {} layers", self.n_layers)?,
            false => write!(f, ", in {} of {} layers", self.layers(), self.n_layers)?,
        }
        match self.sparse.capacity_factor {
            Some(factor) => write!(f, "; none takes more than {factor} times its share"),
            None => f.write_str("; dropless"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn numbers_get_commas() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
        let documents = [0, 1, 1758].map(|number| counted(number, "document"));
        assert_eq!(documents, ["0 documents", "1 document", "1,758 documents"]);
    }

    #[test]
    fn no_epoch_is_rounded_to_nothing() {
        for (trained, corpus, text) in [
            (241, 100, "2.41 epochs"),
            (100, 100, "1.00 epochs"),
            (31, 100, "31 % of an epoch"),
            (4_096, 1_000_000, "0.41 % of an epoch"),
            (1, 1 << 40, "less than 0.01 % of an epoch"),
            (0, 0, "less than 0.01 % of an epoch"),
        ] {
            assert_eq!(epochs(trained, corpus), text);
        }
    }

    #[test]
    fn a_sparse_model_tells_its_active_parameters_and_experts() {
        let mut model = presets::find("moe-1b-7b").unwrap().model;
        assert_eq!(
            Parameters::of(&model).unwrap().to_string(),
            "6,919,069,696 parameters, 1,281,925,120 of them active"
        );
        assert_eq!(
            Experts::of(&model).unwrap().to_string(),
            "64 experts of width 1024, 8 for each token, in all 16 layers; dropless"
        );
        let sparse = model.sparse.as_mut().unwrap();
        sparse.layers = hybridnorm_moe::SparseLayers::Every(2);
        sparse.shared_d_ff = Some(96);
        sparse.activation = Activation::GeGlu;
        sparse.capacity_factor = Some(1.25);
        assert_eq!(
            Experts::of(&model).unwrap().to_string(),
            "64 experts of width 1024 (ge-glu), 8 for each token beside a shared one of width 96, in 8 of 16 layers; \
             none takes more than 1.25 times its share"
        );
        let dense = presets::find("demo").unwrap().model;
        assert!(Experts::of(&dense).is_none());
        assert!(
            !Parameters::of(&dense)
                .unwrap()
                .to_string()
                .contains("active")
        );
    }
}
