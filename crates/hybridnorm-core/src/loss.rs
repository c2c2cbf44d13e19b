//! Next-token cross-entropy and z-loss.

use burn::tensor::{Bool, Int, Tensor};
use hybridnorm_kernels::cross_entropy;

use crate::precision::at_least_f32;

/// Losses of single tokens, in nats, before any average: conventions for the divisor differ (paper.md §3.4), so the
/// caller picks one.
#[derive(Debug, Clone)]
pub struct TokenLosses {
    /// Negative log-likelihood of each target, `[tokens]`; zero where the target is ignored.
    pub nll: Tensor<1>,
    /// Squared log-sum-exp of each row of logits, `[tokens]`; zero where the target is ignored.
    pub squared_lse: Tensor<1>,
}

/// Cross-entropy of each target under its row of logits, computed in f32.
///
/// # Shapes
/// - `logits` `[tokens, vocab]`
/// - `targets` `[tokens]`; each below `vocab`, also where ignored
/// - `ignored` `[tokens]`: true where the target does not count
pub fn token_losses(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    ignored: Option<Tensor<1, Bool>>,
) -> TokenLosses {
    let [tokens, _] = logits.dims();
    let both = cross_entropy(at_least_f32(logits), targets);
    let row = |at| both.clone().narrow(0, at, 1).reshape([tokens]);
    let (mut nll, mut squared_lse) = (row(0), row(1).square());
    if let Some(ignored) = ignored {
        nll = nll.mask_fill(ignored.clone(), 0.0);
        squared_lse = squared_lse.mask_fill(ignored, 0.0);
    }
    TokenLosses { nll, squared_lse }
}

/// Mean cross-entropy in nats per token of `logits` against the tokens that follow.
///
/// [`Decoder::loss`](crate::Decoder::loss) gives the same for a fraction of the memory: it never has the logits of all tokens.
///
/// # Shapes
/// - `logits` `[batch, seq, vocab]`
/// - `targets` `[batch, seq]`: the token after each position
/// - output `[1]`
pub fn next_token_loss(logits: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<1> {
    let [batch, seq, vocab] = logits.dims();
    let logits = logits.reshape([batch * seq, vocab]);
    token_losses(logits, targets.reshape([batch * seq]), None)
        .nll
        .mean()
}
