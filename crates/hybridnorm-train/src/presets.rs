//! Every model size by name: the dense ones of `hybridnorm-core`, then the sparse ones of `hybridnorm-moe`.

use hybridnorm_core::{ConfigError, unknown_name};
use hybridnorm_moe::ModelConfig;

/// A named size of a model, dense or sparse.
#[derive(Debug, Clone, PartialEq)]
pub struct Preset {
    /// The name, as it is typed.
    pub name: &'static str,
    /// Where the numbers come from.
    pub summary: &'static str,
    /// The model.
    pub model: ModelConfig,
}

/// All of them, in the order in which they are shown.
pub fn all() -> impl Iterator<Item = Preset> {
    let dense = hybridnorm_core::PRESETS.iter().map(|row| Preset {
        name: row.name,
        summary: row.summary,
        model: row.config().into(),
    });
    let sparse = hybridnorm_moe::PRESETS.iter().map(|row| Preset {
        name: row.name,
        summary: row.summary,
        model: row.config(),
    });
    dense.chain(sparse)
}

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    let dense = hybridnorm_core::PRESETS.iter().map(|row| row.name);
    dense.chain(hybridnorm_moe::PRESETS.iter().map(|row| row.name))
}

/// Looks a preset up by name.
///
/// # Errors
/// An unknown name is refused with the nearest match.
pub fn find(name: &str) -> Result<Preset, ConfigError> {
    let mut all = all();
    all.find(|preset| preset.name == name)
        .ok_or_else(|| unknown_name("preset", name, names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_are_searched() {
        assert!(find("demo").unwrap().model.sparse.is_none());
        assert!(find("moe-demo").unwrap().model.sparse.is_some());
        let error = find("moe-dmeo").unwrap_err().to_string();
        assert!(error.contains("did you mean \"moe-demo\"?"), "{error}");
        assert!(error.contains("151m"), "{error}");
    }

    #[test]
    fn no_name_means_two_sizes() {
        let mut known: Vec<&str> = names().collect();
        assert_eq!(known, all().map(|preset| preset.name).collect::<Vec<_>>());
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), all().count());
    }

    /// 1.3B of 6.9B parameters are active, as the authors' code counts them. HybridNorm* has one norm more than HybridNorm.
    #[test]
    fn the_published_sparse_size_has_its_parameters() {
        let mut model = find("moe-1b-7b").unwrap().model;
        let (total, active) = (6_919_069_696, 1_281_925_120);
        assert_eq!(model.num_params().unwrap(), (total, active));
        model.decoder.placement = "hybrid-star".parse().unwrap();
        let star = (total + 2048, active + 2048);
        assert_eq!(model.num_params().unwrap(), star);
    }
}
