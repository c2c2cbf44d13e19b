//! The HTML: one file that needs no other, and no script.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::figure::Figure;
use super::table::{Cell, Table};
use super::{Report, Section};

const STYLE: &str = include_str!("style.css");
/// Most rows of a table behind a picture; the file of its numbers holds all.
const ROWS: usize = 200;
/// Characters beyond which a cell is a sentence and no name.
const LONG: usize = 40;
/// Columns beyond which a table leaves no room for a sentence.
const BROAD: usize = 4;
/// No page of ours asks for anything, and none is to be made to.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

pub(super) fn html(report: &Report) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                link rel="icon" href="data:,";
                title { (report.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (report.title) }
                    @if let Some(answer) = &report.answer {
                        p.answer { (answer) }
                    }
                    nav aria-label="Sections" {
                        @for (index, section) in report.sections.iter().enumerate() {
                            a href={ "#section-" (index) } { (section.title) }
                        }
                    }
                }
                main {
                    @for (index, section) in report.sections.iter().enumerate() {
                        (part(index, section))
                    }
                }
                footer { "Written by hybridnorm-train " (env!("CARGO_PKG_VERSION")) "." }
            }
        }
    };
    page.into_string()
}

fn part(index: usize, section: &Section) -> Markup {
    html! {
        section id={ "section-" (index) } {
            h2 { (section.title) }
            @for paragraph in &section.words {
                p { (paragraph) }
            }
            @for (caption, table) in &section.tables {
                div.wide { (rows(caption, table, usize::MAX)) }
            }
            @if !section.figures.is_empty() {
                div.figures {
                    @for figure in &section.figures {
                        (picture(figure))
                    }
                }
            }
        }
    }
}

fn picture(figure: &Figure) -> Markup {
    let Figure {
        id,
        title,
        alt,
        svg,
        table,
    } = figure;
    let labelled = svg.replacen(
        "<svg ",
        &format!("<svg role=\"img\" aria-labelledby=\"{id}-title\" aria-describedby=\"{id}-alt\" "),
        1,
    );
    html! {
        figure id=(id) {
            h3 id={ (id) "-title" } { (title) }
            (PreEscaped(labelled))
            figcaption id={ (id) "-alt" } { (alt) }
            details {
                summary { "Numbers" }
                a.csv download={ (id) ".csv" } href=(data_uri(&table.csv())) { (id) ".csv" }
                @if table.rows.len() > ROWS {
                    p { (ROWS) " of " (table.rows.len()) " rows, evenly spaced; the file has all." }
                }
                div.scroll { (rows(title, table, ROWS)) }
            }
        }
    }
}

/// At most so many rows of a table, evenly spaced, the first and last among them.
fn rows(caption: &str, table: &Table, most: usize) -> Markup {
    let all = table.rows.len();
    let shown: Vec<usize> = match all <= most {
        true => (0..all).collect(),
        false => (0..most).map(|n| n * (all - 1) / (most - 1)).collect(),
    };
    let beside = match ends_with_notes(table) {
        true => table.columns.len() - 1,
        false => table.columns.len(),
    };
    html! {
        table {
            caption { (caption) }
            thead { tr { @for column in &table.columns[..beside] { th scope="col" { (column) } } } }
            tbody {
                @for index in shown {
                    @let (cells, notes) = table.rows[index].split_at(beside);
                    @let notes = notes.iter().filter(|note| **note != Cell::Empty);
                    @let notes: Vec<&Cell> = notes.collect();
                    tr class=[(!notes.is_empty()).then_some("noted")] { @for cell in cells { (cell_of(cell)) } }
                    @for note in notes {
                        tr { td.note colspan=(beside) { (note.to_string()) } }
                    }
                }
            }
        }
    }
}

/// Whether the last column of a broad table holds sentences: beside the others they would lie outside the window, so each stands below its row.
fn ends_with_notes(table: &Table) -> bool {
    let mut notes = table.rows.iter().filter_map(|row| row.last());
    let words = notes
        .clone()
        .all(|cell| matches!(cell, Cell::Text(_) | Cell::Empty));
    table.columns.len() > BROAD && words && notes.any(is_long)
}

fn is_long(cell: &Cell) -> bool {
    matches!(cell, Cell::Text(text) if text.chars().count() > LONG)
}

fn cell_of(cell: &Cell) -> Markup {
    let class = match cell {
        Cell::Number(_) | Cell::Count(_) => Some("number"),
        _ => is_long(cell).then_some("long"),
    };
    html! { td class=[class] { (cell.to_string()) } }
}

/// A text as an address that holds it (RFC 2397).
fn data_uri(text: &str) -> String {
    let mut uri = String::from("data:text/csv;charset=utf-8,");
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b',' => {
                uri.push(byte as char)
            }
            byte => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_not_markup() {
        let mut table = Table::new(["<b>"]);
        table.push([Cell::from("</table><script>alert(1)</script>")]);
        let section = Section {
            title: "<i>".to_string(),
            tables: vec![("&".to_string(), table)],
            ..Section::default()
        };
        let report = Report {
            title: "a<script>b".to_string(),
            answer: Some("<u>".to_string()),
            sections: vec![section],
        };
        let page = html(&report);
        for tag in ["<script", "<i>", "<u>", "<b>"] {
            assert!(!page.contains(tag), "{tag}");
        }
    }

    #[test]
    fn tables_keep_their_ends() {
        let mut table = Table::new(["n"]);
        (0..1000u64).for_each(|n| table.push([n.into()]));
        let text = rows("", &table, 5).into_string();
        let shown: Vec<&str> = text.split("<td class=\"number\">").skip(1).collect();
        let shown = shown.iter().map(|cell| cell.split('<').next().unwrap());
        assert_eq!(shown.collect::<Vec<_>>(), ["0", "249", "499", "749", "999"]);
    }

    /// Where they were squeezed instead, a letter to a line, a table was several screens high.
    #[test]
    fn sentences_have_room() {
        let cell = |text: &str| cell_of(&Cell::from(text)).into_string();
        let note = "3 of 3 runs learnt no more than frequencies: 4.740 bits per byte";
        assert_eq!(cell(note), format!("<td class=\"long\">{note}</td>"));
        assert_eq!(cell("no difference shown"), "<td>no difference shown</td>");
        assert!(STYLE.contains("td.long {"));
    }

    #[test]
    fn sentences_behind_many_columns_stand_below_their_rows() {
        let note = "2 of 3 runs learnt no more than frequencies: 4.834 bits per byte";
        let table = |columns: usize| {
            let names = (0..columns).map(|n| n.to_string());
            let mut table = Table::new(names.chain(["note".to_string()]));
            for last in [Cell::from(note), Cell::Empty, "short".into()] {
                table.push((0..columns).map(|n| (n as u64).into()).chain([last]));
            }
            rows("", &table, 9).into_string()
        };
        let text = table(5);
        let below = |words: &str| format!("<tr><td class=\"note\" colspan=\"5\">{words}</td></tr>");
        assert!(
            text.contains(&below(note)) && text.contains(&below("short")),
            "{text}"
        );
        assert_eq!(text.matches("class=\"noted\"").count(), 2, "{text}");
        assert!(!text.contains("<th scope=\"col\">note</th>"), "{text}");
        assert!(table(2).contains("<td class=\"long\">2 of 3"));
    }

    #[test]
    fn an_address_holds_any_text() {
        assert_eq!(
            data_uri("a,é\r\n"),
            "data:text/csv;charset=utf-8,a,%C3%A9%0D%0A"
        );
    }
}
