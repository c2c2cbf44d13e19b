//! Tables of names: what help, documentation, configuration files and refusals read.

/// Gives an enum its table of names: `ALL` with a summary each, `Display`, `FromStr`, and serde by name. An unknown name is
/// refused with the nearest match.
macro_rules! named {
    ($type:ident, $field:literal: $($name:literal $variant:ident $summary:literal,)+) => {
        impl $type {
            /// Every value with its name and a summary, in the order help shows them.
            pub const ALL: &'static [(&'static str, Self, &'static str)] =
                &[$(($name, Self::$variant, $summary)),+];

            /// The names alone.
            pub fn names() -> impl Iterator<Item = &'static str> + Clone {
                Self::ALL.iter().map(|(name, _, _)| *name)
            }

            /// Its name, as it is typed.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl core::str::FromStr for $type {
            type Err = hybridnorm_core::ConfigError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let row = Self::ALL.iter().find(|(name, _, _)| *name == text);
                row.map(|(_, value, _)| *value)
                    .ok_or_else(|| hybridnorm_core::unknown_name($field, text, Self::names()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = hybridnorm_core::ConfigError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.name().to_string()
            }
        }
    };
}

pub(super) use named;
