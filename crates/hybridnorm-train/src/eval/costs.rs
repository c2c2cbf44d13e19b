//! What tokens cost a model, in nats: the one computation behind perplexity and multiple choice.

use std::cmp::Reverse;

use burn::tensor::{Device, Int, Tensor, TensorData};
use hybridnorm_core::loss::token_losses;
use hybridnorm_core::{Decoder, FeedForward, Pass, logit_rows};

use super::ScoreError;
use crate::engine::Stages;

/// −ln p of every token but the first of each of `rows`, given those before it in its row. As many of `rows` as `batch` says are computed
/// side by side, those of like length together; as many logits exist at once as `stages` says.
///
/// # Errors
/// When the device fails, or what it computes is no number.
///
/// # Panics
/// When a row has fewer than two tokens.
pub fn costs<F: FeedForward>(
    model: &Decoder<F>,
    rows: &[Vec<u32>],
    batch: usize,
    stages: Stages,
    device: &Device,
) -> Result<Vec<Vec<f32>>, ScoreError> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|row| Reverse(rows[*row].len()));
    let mut all = vec![Vec::new(); rows.len()];
    for batch in order.chunks(batch.max(1)) {
        let length = rows[batch[0]].len();
        let mut ids = Vec::with_capacity(batch.len() * length);
        for row in batch {
            let row = &rows[*row];
            assert!(row.len() > 1, "a row of {} tokens", row.len());
            ids.extend(row.iter().map(|id| i64::from(*id)));
            // Behind all that counts, and nothing attends to what follows it.
            ids.resize(ids.len() + length - row.len(), 0);
        }
        let tokens = TensorData::new(ids, [batch.len(), length]);
        let tokens = Tensor::<2, Int>::from_data(tokens, device);
        let found = next_costs(model, tokens, &mut Pass::causal(), stages)?;
        for (row, found) in batch.iter().zip(found.chunks_exact(length - 1)) {
            let found = &found[..rows[*row].len() - 1];
            if found.iter().any(|cost| !cost.is_finite()) {
                return Err(ScoreError::NotFinite);
            }
            all[*row] = found.to_vec();
        }
    }
    Ok(all)
}

/// −ln p of each token but the first of each row, in a pass of the caller's.
///
/// # Shapes
/// - `tokens` `[rows, seq + 1]`
/// - output `[rows · seq]`
pub(super) fn next_costs<F: FeedForward>(
    model: &Decoder<F>,
    tokens: Tensor<2, Int>,
    pass: &mut Pass<F::Report>,
    stages: Stages,
) -> Result<Vec<f32>, ScoreError> {
    let [rows, length] = tokens.dims();
    let total = rows * (length - 1);
    let hidden = model.hidden(tokens.clone().narrow(1, 0, length - 1), pass);
    let [_, _, d_model] = hidden.dims();
    let hidden = hidden.reshape([1, total, d_model]);
    let targets = tokens.narrow(1, 1, length - 1).reshape([total]);
    target_costs(model, hidden, targets, pass, stages)
}

/// −ln p of each of `targets`, given the hidden states before them.
///
/// # Shapes
/// - `hidden` `[1, total, d_model]`, `targets` `[total]`
/// - output `[total]`
fn target_costs<F: FeedForward>(
    model: &Decoder<F>,
    hidden: Tensor<3>,
    targets: Tensor<1, Int>,
    pass: &Pass<F::Report>,
    stages: Stages,
) -> Result<Vec<f32>, ScoreError> {
    let [total] = targets.dims();
    let [vocab, _] = model.embedding.weight.dims();
    let slice = logit_rows(stages.logit_rows, total, vocab);
    let mut costs = Vec::with_capacity(total);
    for start in (0..total).step_by(slice) {
        let count = slice.min(total - start);
        let logits = model.logits_in(hidden.clone().narrow(1, start, count), pass);
        let targets = targets.clone().narrow(0, start, count);
        let losses = token_losses(logits.reshape([count, vocab]), targets, None);
        costs.extend(losses.nll.try_into_vec_as::<f32>()?);
    }
    Ok(costs)
}

/// −ln p of every token of each of `endings` behind `beginning`, which is computed once: its keys and values are those of all.
///
/// # Errors
/// As [`costs`].
///
/// # Panics
/// When anything is empty.
pub(super) fn costs_behind<F: FeedForward>(
    model: &Decoder<F>,
    beginning: &[u32],
    endings: &[&[u32]],
    stages: Stages,
    device: &Device,
) -> Result<Vec<Vec<f32>>, ScoreError> {
    let longest = endings.iter().map(|ending| ending.len()).max().unwrap_or(0);
    let (rows, begun) = (endings.len(), beginning.len());
    assert!(begun > 0 && endings.iter().all(|ending| !ending.is_empty()));
    let ids: Vec<i64> = beginning.iter().map(|id| i64::from(*id)).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, begun]), device);
    let mut pass = Pass::cached(model.new_cache(begun + longest - 1));
    let hidden = model.hidden(tokens, &mut pass);
    let [_, _, d_model] = hidden.dims();
    let mut hidden = hidden.narrow(1, begun - 1, 1).repeat_dim(0, rows);
    let padded = endings.iter().flat_map(|ending| {
        let ids = ending.iter().map(|id| i64::from(*id));
        ids.chain(std::iter::repeat_n(0, longest - ending.len()))
    });
    let padded = TensorData::new(padded.collect::<Vec<i64>>(), [rows, longest]);
    let padded = Tensor::<2, Int>::from_data(padded, device);
    if longest > 1 {
        // A cached pass gives its cache back.
        let cache = pass.into_cache().map(|cache| cache.keep(&vec![0; rows]));
        pass = cache.map_or_else(Pass::causal, Pass::cached);
        let rest = model.hidden(padded.clone().narrow(1, 0, longest - 1), &mut pass);
        hidden = Tensor::cat(vec![hidden, rest], 1);
    }
    let total = rows * longest;
    let hidden = hidden.reshape([1, total, d_model]);
    let found = target_costs(model, hidden, padded.reshape([total]), &pass, stages)?;
    let costs = endings.iter().zip(found.chunks_exact(longest));
    let costs: Vec<Vec<f32>> = costs
        .map(|(ending, costs)| costs[..ending.len()].to_vec())
        .collect();
    match costs.iter().flatten().all(|cost| cost.is_finite()) {
        true => Ok(costs),
        false => Err(ScoreError::NotFinite),
    }
}

#[cfg(test)]
mod tests {
    use hybridnorm_core::DecoderConfig;
    use hybridnorm_testing::{apply, every_device};

    use super::*;

    /// Rows of unequal length cost what each costs alone, in whatever batches and slices.
    #[apply(every_device!)]
    fn costs_do_not_depend_on_the_batch(#[case] device: &Device) {
        let model = DecoderConfig::new(30, 16, 2, 2).init(device).unwrap();
        let rows: Vec<Vec<u32>> = vec![
            vec![1, 2],
            vec![3, 4, 5, 6, 7, 8, 9],
            vec![1, 2, 3],
            vec![9, 9, 9, 9, 2],
        ];
        let stages = |logit_rows| Stages {
            logit_rows,
            ..Stages::default()
        };
        let alone = costs(&model, &rows, 1, stages(None), device).unwrap();
        for (batch, logit_rows) in [(2, None), (4, Some(3)), (9, Some(1))] {
            let found = costs(&model, &rows, batch, stages(logit_rows), device).unwrap();
            for ((found, alone), row) in found.iter().zip(&alone).zip(&rows) {
                assert_eq!(found.len(), row.len() - 1);
                let pairs = found.iter().zip(alone);
                assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
    }

    /// Endings behind a beginning that is computed once cost what they cost behind one of their own, with grouped heads and windows too.
    #[apply(every_device!)]
    fn a_shared_beginning_changes_nothing(#[case] device: &Device) {
        for sliding_window in [None, Some(3)] {
            let config = DecoderConfig {
                n_kv_heads: 1,
                sliding_window,
                ..DecoderConfig::new(30, 16, 2, 2)
            };
            let model = config.init(device).unwrap();
            let beginning = [3, 1, 4, 1, 5, 9, 2, 6];
            let endings: [&[&[u32]]; 3] = [
                &[&[7], &[8], &[9]],
                &[&[5, 3], &[7, 7, 7, 7, 1], &[2]],
                &[&[4, 4, 4]],
            ];
            for endings in endings {
                let rows: Vec<Vec<u32>> = endings
                    .iter()
                    .map(|ending| [&beginning, *ending].concat())
                    .collect();
                let whole = costs(&model, &rows, 1, Stages::default(), device).unwrap();
                let stages = Stages {
                    logit_rows: Some(2),
                    ..Stages::default()
                };
                let shared = costs_behind(&model, &beginning, endings, stages, device).unwrap();
                for (shared, whole) in shared.iter().zip(&whole) {
                    let whole = &whole[beginning.len() - 1..];
                    assert_eq!(shared.len(), whole.len());
                    let mut pairs = shared.iter().zip(whole);
                    assert!(pairs.all(|(a, b)| (a - b).abs() < 1e-5));
                }
            }
        }
    }
}
