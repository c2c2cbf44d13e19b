//! `report`: one HTML page of a run, a comparison or a probe.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::error::Error;
use crate::report::{Export, REPORT, Report, export};

/// The flags of `report`.
#[derive(Debug, Clone, Args)]
pub struct ReportFlags {
    /// The directory of a run, a comparison or a probe; it may be in progress
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The page [default: DIR/report.html]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write the numbers of every picture into this folder, as .csv
    #[arg(long, value_name = "FOLDER")]
    csv: Option<PathBuf>,
    /// Also write every picture into this folder, as .svg
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
    /// Also write every picture into this folder, as .png
    #[arg(long, value_name = "FOLDER")]
    png: Option<PathBuf>,
}

pub(super) fn run(flags: &ReportFlags, out: &mut impl Write) -> Result<(), Error> {
    let report = Report::of(&flags.dir)?;
    let page = flags.out.clone().unwrap_or_else(|| flags.dir.join(REPORT));
    let to = Export {
        csv: flags.csv.clone(),
        svg: flags.svg.clone(),
        png: flags.png.clone(),
    };
    let files = export(&report, &to)?;
    report.save(&page)?;
    let mut say = |line: String| writeln!(out, "{line}").map_err(Error::Output);
    say(report.title.clone())?;
    if let Some(answer) = &report.answer {
        say(answer.clone())?;
    }
    for line in report.sparklines() {
        say(line)?;
    }
    if files > 0 {
        say(format!("{files} files of pictures and numbers"))?;
    }
    say(page.display().to_string())
}
