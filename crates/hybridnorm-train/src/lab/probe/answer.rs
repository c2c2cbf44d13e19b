//! A probe in words: tables, and one sentence that answers the question.

use core::fmt;

use super::summary::{InitLoss, Row, Summary};
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

/// `1.1e-2`.
pub(super) fn rate(lr: f64) -> String {
    format!("{lr:.1e}")
}

/// `×0.31`.
fn factor(ratio: f64) -> String {
    match ratio {
        r if (0.01..1000.0).contains(&r) => format!("×{}", significant(r)),
        r => format!("×{r:.1e}"),
    }
}

/// Three digits that count.
fn significant(value: f64) -> String {
    let digits = 2 - value.abs().log10().floor() as i32;
    format!("{value:.*}", digits.clamp(0, 3) as usize)
}

/// `a, b and c`.
fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn or_dash(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_string(), show)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |figure: fn(&Row) -> bool| self.rows.iter().any(figure);
        if has(|row| row.first_gradient_ratio.is_some()) {
            self.layers(f)?;
        }
        if has(|row| row.coupling.is_some() || row.qkv_change.is_some()) {
            self.coupling(f)?;
        }
        if has(|row| row.lr_holds.is_some() || row.lr_diverges.is_some()) {
            self.rates(f)?;
        }
        if has(|row| !row.inits.is_empty()) {
            self.inits(f)?;
        }
        writeln!(f, "{}", self.answer)
    }
}

impl Summary {
    fn layers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| placement | layers | gradient, last/first, step 1 | max/min | step {0} | max/min | RMS, last/first, step {0} | similarity | least entropy | largest logit |",
            self.steps
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.placement,
                row.depth,
                or_dash(row.first_gradient_ratio, factor),
                or_dash(row.first_gradient_spread, factor),
                or_dash(row.last_gradient_ratio, factor),
                or_dash(row.last_gradient_spread, factor),
                or_dash(row.rms_growth, factor),
                or_dash(row.token_similarity, |x| format!("{x:.3}")),
                or_dash(row.least_entropy, |x| format!("{x:.2}")),
                or_dash(row.largest_logit, significant),
            )?;
        }
        writeln!(f)
    }

    fn coupling(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| placement | layers | p of ∂S/∂W_Q ∝ c^p: W_K, W_V, W_O times c | W_Q, W_K, W_V times c | change of S by the latter |"
        )?;
        writeln!(f, "|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(
                f,
                "| {} | {} | {} | {} | {} |",
                row.placement,
                row.depth,
                or_dash(row.coupling, |x| format!("{x:.2}")),
                or_dash(row.qkv_exponent, |x| format!("{x:.2}")),
                or_dash(row.qkv_change, |x| format!("{x:.1e}")),
            )?;
        }
        writeln!(f)
    }

    fn rates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| placement | layers | largest rate that holds | diverges at | least loss at |"
        )?;
        writeln!(f, "|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(
                f,
                "| {} | {} | {} | {} | {} |",
                row.placement,
                row.depth,
                or_dash(row.lr_holds, rate),
                or_dash(row.lr_diverges, rate),
                or_dash(row.lr_best, rate),
            )?;
        }
        writeln!(f)
    }

    fn inits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| placement | layers | loss after {} steps from each initialisation | apart |",
            self.steps
        )?;
        writeln!(f, "|---|---|---|---|")?;
        for row in &self.rows {
            let each = row.inits.iter().map(
                |InitLoss {
                     init,
                     loss,
                     diverged,
                 }| match (loss, diverged) {
                    (Some(loss), 0) => format!("{init} {loss:.3}"),
                    (Some(loss), n) => format!("{init} {loss:.3} ({n} diverged)"),
                    (None, _) => format!("{init} diverged"),
                },
            );
            writeln!(
                f,
                "| {} | {} | {} | {} |",
                row.placement,
                row.depth,
                each.collect::<Vec<_>>().join(", "),
                or_dash(row.init_spread, |x| format!("{x:.3}")),
            )?;
        }
        writeln!(f)
    }
}
