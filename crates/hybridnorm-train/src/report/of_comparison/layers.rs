//! What every layer did, where `--diagnostics` recorded it.

use super::Logs;
use crate::report::Section;
use crate::report::curves::{Curves, by_x};
use crate::report::layer_figures::LAYER_FIGURES;
use crate::report::run_figures::heat;

/// Every figure by layer at the last look, the mean of the seeds and what they lie between; gradients over time, of each arm's first seed.
pub(super) fn layers(logs: &[Logs]) -> Option<Section> {
    let mut figures = Vec::new();
    for figure in LAYER_FIGURES {
        let mut curves = Curves::default();
        for Logs { arm, runs } in logs {
            for log in runs {
                let (_, values) = log.layers("diagnostics", figure.path);
                let last = values.iter().map(|layer| layer.last().copied().flatten());
                let points = last.enumerate();
                let points = points.filter_map(|(layer, value)| Some((layer as f64, value?)));
                let curve = curves.of(arm.arm.name.clone());
                curve.extend(points);
            }
        }
        let title = format!("{}, at the end", figure.title);
        let axes = ["layer", figure.unit];
        figures.extend(by_x(figure.id, &title, axes, [false, figure.log], curves));
    }
    let gradients = LAYER_FIGURES.iter();
    for figure in gradients.filter(|figure| figure.path.starts_with("gradient_norm")) {
        for (index, Logs { arm, runs }) in logs.iter().enumerate() {
            let log = runs.first()?;
            let (steps, values) = log.layers("diagnostics", figure.path);
            if steps.is_empty() {
                continue;
            }
            let id = format!("{}-over-time-{}", figure.id, index + 1);
            let title = format!("{}: {}, first seed", figure.title, arm.arm.name);
            figures.push(heat(&id, &title, &steps, &values, figure.log));
        }
    }
    (!figures.is_empty()).then(|| Section {
        title: "Layer by layer".to_string(),
        figures,
        ..Section::default()
    })
}
