//! What matrices are multiplied in.

use core::fmt;
use core::str::FromStr;

use burn::tensor::{DType, Device, FloatDType};
use hybridnorm_core::{ConfigError, unknown_name};
use serde::{Deserialize, Serialize};

use super::error::TrainError;

/// The type that matrices are multiplied in; the master weights and everything else are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Precision {
    /// 24 bits of significand.
    #[default]
    F32,
    /// 8 bits of significand, the range of f32.
    Bf16,
}

impl Precision {
    /// Every choice by name.
    pub const ALL: [(&'static str, Self); 2] = [("f32", Self::F32), ("bf16", Self::Bf16)];

    /// As a pass takes it.
    pub fn products(self) -> Option<FloatDType> {
        match self {
            Self::F32 => None,
            Self::Bf16 => Some(FloatDType::BF16),
        }
    }

    /// Refuses a device that lacks it.
    ///
    /// # Errors
    /// Names what the device has.
    pub fn check(self, device: &Device) -> Result<(), TrainError> {
        let has = |precision: &Self| match precision {
            Self::F32 => true,
            Self::Bf16 => device.supports_dtype(DType::BF16),
        };
        if has(&self) {
            return Ok(());
        }
        let found = Self::ALL.iter().filter(|(_, known)| has(known));
        let found: Vec<&str> = found.map(|(name, _)| *name).collect();
        Err(TrainError::Precision {
            precision: self,
            found: found.join(", "),
        })
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, precision)| precision == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for Precision {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        if name == "f16" {
            let allowed = "f32 or bf16: gradients below 6e-8 vanish in f16 unless the loss is scaled, which is not done here";
            return Err(ConfigError::new("precision", name, allowed));
        }
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        let names = Self::ALL.iter().map(|(name, _)| *name);
        found
            .map(|(_, precision)| *precision)
            .ok_or_else(|| unknown_name("precision", name, names))
    }
}

impl TryFrom<String> for Precision {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        name.parse()
    }
}

impl From<Precision> for String {
    fn from(precision: Precision) -> Self {
        precision.to_string()
    }
}
