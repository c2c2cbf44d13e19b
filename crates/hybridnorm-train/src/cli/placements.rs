//! `placements`: the tables of norm placements, presets and published architectures.

use std::io::Write;

use hybridnorm_core::{PLACEMENTS, Placement};
use hybridnorm_interop::hugging_face::ARCHITECTURES;

use crate::error::Error;
use crate::presets;
use crate::sizes::Parameters;

/// Layers of the equations shown: enough for every rule to show itself.
const LAYERS: usize = 4;

pub(super) fn run(out: &mut impl Write) -> Result<(), Error> {
    let mut text = format!("Placements, with their equations in a model of {LAYERS} layers\n");
    for row in PLACEMENTS {
        text += &format!("\n{} - {}\n", row.name, row.summary);
        if row.embedding_norm {
            text += "    embedding: X = N(embedding)\n";
        }
        let placement = Placement::from(row);
        for line in placement.equations(LAYERS)?.to_string().lines() {
            text += &format!("    {line}\n");
        }
        if !placement.final_norm(LAYERS)? {
            text += "    no norm before the head\n";
        }
        text += &format!("    initialisation: {}\n", row.init);
    }
    text += "\nPresets, with the vocabulary they were published with\n\n";
    for preset in presets::all() {
        let parameters = Parameters::of(&preset.model)?;
        text += &format!(
            "{:<12}{parameters}\n            {}\n",
            preset.name, preset.summary
        );
    }
    text += "\nArchitectures of Hugging Face that can be read (`plan --hf DIR`, `import DIR`), with their placements\n\n";
    for row in ARCHITECTURES {
        text += &format!(
            "{:<12}{}\n            {}\n",
            row.model_type, row.placement, row.summary
        );
    }
    text += "\nTrain with one: hybridnorm-train --placement NAME; hold some against each other on your own data: \
             hybridnorm-train compare --placements NAME,NAME --data FILE\n";
    out.write_all(text.as_bytes()).map_err(Error::Output)
}
