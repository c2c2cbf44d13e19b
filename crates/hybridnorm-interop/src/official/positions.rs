//! `norm_pos_special_config`: per-layer norm positions, a Python literal in the reference, parsed here without `eval`.

use std::collections::BTreeMap;

/// Norm positions of one layer, under the names the reference's special configuration uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Positions {
    pub attn_norm: bool,
    pub attn_residual: bool,
    pub ffn_norm: bool,
    pub ffn_residual: bool,
}

impl Positions {
    fn set(&mut self, key: &str, value: bool) -> Result<(), String> {
        match key {
            "attn_norm" => self.attn_norm = value,
            "attn_residual" => self.attn_residual = value,
            "ffn_norm" => self.ffn_norm = value,
            "ffn_residual" => self.ffn_residual = value,
            _ => {
                return Err(format!(
                    "unknown key '{key}' (known: attn_norm, attn_residual, ffn_norm, ffn_residual)"
                ));
            }
        }
        Ok(())
    }
}

/// The changes for each layer in text such as `_{0:{'attn_norm':True},(1,2):{'ffn_residual':False}}_`.
type Changes = BTreeMap<usize, Vec<Change>>;
/// A key and its new value.
type Change = (String, bool);

/// `base` for every layer, changed as `special` says.
pub(super) fn resolve(
    base: Positions,
    special: &str,
    n_layers: usize,
) -> Result<Vec<Positions>, String> {
    let mut layers = vec![base; n_layers];
    for (layer, changes) in parse(special)? {
        let Some(positions) = layers.get_mut(layer) else {
            return Err(format!("layer {layer} of a model with {n_layers}"));
        };
        for (key, value) in changes {
            positions.set(&key, value)?;
        }
    }
    Ok(layers)
}

fn parse(text: &str) -> Result<Changes, String> {
    let mut changes = Changes::new();
    let text: String = text.trim().trim_matches('_').split_whitespace().collect();
    if text.is_empty() {
        return Ok(changes);
    }
    let mut rest = expect(&text, '{')?;
    while !rest.starts_with('}') {
        let (layers, after) = layer_key(rest)?;
        let (entries, after) = entries(expect(after, ':')?)?;
        for layer in layers {
            changes
                .entry(layer)
                .or_default()
                .extend(entries.iter().cloned());
        }
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    match &rest[1..] {
        "" => Ok(changes),
        more => Err(format!("unexpected '{more}' at the end")),
    }
}

/// `3` or `(0,1)`.
fn layer_key(text: &str) -> Result<(Vec<usize>, &str), String> {
    let (key, rest) = match text.strip_prefix('(') {
        Some(inner) => inner.split_once(')').ok_or("a '(' without ')'")?,
        None => text.split_at(text.find(':').ok_or("a layer without ':'")?),
    };
    let layers = key
        .split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse()
                .map_err(|_| format!("'{part}' is not a layer number"))
        })
        .collect::<Result<_, _>>()?;
    Ok((layers, rest))
}

/// `{'key':True,..}`.
fn entries(text: &str) -> Result<(Vec<Change>, &str), String> {
    let (inner, rest) = expect(text, '{')?
        .split_once('}')
        .ok_or("a '{' without '}'")?;
    let entries = inner
        .split(',')
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let (key, value) = entry.split_once(':').ok_or("an entry without ':'")?;
            let key = key.trim_matches(['\'', '"']).to_string();
            match value {
                "True" | "true" | "1" => Ok((key, true)),
                "False" | "false" | "0" => Ok((key, false)),
                _ => Err(format!("'{value}' is neither True nor False")),
            }
        })
        .collect::<Result<_, String>>()?;
    Ok((entries, rest))
}

fn expect(text: &str, wanted: char) -> Result<&str, String> {
    text.strip_prefix(wanted)
        .ok_or_else(|| format!("'{wanted}' expected before '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: Positions = Positions {
        attn_norm: false,
        attn_residual: false,
        ffn_norm: true,
        ffn_residual: true,
    };
    const PRE: Positions = Positions {
        attn_norm: true,
        ffn_residual: false,
        ..HYBRID
    };

    #[test]
    fn the_released_strings_resolve() {
        let star = "_{0:{'attn_norm':True,'ffn_residual':False}}_";
        assert_eq!(resolve(HYBRID, star, 3), Ok(vec![PRE, HYBRID, HYBRID]));
        let multi = "_{(0,1):{'attn_norm':True,'ffn_residual':False}}_";
        assert_eq!(resolve(HYBRID, multi, 3), Ok(vec![PRE, PRE, HYBRID]));
        let two = "{0: {'attn_norm': True, 'ffn_residual': False}, 2: {'ffn_norm': False}}";
        let last = Positions {
            ffn_norm: false,
            ..HYBRID
        };
        assert_eq!(resolve(HYBRID, two, 3), Ok(vec![PRE, HYBRID, last]));
        assert_eq!(resolve(HYBRID, "", 2), Ok(vec![HYBRID; 2]));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "{0:{'norm':True}}",
            "{5:{}}",
            "{0:{'attn_norm':2}}",
            "{0:",
            "{0:{}}x",
            "(",
            "{a:{}}",
            "{(0:{}}",
        ] {
            assert!(resolve(HYBRID, text, 2).is_err(), "{text}");
        }
    }
}
