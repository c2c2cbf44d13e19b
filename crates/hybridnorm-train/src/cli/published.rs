//! A published model in words: what `plan --hf` and `import` show.

use core::fmt;

use hybridnorm_core::{Activation, RopeScaling, RotaryConfig};
use hybridnorm_interop::hugging_face::{Architecture, Imported};
use hybridnorm_interop::{Pretrained, Tensors};
use hybridnorm_moe::ModelConfig;

use crate::memory::in_words;
use crate::sizes::{Experts, Parameters, counted, thousands};

/// A published model as it is shown.
pub(super) struct Published<'a> {
    architecture: &'static Architecture,
    model: &'a ModelConfig,
    folder: String,
}

impl<'a> Published<'a> {
    /// An opened folder.
    pub fn of(folder: &'a Pretrained) -> Self {
        let tensors = folder.tensors();
        let files = counted(tensors.files() as u64, "file");
        Self {
            architecture: folder.architecture(),
            model: folder.config(),
            folder: format!(
                "{}, {} tensors of {} in {files}",
                folder.dir().display(),
                thousands(tensors.names().len() as u64),
                in_words(tensors.bytes()),
            ),
        }
    }
}

impl<'a> Published<'a> {
    /// A configuration alone, and where it is from.
    pub fn of_config(imported: &'a Imported, folder: String) -> Self {
        Self {
            architecture: imported.architecture,
            model: &imported.model,
            folder,
        }
    }
}

impl fmt::Display for Published<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decoder = &self.model.decoder;
        let Architecture {
            model_type,
            class,
            summary,
            ..
        } = self.architecture;
        writeln!(f, "folder    {}", self.folder)?;
        writeln!(f, "model     {model_type} ({class}): {summary}")?;
        let parameters = Parameters::of(self.model).map_err(|_| fmt::Error)?;
        let activation = match decoder.activation {
            Activation::SwiGlu => "SwiGLU",
            Activation::GeGlu => "GeGLU",
            Activation::GeGluExact => "GeGLU, exact",
            Activation::ReGlu => "ReGLU",
            Activation::Gelu => "GELU",
            Activation::Relu => "ReLU",
        };
        writeln!(
            f,
            "          {parameters}: {} layers, width {}, feed-forward {} ({activation}), {} heads of {} on {} key/value heads",
            decoder.n_layers,
            decoder.d_model,
            decoder.d_ff,
            decoder.n_heads,
            decoder.head_dim(),
            decoder.n_kv_heads,
        )?;
        writeln!(
            f,
            "          vocabulary {}; head {}; up to {} tokens",
            thousands(decoder.padded_vocab_size as u64),
            if decoder.tied { "tied" } else { "untied" },
            thousands(decoder.max_seq_len as u64),
        )?;
        if let Some(experts) = Experts::of(self.model) {
            writeln!(f, "experts   {experts}")?;
        }
        writeln!(f, "placement {}", decoder.placement)?;
        let equations = decoder.placement.equations(decoder.n_layers);
        for line in equations.map_err(|_| fmt::Error)?.to_string().lines() {
            writeln!(f, "          {line}")?;
        }
        write!(f, "positions {}", Rotary(&decoder.rope))?;
        if let Some(local) = &decoder.local_rope {
            write!(f, "; in layers with a window {}", Rotary(local))?;
        }
        writeln!(f)?;
        if let Some(window) = decoder.sliding_window {
            let layers = decoder.n_layers;
            let local = layers - decoder.global_layers.len();
            writeln!(f, "window    {window} tokens in {local} of {layers} layers")?;
        }
        let mut notes = Vec::new();
        if decoder.norm.unit_offset {
            notes.push("norms scale by 1 + weight".to_string());
        }
        if let Some(scale) = decoder.embedding_scale {
            notes.push(format!("embedding times {scale:.4}"));
        }
        if let Some(scale) = decoder.softmax_scale {
            notes.push(format!("scores times {scale:.4}"));
        }
        if let Some(cap) = decoder.attention_softcap {
            notes.push(format!("scores capped at {cap}"));
        }
        if let Some(cap) = decoder.logit_softcap {
            notes.push(format!("logits capped at {cap}"));
        }
        if let Some(clip) = decoder.clip_qkv {
            notes.push(format!("queries, keys and values clamped to ±{clip}"));
        }
        for (part, bias) in [
            ("attention", decoder.attention_bias),
            ("feed-forward layers", decoder.feed_forward_bias),
        ] {
            if bias == Some(true) {
                notes.push(format!("biases on {part}"));
            }
        }
        if !notes.is_empty() {
            writeln!(f, "besides   {}", notes.join("; "))?;
        }
        Ok(())
    }
}

struct Rotary<'a>(&'a RotaryConfig);

impl fmt::Display for Rotary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RotaryConfig { theta, scaling } = self.0;
        write!(f, "RoPE, base {theta}")?;
        match scaling {
            None => Ok(()),
            Some(RopeScaling::Linear(linear)) => {
                write!(f, ", linear: {} times as long", linear.factor)
            }
            Some(RopeScaling::Llama3(llama)) => write!(
                f,
                ", llama3: {} times as long as {}",
                llama.factor, llama.original_max_position
            ),
            Some(RopeScaling::Yarn(yarn)) => write!(
                f,
                ", yarn: {} times as long as {}, queries and keys times {:.4}",
                yarn.factor, yarn.original_max_position, yarn.attention_factor
            ),
        }
    }
}
