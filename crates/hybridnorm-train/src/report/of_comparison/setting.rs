//! What arms differ in, and what they share.

use std::collections::BTreeMap;
use std::path::Path;

use crate::engine::stored_config;
use crate::lab::compare::Comparison;
use crate::report::Section;
use crate::report::of_run::flatten;
use crate::report::table::{Cell, Table};
use crate::sizes::thousands;

/// The fields of the configuration in which arms differ.
pub(super) fn differences(comparison: &Comparison, dir: &Path) -> Option<Section> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut names = vec!["field".to_string()];
    for arm in &comparison.arms {
        let config = stored_config(&dir.join(&arm.runs.first()?.dir)).ok()?;
        let value = serde_json::to_value(config).ok()?;
        flatten("", &value, &mut |field, value| {
            fields
                .entry(field)
                .or_insert_with(|| vec![String::new(); names.len() - 1])
                .push(value);
        });
        names.push(arm.arm.name.clone());
        let columns = names.len() - 1;
        fields
            .values_mut()
            .for_each(|values| values.resize(columns, String::new()));
    }
    let mut table = Table::new(names);
    for (field, values) in fields {
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            table
                .push(std::iter::once(Cell::from(field)).chain(values.into_iter().map(Cell::from)));
        }
    }
    (!table.rows.is_empty()).then(|| Section {
        title: "What the arms differ in".to_string(),
        tables: vec![(
            "Configuration of the first seed's runs, where it is not the same".to_string(),
            table,
        )],
        ..Section::default()
    })
}

/// What all runs share.
pub(super) fn setting(comparison: &Comparison) -> Section {
    let setting = &comparison.setting;
    let mut table = Table::new(["what", "figure"]);
    let mut fact = |what: &str, figure: String| table.push([Cell::from(what), figure.into()]);
    let seeds: Vec<String> = comparison.seeds.iter().map(u64::to_string).collect();
    fact("seeds", seeds.join(", "));
    fact("steps of a run", thousands(setting.steps));
    fact("tokens of a run", thousands(setting.tokens));
    fact("data", setting.data.clone());
    fact("blake3 of the data", setting.data_blake3.clone());
    fact("devices", setting.devices.join(", "));
    if let Some(preset) = &setting.preset {
        fact("preset", preset.clone());
    }
    for arm in &comparison.arms {
        fact(
            &format!("parameters of {}", arm.arm.name),
            thousands(arm.parameters as u64),
        );
    }
    let method = &comparison.method;
    fact(
        "method",
        format!(
            "{}; percentile bootstrap with {} resamples of the pairs, seed {}; a difference is {}; at least {} pairs",
            method.quantity,
            method.resamples,
            method.bootstrap_seed,
            method.rule,
            method.least_pairs
        ),
    );
    let mut all = Table::new(["field", "value"]);
    flatten("", &setting.config, &mut |field, value| {
        all.push([field.into(), value.into()])
    });
    Section {
        title: "Setting".to_string(),
        tables: vec![
            ("What all runs share".to_string(), table),
            ("The configuration that arms change".to_string(), all),
        ],
        ..Section::default()
    }
}
