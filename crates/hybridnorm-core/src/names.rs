//! Looking a name up in a table, with a helpful refusal.

use crate::error::ConfigError;

/// The entry called `name`, or an error that names the nearest match and all that is allowed.
pub(crate) fn find<T: Clone>(
    field: &str,
    name: &str,
    table: &[(&'static str, T)],
) -> Result<T, ConfigError> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value.clone())
        .ok_or_else(|| unknown(field, name, table.iter().map(|(known, _)| *known)))
}

/// The refusal of an unknown `name`, with the nearest of those that are known.
pub fn unknown<'a>(
    field: &str,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> ConfigError {
    let nearest = known
        .clone()
        .map(|candidate| (strsim::jaro_winkler(candidate, name), candidate))
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let all = known.collect::<Vec<_>>().join(", ");
    let allowed = match nearest {
        Some((_, nearest)) => format!("did you mean \"{nearest}\"? Known: {all}"),
        None => format!("one of {all}"),
    };
    ConfigError::new(field, format!("\"{name}\""), allowed)
}
