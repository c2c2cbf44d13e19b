//! The model card: `README.md` of an exported folder, from the run's configuration and log.

use core::fmt;
use std::ffi::OsStr;
use std::path::Path;

use hybridnorm_interop::export::{Export, WeightType, Written};

use super::Parity;
use super::figures::Figures;
use crate::shell::{python, word};
use crate::sizes::{Experts, Parameters, thousands};
use crate::stored::Stored;

/// What a card is made of.
pub struct Card<'a> {
    pub source: &'a Stored,
    pub export: &'a Export,
    pub written: &'a Written,
    pub dtype: WeightType,
    pub parity: &'a Parity,
    /// The folder's name.
    pub name: &'a OsStr,
}

impl fmt::Display for Card<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header(f)?;
        self.model(f)?;
        self.data(f)?;
        self.recipe(f)?;
        self.figures(f)?;
        self.use_of_it(f)
    }
}

impl Card<'_> {
    /// What the Hub's pages read. The licence is the author's to choose.
    fn header(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- hybridnorm"
        )?;
        if let Some(row) = self.source.config.model.placement.row() {
            writeln!(f, "- {}", row.name)?;
        }
        if self.source.config.sparse.is_some() {
            writeln!(f, "- mixture-of-experts")?;
        }
        if self.export.needs_code() {
            writeln!(f, "- custom_code")?;
        }
        writeln!(f, "---\n\n# {}\n", self.name.to_string_lossy())
    }

    fn model(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.source.model_config();
        let c = &model.decoder;
        let parameters = Parameters::of(&model).map_err(|_| fmt::Error)?;
        let origin = match &self.source.published {
            None => "trained from scratch".to_string(),
            Some(published) if self.source.state.step == 0 => {
                format!("a published `{}` model, as it was,", published.model_type)
            }
            Some(published) => format!(
                "a published `{}` model, trained further",
                published.model_type
            ),
        };
        writeln!(
            f,
            "A decoder-only transformer with {parameters}: {origin} with [hybridnorm]({}).\n",
            env!("CARGO_PKG_REPOSITORY")
        )?;
        writeln!(f, "| | |\n|---|---|")?;
        let architecture = self.export.architecture();
        writeln!(
            f,
            "| architecture | `{}` (`{}`) |",
            architecture.class, architecture.model_type
        )?;
        let summary = c
            .placement
            .row()
            .map_or("a placement of its own", |row| row.summary);
        writeln!(f, "| norm placement | `{}`: {summary} |", c.placement)?;
        writeln!(f, "| layers, width | {}, {} |", c.n_layers, c.d_model)?;
        let experts = Experts::of(&model);
        if !experts.is_some_and(|experts| experts.everywhere()) {
            writeln!(f, "| width of feed-forward layers | {} |", c.d_ff)?;
        }
        if let Some(experts) = experts {
            writeln!(f, "| experts | {experts} |")?;
        }
        writeln!(
            f,
            "| heads, key/value heads, width of a head | {}, {}, {} |",
            c.n_heads,
            c.n_kv_heads,
            c.head_dim()
        )?;
        let tied = if c.tied { "tied" } else { "untied" };
        writeln!(
            f,
            "| vocabulary | {}; the head is {tied} |",
            thousands(c.vocab_size as u64)
        )?;
        writeln!(
            f,
            "| longest sequence | {} tokens; trained on {} |",
            thousands(c.max_seq_len as u64),
            thousands(self.source.config.training.seq as u64)
        )?;
        let equations = c.placement.equations(c.n_layers).map_err(|_| fmt::Error)?;
        writeln!(
            f,
            "\nWhere the norms stand (`N` is the norm, `X` a block's input, `Attn_QKV` attention with norms on queries, keys and values):\n\n```text\n{}\n```\n",
            equations.to_string().trim_end()
        )
    }

    fn data(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Data\n")?;
        let data = &self.source.config.data;
        // The name alone: where a file lay is nobody's business.
        let name = |path: &Path| {
            path.file_name()
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned()
        };
        match (&data.path, data.sources.as_slice()) {
            (Some(path), _) => writeln!(f, "`{}`", name(path))?,
            (None, []) => writeln!(
                f,
                "The source text of the crates that hybridnorm's `Cargo.lock` pins."
            )?,
            (None, sources) => {
                writeln!(f, "| source | weight |\n|---|---|")?;
                for source in sources {
                    writeln!(f, "| `{}` | {} |", name(&source.path), source.weight)?;
                }
            }
        }
        let tokenizer = match self.source.tokenizer.file() {
            None => "bytes, and one token for the end of a document".to_string(),
            Some(file) => format!("`{}`", name(file)),
        };
        writeln!(
            f,
            "\nTokenizer: {tokenizer}. Texts begin after the token that ends a document.\n"
        )
    }

    fn recipe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (config, state) = (&self.source.config, &self.source.state);
        let (t, schedule, optimizer) = (&config.training, config.schedule(), &config.optimizer);
        writeln!(f, "## Recipe\n\n| | |\n|---|---|")?;
        writeln!(
            f,
            "| checkpoint | step {} of {}: {} tokens |",
            thousands(state.step),
            thousands(t.steps),
            thousands(state.tokens)
        )?;
        writeln!(f, "| batch | {} sequences of {} tokens |", t.batch, t.seq)?;
        writeln!(f, "| optimiser | {optimizer} |")?;
        writeln!(
            f,
            "| learning rate | {} to {}, `{}`, after {} tokens of warm-up |",
            schedule.peak,
            schedule.peak * schedule.floor,
            schedule.shape,
            thousands(schedule.warmup)
        )?;
        writeln!(
            f,
            "| initialisation | `{}`, seed {} |",
            config.model.init_scheme(),
            config.model.init.seed
        )?;
        writeln!(f, "| precision of products | `{}` |", t.precision)?;
        writeln!(f, "| data order | seed {} |", t.seed)?;
        writeln!(f, "| program | hybridnorm-train {} |\n", state.program)
    }

    fn figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = Figures::of(self.source);
        if figures.last.is_none() && figures.evaluation.is_none() {
            return Ok(());
        }
        writeln!(f, "## Figures\n\n| | |\n|---|---|")?;
        if let Some((step, evaluation)) = &figures.evaluation {
            writeln!(
                f,
                "| held-out text, after step {} | {:.4} nats per token, {:.4} bits per byte |",
                thousands(*step),
                evaluation.nats_per_token,
                evaluation.bits_per_byte
            )?;
        }
        if let Some(last) = &figures.last {
            writeln!(
                f,
                "| training loss, step {} | {:.4} nats per token |",
                thousands(last.step),
                last.loss
            )?;
            writeln!(f, "| time | {:.0} s |", self.source.state.elapsed_s)?;
        }
        writeln!(f)
    }

    fn use_of_it(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Path::new(self.name);
        let (string, word) = (python(name), word(name));
        let trust = if self.export.needs_code() {
            ", trust_remote_code=True"
        } else {
            ""
        };
        writeln!(
            f,
            "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             tokenizer = AutoTokenizer.from_pretrained({string}{trust})\n\
             model = AutoModelForCausalLM.from_pretrained({string}{trust})\n\
             inputs = tokenizer(\"Once\", return_tensors=\"pt\")\n\
             print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))\n```\n\n\
             or `hybridnorm-train generate --model {word} --prompt Once`.\n"
        )?;
        if self.export.needs_code() {
            writeln!(
                f,
                "transformers has no such architecture: `modeling_hybridnorm.py` in this folder is the model, \
                 which is why it asks for `trust_remote_code`.\n"
            )?;
        }
        let dtype = match self.dtype {
            WeightType::F32 => "f32, as they were trained",
            WeightType::Bf16 => "bf16, rounded from the f32 they were trained in",
        };
        let rounded = match self.dtype {
            WeightType::F32 => "",
            WeightType::Bf16 => " with its weights rounded",
        };
        let equal = match self.parity.difference == 0.0 {
            true => "equal to the last bit".to_string(),
            false => format!(
                "equal to within {:.1e} where the largest is {:.1}",
                self.parity.difference, self.parity.largest
            ),
        };
        writeln!(
            f,
            "The {} tensors are {dtype}. When the folder was written, it was read back and its logits were compared with the \
             model's{rounded}: {} of them, {equal}.",
            self.written.tensors,
            thousands(self.parity.logits as u64),
        )
    }
}
