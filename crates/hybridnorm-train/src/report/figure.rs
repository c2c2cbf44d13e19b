//! A picture, what it shows, and the numbers behind it.

use super::chart::Chart;
use super::table::Table;

/// A picture with its words and numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What files that hold it are called, without their ending.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// What can be seen, for who does not see it.
    pub alt: String,
    /// The picture: SVG without a prologue.
    pub svg: String,
    /// The numbers.
    pub table: Table,
}

impl Figure {
    /// Draws `chart`.
    pub(super) fn new(
        id: &str,
        title: &str,
        alt: String,
        chart: &impl Chart,
        table: Table,
    ) -> Self {
        Self {
            id: id.to_string(),
            title: title.to_string(),
            alt,
            svg: chart.svg(),
            table,
        }
    }
}
