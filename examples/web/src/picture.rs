//! Blocks as pictures: drawn from the records of a placement, from which the model itself is built.

use core::fmt::Write;

use hybridnorm_core::{ConfigError, LayerNorms, NormSite, NormSpan, Placement, ResidualNorms};

/// Width of a picture.
const WIDTH: f64 = 270.0;
/// Where the residual stream runs, and where the branches do.
const STREAM: f64 = 62.0;
const BRANCH: f64 = 182.0;
/// Height of a box, and the space between two.
const BOX: f64 = 30.0;
const GAP: f64 = 16.0;

/// The picture of layers that are alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// `layer 0`, `layers 1-11`.
    pub layers: String,
    /// What they compute.
    pub equation: String,
    /// The picture, an `svg` element. Its colours are the page's: the classes are `line`, `norm`, `part`, `site` and `on`.
    pub svg: String,
}

/// A picture for each run of equal layers of a model of `n_layers`.
///
/// # Errors
/// When the placement does not fit the number of layers.
pub fn pictures(placement: &Placement, n_layers: usize) -> Result<Vec<Picture>, ConfigError> {
    let equations = placement.equations(n_layers)?;
    let runs = equations.runs().into_iter();
    Ok(runs
        .map(|(first, last, norms)| Picture {
            layers: match first == last {
                true => format!("layer {first}"),
                false => format!("layers {first}-{last}"),
            },
            equation: norms.to_string(),
            svg: block(norms),
        })
        .collect())
}

/// One block, from its input `X` at the top to its output at the bottom.
fn block(norms: &LayerNorms) -> String {
    let mut drawing = Drawing {
        svg: String::new(),
        y: 26.0,
    };
    drawing.label("X");
    drawing.sublayer(&norms.attention, |drawing| drawing.attention(norms));
    drawing.label("Y");
    drawing.sublayer(&norms.feed_forward, |drawing| {
        drawing.boxed(BRANCH, 124.0, "part", "feed-forward");
    });
    drawing.label("X⁺");
    let height = drawing.y + 6.0;
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{norms}\">{}</svg>",
        drawing.svg
    )
}

/// A drawing that grows downwards.
struct Drawing {
    svg: String,
    /// How far it has come.
    y: f64,
}

impl Drawing {
    /// `s = stream(x); y = after(α·s + β·output(F(input(s))))`.
    fn sublayer(&mut self, norms: &ResidualNorms, branch: impl FnOnce(&mut Self)) {
        let start = self.y;
        self.y += GAP;
        if norms.stream {
            self.norm(STREAM);
            self.y += GAP;
        }
        let split = self.y;
        self.line(STREAM, start, STREAM, split);
        self.y += GAP;
        if norms.input {
            self.norm(BRANCH);
            self.y += GAP;
        }
        if norms.input_scale != 1.0 {
            self.factor(BRANCH, self.y, norms.input_scale);
        }
        branch(self);
        self.y += GAP;
        if norms.output {
            self.norm(BRANCH);
            self.y += GAP;
        }
        if norms.beta != 1.0 {
            self.factor(BRANCH, self.y, norms.beta);
        }
        let join = self.y;
        // Behind the boxes: the way of the branch, and the residual.
        let ways = format!(
            "<path class=\"line\" d=\"M{STREAM} {split}H{BRANCH}V{join}H{}M{STREAM} {split}V{}\"/>",
            STREAM + 9.0,
            join - 9.0,
        );
        self.svg.insert_str(0, &ways);
        if norms.alpha != 1.0 {
            self.factor(STREAM - 50.0, (split + join) / 2.0, norms.alpha);
        }
        let plus = format!(
            "<g class=\"sum\"><circle cx=\"{STREAM}\" cy=\"{join}\" r=\"9\"/><path class=\"line\" d=\"M{} {join}h10m-5 -5v10\"/></g>",
            STREAM - 5.0
        );
        self.svg += &plus;
        self.y = join + 9.0;
        if norms.after {
            self.line(STREAM, self.y, STREAM, self.y + GAP);
            self.y += GAP;
            self.norm(STREAM);
        }
        self.line(STREAM, self.y, STREAM, self.y + GAP);
        self.y += GAP + 18.0;
    }

    /// Attention, and which of its own tensors are normed.
    fn attention(&mut self, norms: &LayerNorms) {
        let qkv = &norms.qkv;
        let sites = [
            ("Q", qkv.query),
            ("K", qkv.key),
            ("V", qkv.value),
            ("C", qkv.context),
        ];
        let (height, top) = (64.0, self.y);
        self.rectangle(BRANCH, 148.0, height, "part");
        self.text(BRANCH, top + 20.0, "attention");
        for (place, (letter, site)) in sites.into_iter().enumerate() {
            let x = BRANCH - 52.5 + 35.0 * place as f64;
            self.site(x, top + 46.0, letter, site);
        }
        self.y = top + height;
    }

    fn site(&mut self, x: f64, y: f64, letter: &str, site: Option<NormSite>) {
        let (class, words) = match site {
            None => ("site", format!("{letter}: no norm")),
            Some(NormSite { span, .. }) => {
                let over = match span {
                    NormSpan::PerHead => "head by head",
                    NormSpan::FullWidth => "over all heads",
                };
                ("site on", format!("{letter}: normed {over}"))
            }
        };
        let text = match site {
            None => letter.to_string(),
            Some(_) => format!("N({letter})"),
        };
        let (left, top) = (x - 16.0, y - 11.0);
        let _ = write!(
            self.svg,
            "<g class=\"{class}\"><title>{words}</title><rect x=\"{left}\" y=\"{top}\" width=\"32\" height=\"22\" rx=\"4\"/><text x=\"{x}\" y=\"{}\">{text}</text></g>",
            y + 4.0
        );
    }

    fn norm(&mut self, x: f64) {
        self.boxed(x, 56.0, "norm", "norm");
    }

    fn boxed(&mut self, x: f64, width: f64, class: &str, text: &str) {
        let y = self.y;
        self.rectangle(x, width, BOX, class);
        self.text(x, y + BOX / 2.0 + 4.0, text);
        self.y = y + BOX;
    }

    fn rectangle(&mut self, x: f64, width: f64, height: f64, class: &str) {
        let (left, y) = (x - width / 2.0, self.y);
        let _ = write!(
            self.svg,
            "<rect class=\"{class}\" x=\"{left}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>"
        );
    }

    fn text(&mut self, x: f64, y: f64, text: &str) {
        let _ = write!(self.svg, "<text x=\"{x}\" y=\"{y}\">{text}</text>");
    }

    /// The name of the stream at this place.
    fn label(&mut self, text: &str) {
        self.text(STREAM, self.y - 6.0, text);
    }

    /// A factor beside the line that it stands on.
    fn factor(&mut self, x: f64, y: f64, factor: f64) {
        self.text(x + 26.0, y - 4.0, &format!("×{factor:.2}"));
    }

    fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64) {
        let way = format!("<path class=\"line\" d=\"M{x1} {y1}L{x2} {y2}\"/>");
        self.svg.insert_str(0, &way);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybridnorm_core::PLACEMENTS;

    /// What the records of every placement say is what its pictures show, layer by layer.
    #[test]
    fn every_norm_is_drawn() {
        for row in PLACEMENTS {
            let placement = Placement::from(row);
            let pictures = pictures(&placement, 12).unwrap();
            let equations = placement.equations(12).unwrap();
            assert_eq!(pictures.len(), equations.runs().len(), "{}", row.name);
            for (picture, (_, _, norms)) in pictures.iter().zip(equations.runs()) {
                let count = |what: &str| picture.svg.matches(what).count();
                let sublayers = [&norms.attention, &norms.feed_forward];
                let around = sublayers.map(|n| [n.stream, n.input, n.output, n.after]);
                let around = around.as_flattened().iter().filter(|norm| **norm).count();
                assert_eq!(count("class=\"norm\""), around, "{}", row.name);
                let factors = sublayers.map(|n| [n.alpha, n.beta, n.input_scale]);
                let factors = factors.as_flattened().iter().filter(|f| **f != 1.0).count();
                assert_eq!(count("×"), factors, "{}", row.name);
                // The letters behind `Attn_` in the equation.
                let attention = picture.equation.split("Attn").nth(1).unwrap();
                let letters = attention.split('(').next().unwrap();
                let letters = letters.chars().filter(|c| "QKVC".contains(*c));
                assert_eq!(count("class=\"site on\""), letters.count(), "{}", row.name);
                assert_eq!(count("class=\"sum\""), 2);
            }
        }
    }

    #[test]
    fn layers_that_are_alike_are_drawn_once() {
        let layers = |name: &str| -> Vec<String> {
            let drawn = pictures(&name.parse().unwrap(), 6).unwrap();
            drawn.into_iter().map(|picture| picture.layers).collect()
        };
        assert_eq!(layers("pre"), ["layers 0-5"]);
        assert_eq!(layers("hybrid-star"), ["layer 0", "layers 1-5"]);
    }
}
