//! A probe in one sentence that answers the question.

use super::summary::{Row, Summary};
use super::tables::{factor, rate};
use crate::lab::words::list;
use crate::sizes::thousands;

/// Rates within this factor are one to a search that ends half an octave wide.
const SAME: f64 = 1.01;

/// Which placement is safe at the greatest depth, and how hot.
pub(super) fn sentence(summary: &Summary) -> String {
    let Some(depth) = summary.rows.iter().map(|row| row.depth).max() else {
        return "Nothing was measured.".to_string();
    };
    let rows: Vec<&Row> = summary
        .rows
        .iter()
        .filter(|row| row.depth == depth)
        .collect();
    let parts = [rates(&rows), inits(&rows), gradients(&rows)];
    let mut parts: Vec<String> = parts.into_iter().flatten().collect();
    // Gradients are the answer where nothing says how a run goes.
    if parts.len() > 1 {
        parts.truncate(2);
    }
    let seeds = match summary.seeds {
        1 => "one seed".to_string(),
        n => format!("{n} seeds"),
    };
    if parts.is_empty() {
        return format!("At {depth} layers nothing was measured that tells placements apart.");
    }
    format!(
        "At {depth} layers, over {} steps of {} tokens and {seeds}: {}.",
        summary.steps,
        thousands(summary.tokens_per_step),
        parts.join("; ")
    )
}

fn rates(rows: &[&Row]) -> Option<String> {
    let searched = |row: &&&Row| row.lr_holds.is_some() || row.lr_diverges.is_some();
    let mut rows: Vec<&Row> = rows.iter().filter(searched).copied().collect();
    let holds = |row: &Row| row.lr_holds.unwrap_or(0.0);
    rows.sort_by(|a, b| holds(b).total_cmp(&holds(a)));
    let most = holds(rows.first()?);
    if most == 0.0 {
        let names: Vec<String> = rows.iter().map(|row| row.placement.clone()).collect();
        return Some(format!(
            "every learning rate tried diverged with {}",
            list(&names)
        ));
    }
    let (best, rest): (Vec<&Row>, Vec<&Row>) =
        rows.into_iter().partition(|row| holds(row) * SAME >= most);
    let names: Vec<String> = best.iter().map(|row| row.placement.clone()).collect();
    let verb = if names.len() == 1 { "holds" } else { "hold" };
    let open = best.iter().all(|row| row.lr_diverges.is_none());
    let mut text = format!(
        "{} {verb} the highest learning rate, {}{}",
        list(&names),
        if open { "at least " } else { "" },
        rate(most),
    );
    let rest: Vec<String> = rest
        .iter()
        .map(|row| match row.lr_holds {
            Some(lr) => format!("{} {}", row.placement, rate(lr)),
            None => format!("{} none that was tried", row.placement),
        })
        .collect();
    if !rest.is_empty() {
        text += &format!(" ({})", rest.join(", "));
    }
    if let [one] = &best[..]
        && let Some(lr) = one.lr_best
    {
        text += &format!(" and ends lowest at {}", rate(lr));
    }
    Some(text)
}

fn inits(rows: &[&Row]) -> Option<String> {
    let diverged = |row: &Row| -> u64 { row.inits.iter().map(|init| init.diverged).sum() };
    let mut spreads: Vec<(&Row, f64)> = rows
        .iter()
        .filter_map(|row| Some((*row, row.init_spread?)))
        .collect();
    spreads.sort_by(|a, b| {
        let by_diverged = diverged(a.0).cmp(&diverged(b.0));
        by_diverged.then(a.1.total_cmp(&b.1))
    });
    let told = |(row, spread): &(&Row, f64)| match diverged(row) {
        0 => format!("{} ({spread:.3} nats)", row.placement),
        n => format!("{} ({n} diverged)", row.placement),
    };
    let (first, last) = (spreads.first()?, spreads.last()?);
    let mut text = format!("initialisation matters least to {}", told(first));
    if spreads.len() > 1 {
        text += &format!(" and most to {}", told(last));
    }
    Some(text)
}

fn gradients(rows: &[&Row]) -> Option<String> {
    let told = rows.iter().filter_map(|row| {
        let ratio = row.first_gradient_ratio?;
        Some(format!("{} {}", row.placement, factor(ratio)))
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| {
        format!(
            "gradients of the last layers beside the first in step 1: {}",
            told.join(", ")
        )
    })
}
