//! Why no text comes.

use burn::tensor::TensorReadError;
use hybridnorm_core::ConfigError;
use hybridnorm_tokenizer::TokenizerError;

/// Why no text could be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A parameter is out of range, or a prompt too long.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer refused the prompt or the ids.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The device failed.
    #[error("the device failed while logits were read: {0}")]
    Device(#[from] TensorReadError),
    /// This system cannot wait for its device.
    #[error("{0} cannot be read while everything waits: use the functions that end in `_async`")]
    OnlyAsync(String),
    /// The model computed no numbers.
    #[error(
        "text {text}, after {tokens} tokens: no logit is a finite number: the model's weights or the device are damaged"
    )]
    NotFinite {
        /// The text, counted from 1.
        text: usize,
        /// Tokens that were generated.
        tokens: usize,
    },
    /// A chat template cannot be used.
    #[error("{place}: {reason}")]
    Chat {
        /// The file.
        place: String,
        /// What is wrong.
        reason: String,
    },
}
