//! `docs/recipe.md` has a row for every name, and none besides.

use hybridnorm_train::recipe::{DecayShape, MuonScale, OptimizerName, ScheduleShape};

const PAGE: &str = include_str!("../../../../docs/recipe.md");

#[test]
fn the_page_lists_every_name() {
    let mut rows = Vec::new();
    rows.extend(
        OptimizerName::ALL
            .iter()
            .map(|(name, _, what)| (name, what)),
    );
    rows.extend(MuonScale::ALL.iter().map(|(name, _, what)| (name, what)));
    rows.extend(
        ScheduleShape::ALL
            .iter()
            .map(|(name, _, what)| (name, what)),
    );
    rows.extend(DecayShape::ALL.iter().map(|(name, _, what)| (name, what)));
    let rows: Vec<String> = rows
        .iter()
        .map(|(name, what)| format!("| `{name}` | {what} |"))
        .collect();
    let found: Vec<&str> = PAGE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert_eq!(found, rows);
}
