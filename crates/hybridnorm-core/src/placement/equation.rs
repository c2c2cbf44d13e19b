//! Layers as the equations they compute.

use core::fmt;

use super::layer::{LayerNorms, NormSpan, QkvNormSites, ResidualNorms};

/// `Y = X + Attn_QKV(X); X⁺ = N(Y) + FFN(N(Y))`
impl fmt::Display for LayerNorms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attention = format!("Attn{}", self.qkv);
        write!(
            f,
            "Y = {}; X⁺ = {}",
            sum(&self.attention, "X", &attention),
            sum(&self.feed_forward, "Y", "FFN")
        )
    }
}

/// `_QKV` per head, `_QK(full)` over the full width, nothing for plain attention.
impl fmt::Display for QkvNormSites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sites = [
            ("Q", self.query),
            ("K", self.key),
            ("V", self.value),
            ("C", self.context),
        ];
        let letters: String = sites
            .iter()
            .filter(|(_, site)| site.is_some())
            .map(|(letter, _)| *letter)
            .collect();
        if letters.is_empty() {
            return Ok(());
        }
        let full = sites
            .iter()
            .any(|(_, site)| site.is_some_and(|site| site.span == NormSpan::FullWidth));
        write!(f, "_{letters}{}", if full { "(full)" } else { "" })
    }
}

fn sum(norms: &ResidualNorms, x: &str, branch: &str) -> String {
    let normed = |wanted: bool, text: String| if wanted { format!("N({text})") } else { text };
    let scaled = |factor: f64, text: String| {
        if factor == 1.0 {
            text
        } else {
            format!("{}·{text}", number(factor))
        }
    };
    let source = normed(norms.stream, x.to_string());
    let input = scaled(norms.input_scale, normed(norms.input, source.clone()));
    let output = normed(norms.output, format!("{branch}({input})"));
    normed(
        norms.after,
        format!(
            "{} + {}",
            scaled(norms.alpha, source),
            scaled(norms.beta, output)
        ),
    )
}

/// Four significant decimals, without trailing zeros.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The equations of a whole model, one line for each run of equal layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Equations(Vec<LayerNorms>);

impl Equations {
    pub(super) fn new(layers: Vec<LayerNorms>) -> Self {
        Self(layers)
    }

    /// `(first layer, last layer, norms)` of each run of equal layers.
    pub fn runs(&self) -> Vec<(usize, usize, &LayerNorms)> {
        let mut runs: Vec<(usize, usize, &LayerNorms)> = Vec::new();
        for (layer, norms) in self.0.iter().enumerate() {
            match runs.last_mut() {
                Some((_, last, run)) if *run == norms => *last = layer,
                _ => runs.push((layer, layer, norms)),
            }
        }
        runs
    }
}

impl fmt::Display for Equations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last, norms)) in self.runs().into_iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            if first == last {
                write!(f, "layer {first}: {norms}")?;
            } else {
                write!(f, "layers {first}-{last}: {norms}")?;
            }
        }
        Ok(())
    }
}
