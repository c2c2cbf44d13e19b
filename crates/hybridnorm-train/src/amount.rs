//! An amount of training, in steps or in tokens: `500`, `500 steps`, `20M tokens`.

use core::fmt;
use core::str::FromStr;

use hybridnorm_core::ConfigError;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An amount of training. Of an interval, 0 means never.
///
/// ```
/// use hybridnorm_train::amount::Amount;
/// assert_eq!("1.5B tokens".parse::<Amount>()?, Amount::Tokens(1_500_000_000));
/// assert_eq!(Amount::Tokens(20_000_000).to_string(), "20000000 tokens");
/// # Ok::<(), hybridnorm_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// Optimiser steps.
    Steps(u64),
    /// Tokens trained on.
    Tokens(u64),
}

/// What a count may end in, and what it is multiplied by then.
const MULTIPLES: [(char, u32); 4] = [('K', 3), ('M', 6), ('B', 9), ('T', 12)];

/// What can be written.
const ALLOWED: &str = "a whole number with K, M, B or T behind it if need be, of `steps` or `tokens`: 500, 1K steps, 2.5M tokens";

/// A count such as `500`, `20M` or `1.5B`; `None` where it is none, or not whole.
pub fn count(text: &str) -> Option<u64> {
    let text = text.trim();
    let suffix = MULTIPLES
        .iter()
        .find_map(|(suffix, power)| Some((text.strip_suffix(*suffix)?, *power)));
    let (digits, power) = suffix.unwrap_or((text, 0));
    let (whole, fraction) = digits
        .trim_end()
        .split_once('.')
        .unwrap_or((digits.trim_end(), ""));
    let power = power.checked_sub(u32::try_from(fraction.len()).ok()?)?;
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let number: u64 = format!("{whole}{fraction}").parse().ok()?;
    number.checked_mul(10u64.checked_pow(power)?)
}

impl Amount {
    /// Whether what is done every so much is done after `step` of `tokens_per_step` tokens: its multiple was reached in this step.
    pub fn is_due(self, step: u64, tokens_per_step: u64) -> bool {
        match self {
            Self::Steps(0) | Self::Tokens(0) => false,
            Self::Steps(every) => step.is_multiple_of(every),
            Self::Tokens(every) => {
                let before = step.saturating_sub(1).saturating_mul(tokens_per_step);
                step.saturating_mul(tokens_per_step) / every > before / every
            }
        }
    }

    /// The fewest steps of `tokens_per_step` tokens that make it up.
    pub fn in_steps(self, tokens_per_step: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Tokens(tokens) => tokens.div_ceil(tokens_per_step.max(1)),
        }
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        matches!(self, Self::Steps(0) | Self::Tokens(0))
    }
}

impl From<u64> for Amount {
    fn from(steps: u64) -> Self {
        Self::Steps(steps)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "{steps} steps"),
            Self::Tokens(tokens) => write!(f, "{tokens} tokens"),
        }
    }
}

impl FromStr for Amount {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        type Unit = fn(u64) -> Amount;
        let units: [(&str, Unit); 2] = [("tokens", Self::Tokens), ("steps", Self::Steps)];
        let named = units
            .iter()
            .find_map(|(name, unit)| Some((text.trim().strip_suffix(name)?, *unit)));
        let (number, unit) = named.unwrap_or((text, Self::Steps));
        let amount = count(number).map(unit);
        amount.ok_or_else(|| ConfigError::new("amount", text, ALLOWED))
    }
}

/// Steps as a number, tokens as text: what a hand would write.
impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Steps(steps) => serializer.serialize_u64(*steps),
            Self::Tokens(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ALLOWED)
            }

            fn visit_u64<E: de::Error>(self, steps: u64) -> Result<Amount, E> {
                Ok(Amount::Steps(steps))
            }

            fn visit_i64<E: de::Error>(self, steps: i64) -> Result<Amount, E> {
                let steps = u64::try_from(steps);
                steps
                    .map(Amount::Steps)
                    .map_err(|_| E::custom(format!("a negative amount: expected {ALLOWED}")))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("500", Amount::Steps(500))]
    #[case("1K steps", Amount::Steps(1000))]
    #[case(" 20M tokens ", Amount::Tokens(20_000_000))]
    #[case("1.5Btokens", Amount::Tokens(1_500_000_000))]
    #[case("0", Amount::Steps(0))]
    fn what_a_hand_writes(#[case] text: &str, #[case] amount: Amount) {
        assert_eq!(text.parse::<Amount>().unwrap(), amount);
    }

    #[rstest]
    fn nonsense_is_refused(
        #[values(
            "",
            "steps",
            "-1",
            "1.5",
            "1.2345K",
            "1e6",
            "M",
            "5M bytes",
            "20000000T tokens"
        )]
        text: &str,
    ) {
        let message = text.parse::<Amount>().unwrap_err().to_string();
        assert!(message.contains("2.5M tokens"), "{message}");
    }

    #[test]
    fn a_number_in_a_file_is_steps_and_text_is_either() {
        let read = |text: &str| serde_json::from_str::<Amount>(text);
        assert_eq!(read("100").unwrap(), Amount::Steps(100));
        assert_eq!(read("\"5M tokens\"").unwrap(), Amount::Tokens(5_000_000));
        assert!(read("-1").is_err() && read("1.5").is_err() && read("true").is_err());
        for amount in [Amount::Steps(7), Amount::Tokens(123_456)] {
            let text = serde_json::to_string(&amount).unwrap();
            assert_eq!(read(&text).unwrap(), amount);
        }
    }

    #[test]
    fn what_is_due_in_tokens_is_due_in_the_step_that_reaches_them() {
        let due = |every: u64, tokens_per_step: u64| -> Vec<u64> {
            let amount = Amount::Tokens(every);
            (1..=12)
                .filter(|step| amount.is_due(*step, tokens_per_step))
                .collect()
        };
        assert_eq!(due(100, 100), (1..=12).collect::<Vec<_>>());
        // 25, 50, 75 and 100 tokens lie in steps of 8 that end at 32, 56, 80 and 104.
        assert_eq!(due(25, 8), [4, 7, 10]);
        assert_eq!(due(0, 8), [] as [u64; 0]);
        assert_eq!(Amount::Tokens(25).in_steps(8), 4);
    }
}
