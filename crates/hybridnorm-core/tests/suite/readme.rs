//! The README's placement table is the table in the code.

use hybridnorm_core::{PLACEMENTS, Placement};

/// One line a row: name, the equations of a 12-layer model, summary.
fn table() -> String {
    let mut lines = vec![
        "| placement | equations (12 layers) | what it is |".to_string(),
        "|---|---|---|".to_string(),
    ];
    for row in PLACEMENTS {
        let equations = Placement::from(row).equations(12).unwrap();
        let runs = equations.runs();
        // Rows that change with every layer (1/√l) show their first and last layer.
        let shown = if runs.len() > 3 {
            vec![runs[0], runs[runs.len() - 1]]
        } else {
            runs.clone()
        };
        let equations: Vec<String> = shown
            .into_iter()
            .map(|(first, last, norms)| match (runs.len(), first == last) {
                (1, _) => format!("`{norms}`"),
                (_, true) => format!("{first}: `{norms}`"),
                (_, false) => format!("{first}–{last}: `{norms}`"),
            })
            .collect();
        let embedding = if row.embedding_norm {
            "`X⁰ = N(embedding)`<br>"
        } else {
            ""
        };
        lines.push(format!(
            "| `{}` | {embedding}{} | {} |",
            row.name,
            equations.join("<br>"),
            row.summary
        ));
    }
    lines.join("\n")
}

#[test]
fn the_readme_shows_the_table_in_the_code() {
    let readme = include_str!("../../../../README.md");
    assert!(
        readme.contains(&table()),
        "README.md needs this table:\n\n{}\n",
        table()
    );
}

/// The README's library example is the file that the examples run and the doc-test checks.
#[test]
fn the_readme_shows_the_crates_own_example() {
    let readme = include_str!("../../../../README.md");
    let lib = include_str!("../../src/lib.rs");
    let example: Vec<&str> = lib
        .lines()
        .skip_while(|line| !line.starts_with("//! ```"))
        .skip(1)
        .take_while(|line| !line.starts_with("//! ```"))
        .map(|line| line.trim_start_matches("//!").trim_start_matches(' '))
        .filter(|line| !line.starts_with('#'))
        .collect();
    for line in example.iter().filter(|line| !line.is_empty()) {
        assert!(readme.contains(line), "README.md lacks `{line}`");
    }
}
