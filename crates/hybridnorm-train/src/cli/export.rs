//! `export`: a trained model as a folder that transformers loads.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hybridnorm_interop::export::{Format, WeightType};

use crate::amount::count;
use crate::device::DeviceSpec;
use crate::error::Error;
use crate::export::{Request, export};
use crate::memory::in_words;
use crate::shell::python;
use crate::sizes::thousands;

/// The flags of `export`.
#[derive(Debug, Clone, Args)]
pub struct ExportFlags {
    /// A run directory, whose newest whole checkpoint counts, or a checkpoint (RUN/checkpoints/step-N)
    #[arg(value_name = "RUN|CHECKPOINT")]
    source: PathBuf,
    /// The new folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// `hf`: an architecture of transformers; `hybridnorm`: any model, with Python code beside it; `auto`: the first where it computes the model
    #[arg(long, value_enum, default_value = "auto")]
    format: FormatName,
    /// The type of the weights
    #[arg(long, value_enum, default_value = "f32")]
    dtype: TypeName,
    /// A file of weights is no larger than this, unless a single tensor is: a number with KB, MB, GB or TB behind it
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = bytes)]
    max_shard_size: u64,
    /// Replace a model folder that is there
    #[arg(long)]
    force: bool,
    /// Where the folder is compared with the model [default: the best compiled in]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    Auto,
    Hf,
    #[value(name = "hybridnorm")]
    HybridNorm,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TypeName {
    F32,
    Bf16,
}

pub(super) fn run(flags: &ExportFlags, out: &mut impl Write) -> Result<(), Error> {
    let device = match &flags.device {
        Some(name) => name.parse::<DeviceSpec>()?,
        None => DeviceSpec::best()?,
    }
    .open()?;
    let request = Request {
        source: flags.source.clone(),
        out: flags.out.clone(),
        format: match flags.format {
            FormatName::Auto => Format::Auto,
            FormatName::Hf => Format::HuggingFace,
            FormatName::HybridNorm => Format::HybridNorm,
        },
        dtype: match flags.dtype {
            TypeName::F32 => WeightType::F32,
            TypeName::Bf16 => WeightType::Bf16,
        },
        max_shard: flags.max_shard_size,
        force: flags.force,
    };
    let report = export(&request, &device)?;
    for note in &report.notes {
        // Where standard error is gone, the folder is what counts.
        let _ = writeln!(io::stderr(), "warning: {note}");
    }
    let architecture = report.architecture;
    let folder = flags.out.display();
    let trust = if report.needs_code {
        ", trust_remote_code=True"
    } else {
        ""
    };
    let difference = match report.parity.difference {
        0.0 => "nothing".to_string(),
        difference => format!("{difference:e} at most"),
    };
    let files = match report.files.as_slice() {
        [file] => file.clone(),
        files => format!("{} files", files.len()),
    };
    writeln!(
        out,
        "model     {} ({}): {}\n\
         weights   {} tensors, {}, in {files}\n\
         parity    read back, {} logits differ by {}; the largest is {:.3}\n\
         output    {folder}\n\n\
         AutoModelForCausalLM.from_pretrained({}{trust})",
        architecture.model_type,
        architecture.class,
        architecture.summary,
        thousands(report.tensors as u64),
        in_words(report.bytes),
        thousands(report.parity.logits as u64),
        difference,
        report.parity.largest,
        python(&flags.out),
    )
    .map_err(Error::Output)
}

/// `5GB`, in powers of ten as transformers has it.
fn bytes(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_uppercase();
    // A billion is a gigabyte here, and a `B` alone a byte.
    let plain = upper.strip_suffix('B').unwrap_or(&upper).replace('G', "B");
    let found = count(&plain).filter(|bytes| *bytes > 0 && !upper.ends_with("BB"));
    found.ok_or_else(|| {
        "expected a number above 0 with KB, MB, GB or TB behind it if need be: 5GB, 500MB"
            .to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, found) in [
            ("5GB", 5_000_000_000),
            ("500mb", 500_000_000),
            ("1.5 GB", 1_500_000_000),
            ("70", 70),
            ("9B", 9),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(bytes(text), Ok(found), "{text}");
        }
        for text in ["", "GB", "0", "5 apples", "-1GB", "5BB", "1GiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
