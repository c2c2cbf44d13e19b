//! Back to a checkpoint: at the start of a resumed run, and when a run rolls back.

use super::console::Console;
use super::error::TrainError;
use super::model::LanguageModel;
use super::strategy::Position;
use crate::checkpoint::CheckpointStore;
use crate::guard::GuardState;
use crate::recipe::Optimizer;

/// Puts the newest whole checkpoint into `model` and `optimizer`, and tells where it stands and what its guards know; `None`, and both as
/// they were, if none was written yet.
///
/// # Errors
/// When there are checkpoints but none is whole, or the newest is one of another model or of other data.
pub(super) fn newest(
    store: &CheckpointStore,
    mut model: LanguageModel,
    optimizer: &mut Optimizer,
    data: Option<&str>,
    console: &Console,
) -> Result<(LanguageModel, Option<(Position, GuardState)>), TrainError> {
    let newest = store.newest_whole()?;
    for (_, error) in &newest.skipped {
        console.note(&format!("warning: skipped: {error}"));
    }
    let Some((generation, state)) = newest.generation else {
        store.clear_unfinished()?;
        return Ok((model, None));
    };
    if let (Some(stored), Some(found)) = (&state.data, data)
        && stored != found
    {
        return Err(TrainError::DataChanged {
            stored: stored.clone(),
            found: found.to_string(),
        });
    }
    let device = model.decoder.embedding.weight.lazy_device().inner();
    model.decoder = generation.load_weights(model.decoder)?;
    let moments = generation.load_moments(&model.decoder, &device)?;
    optimizer.restore(moments, state.optimizer_steps);
    store.clear_unfinished()?;
    let at = Position {
        step: state.step,
        elapsed_before: state.elapsed_s,
        checkpoint: Some(generation.dir),
        ..Position::default()
    };
    Ok((model, Some((at, state.guard))))
}
