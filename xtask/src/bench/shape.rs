//! The shapes that are measured, by name.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A decoder and a batch: the same words for both programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    pub name: String,
    pub d_model: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Inner width of the feed-forward layer, of each expert in a sparse model.
    pub ffn: usize,
    /// Experts and experts per token; `None` for a dense model.
    pub experts: Option<(usize, usize)>,
    /// What is measured of it.
    pub measure: Measure,
    /// Rows of the embedding, padding included.
    pub vocab: usize,
    pub tied: bool,
    /// Tokens of a sequence; of a prompt, where text is generated.
    pub seq: usize,
    pub batch: usize,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// A training step.
    Step,
    /// Greedy generation with a key/value cache.
    Generate,
    /// Saving weights and moments to the disk.
    Checkpoint,
}

impl Measure {
    /// What is counted for each second.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Step | Self::Generate => "tokens",
            Self::Checkpoint => "MiB",
        }
    }
}

/// The shapes of the series `moe`: experts of one width, four for each token, and a dense model of equal active width.
const SERIES: [&str; 5] = ["moe-dense", "moe-4", "moe-16", "moe-64", "moe-256"];

/// `demo`, `151m` and `1.2b` are the presets of hybridnorm-core; a test holds them together.
fn table() -> Vec<Shape> {
    let shape = |name: &str, d_model, (heads, kv_heads), ffn, layers| Shape {
        name: name.to_owned(),
        d_model,
        layers,
        heads,
        kv_heads,
        ffn,
        experts: None,
        measure: Measure::Step,
        vocab: 100_352,
        tied: true,
        seq: 1024,
        batch: 1,
    };
    let mut shapes = vec![
        // 6.3M parameters, the yardstick of docs/performance.md.
        Shape {
            vocab: 4096,
            tied: false,
            seq: 256,
            batch: 4,
            ..shape("6m", 256, (8, 8), 1024, 4)
        },
        Shape {
            vocab: 320,
            seq: 256,
            batch: 8,
            ..shape("demo", 128, (4, 2), 352, 4)
        },
        shape("151m", 768, (16, 4), 2048, 12),
        shape("1.2b", 2048, (32, 8), 8192, 16),
    ];
    shapes.extend(SERIES.map(|name| {
        let experts = name
            .strip_prefix("moe-")
            .and_then(|number| number.parse().ok());
        Shape {
            experts: experts.map(|experts| (experts, 4)),
            vocab: 4096,
            tied: false,
            seq: 256,
            batch: 8,
            ..shape(
                name,
                256,
                (8, 2),
                if experts.is_some() { 256 } else { 1024 },
                4,
            )
        }
    }));
    shapes
}

/// The shapes and texts side by side of the series `generate`.
const GENERATION: [(&str, usize); 4] = [("6m", 1), ("6m", 8), ("demo", 1), ("demo", 8)];
/// Tokens of its prompts.
const PROMPT: usize = 16;

/// The shapes of the series `checkpoint`.
const CHECKPOINTS: [&str; 2] = ["6m", "151m"];

/// One shape, or for `moe`, `generate` and `checkpoint` and what is changed of it all of that series.
pub fn shapes(text: &str) -> Result<Vec<Shape>, String> {
    let (name, changes) = text.split_once(':').unwrap_or((text, ""));
    match name {
        "generate" => {
            let mut series = Vec::new();
            for (shape, batch) in GENERATION {
                let mut shape: Shape = shape.parse()?;
                (shape.measure, shape.seq, shape.batch) = (Measure::Generate, PROMPT, batch);
                shape.change(changes)?;
                series.push(shape);
            }
            Ok(series)
        }
        "checkpoint" if changes.is_empty() => CHECKPOINTS
            .iter()
            .map(|shape| {
                Ok(Shape {
                    measure: Measure::Checkpoint,
                    ..shape.parse()?
                })
            })
            .collect(),
        "checkpoint" => Err("nothing of `checkpoint` can be changed".to_owned()),
        "moe" => SERIES
            .iter()
            .map(|shape| format!("{shape}:{changes}").parse())
            .collect(),
        _ => text.parse().map(|shape| vec![shape]),
    }
}

impl Shape {
    /// Takes the changes after the colon: `seq=4096,batch=2`.
    fn change(&mut self, changes: &str) -> Result<(), String> {
        for change in changes.split(',').filter(|change| !change.is_empty()) {
            let (key, value) = change.split_once('=').unwrap_or((change, ""));
            let field = match key {
                "seq" => &mut self.seq,
                "batch" => &mut self.batch,
                _ => return Err(format!("`{key}` cannot be changed: allowed are seq, batch")),
            };
            *field = value
                .parse()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| format!("{key} is `{value}`: allowed are 1, 2, 3, ..."))?;
        }
        Ok(())
    }

    /// The flags that both `hybridnorm-train bench` and the scripts in `bench/` take.
    pub fn flags(&self) -> Vec<String> {
        let mut numbers = vec![
            ("--d-model", self.d_model),
            ("--layers", self.layers),
            ("--heads", self.heads),
            ("--kv-heads", self.kv_heads),
            ("--ffn", self.ffn),
            ("--vocab", self.vocab),
        ];
        if self.measure != Measure::Checkpoint {
            numbers.extend([("--seq", self.seq), ("--batch", self.batch)]);
        }
        if let Some((experts, top_k)) = self.experts {
            numbers.extend([("--experts", experts), ("--top-k", top_k)]);
        }
        let mut flags: Vec<String> = numbers
            .iter()
            .flat_map(|(flag, number)| [(*flag).to_owned(), number.to_string()])
            .collect();
        flags.extend(["--placement", "hybrid-star"].map(str::to_owned));
        if self.tied {
            flags.push("--tied".to_owned());
        }
        flags
    }
}

impl FromStr for Shape {
    type Err = String;

    /// `151m`, or `151m:seq=4096,batch=2`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, changes) = text.split_once(':').unwrap_or((text, ""));
        let mut shape = table()
            .into_iter()
            .find(|shape| shape.name == name)
            .ok_or_else(|| {
                let names: Vec<String> = table().into_iter().map(|shape| shape.name).collect();
                format!(
                    "`{name}` is no shape: allowed are checkpoint, generate, moe, {}",
                    names.join(", ")
                )
            })?;
        shape.change(changes)?;
        Ok(shape)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name, seq, batch, ..
        } = self;
        match self.measure {
            Measure::Step => write!(f, "{name} seq {seq} batch {batch}"),
            Measure::Generate => write!(f, "{name} generate, prompt {seq} batch {batch}"),
            Measure::Checkpoint => write!(f, "{name} checkpoint"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_is_a_series_of_its_own() {
        let series = shapes("generate:seq=32").unwrap();
        assert_eq!(series.len(), GENERATION.len());
        assert!(
            series
                .iter()
                .all(|shape| shape.measure == Measure::Generate && shape.seq == 32)
        );
        assert_eq!(series[1].to_string(), "6m generate, prompt 32 batch 8");
        assert!(shapes("generate:sqe=32").is_err());
    }

    #[test]
    fn a_checkpoint_has_no_batch() {
        let series = shapes("checkpoint").unwrap();
        assert_eq!(series[1].to_string(), "151m checkpoint");
        assert!(!series[0].flags().contains(&"--batch".to_owned()));
        assert!(shapes("checkpoint:batch=2").is_err());
    }

    #[test]
    fn a_shape_is_a_name_and_what_is_changed_of_it() {
        let shape: Shape = "151m:seq=4096,batch=2".parse().unwrap();
        assert_eq!((shape.seq, shape.batch, shape.layers), (4096, 2, 12));
        assert_eq!(shape.to_string(), "151m seq 4096 batch 2");
        let flags = shape.flags().join(" ");
        assert!(
            flags.contains("--seq 4096 --batch 2") && flags.contains("--tied"),
            "{flags}"
        );
        let untied: Shape = "6m".parse().unwrap();
        assert!(!untied.flags().contains(&"--tied".to_owned()));
    }

    #[test]
    fn the_sparse_series_has_one_width_and_one_top_k() {
        let series = shapes("moe:batch=2").unwrap();
        let experts: Vec<_> = series.iter().map(|shape| shape.experts).collect();
        assert_eq!(
            experts,
            [
                None,
                Some((4, 4)),
                Some((16, 4)),
                Some((64, 4)),
                Some((256, 4))
            ]
        );
        for shape in &series {
            let active = shape.experts.map_or(1, |(_, top_k)| top_k) * shape.ffn;
            assert_eq!((active, shape.batch), (1024, 2), "{shape}");
        }
        let flags = series[3].flags().join(" ");
        assert!(
            flags.contains("--ffn 256") && flags.contains("--experts 64 --top-k 4"),
            "{flags}"
        );
        assert!(!series[0].flags().contains(&"--experts".to_owned()));
        assert_eq!(shapes("6m").unwrap(), ["6m".parse().unwrap()]);
    }

    #[test]
    fn other_words_are_refused_by_name() {
        for (text, named) in [
            ("7m", "`7m`"),
            ("", "``"),
            ("6m:seq=0", "seq is `0`"),
            ("6m:seq", "seq is ``"),
            ("6m:batch=-1", "batch is `-1`"),
            ("6m:ffn=4", "`ffn`"),
        ] {
            let message = text.parse::<Shape>().unwrap_err();
            assert!(message.contains(named), "{text:?}: {message}");
        }
    }

    /// The presets stand in a crate that this light program does not build.
    #[test]
    fn preset_shapes_are_those_of_the_library() {
        let presets = include_str!("../../../crates/hybridnorm-core/src/presets.rs");
        assert!(presets.contains("dense(768, 2048, (16, 4), 12)"));
        assert!(presets.contains("dense(2048, 8192, (32, 8), 16)"));
        for line in [
            "n_kv_heads: 2,",
            "d_ff: 352,",
            "padded_vocab_size: 320,",
            "padded_vocab_size: 100_352,",
            "DecoderConfig::new(257, 128, 4, 4)",
        ] {
            assert!(presets.contains(line), "presets.rs has no `{line}`");
        }
    }
}
