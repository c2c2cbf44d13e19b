//! The one error type of the crate's configurations.

/// A configuration that cannot be built: which field, what it held, what is allowed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field} = {value} is not allowed: {allowed}")]
pub struct ConfigError {
    /// The field, as it is spelled in configuration files.
    pub field: String,
    /// The value found there.
    pub value: String,
    /// What would have been accepted.
    pub allowed: String,
}

impl ConfigError {
    /// An error about `field` holding `value` where only `allowed` is accepted.
    pub fn new(
        field: impl Into<String>,
        value: impl core::fmt::Display,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }
}

/// Refuses a size of zero.
pub(crate) fn positive(field: &str, value: usize) -> Result<(), ConfigError> {
    if value == 0 {
        return Err(ConfigError::new(field, value, "at least 1"));
    }
    Ok(())
}

/// Refuses numbers that are not finite and greater than zero.
pub(crate) fn positive_real(field: &str, value: f64) -> Result<(), ConfigError> {
    if !(value.is_finite() && value > 0.0) {
        return Err(ConfigError::new(field, value, "a finite number above 0"));
    }
    Ok(())
}
