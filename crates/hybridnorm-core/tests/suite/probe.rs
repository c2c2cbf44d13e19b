//! What a pass reports of its layers, beside plain loops in f64 over the values of the same pass.

use burn::tensor::{Device, Int, Tensor, TensorData};
use hybridnorm_core::trace::{Branch, Op, Trace};
use hybridnorm_core::{DecoderConfig, LayerFigures, Pass, ProbeFigures};
use hybridnorm_testing::{apply, every_device, values};

/// A number of f32 after sums of some hundred terms.
const TOLERANCE: f64 = 2e-5;

/// What to compute with.
struct Case {
    config: DecoderConfig,
    batch: usize,
    seq: usize,
    /// `[batch, seq]`, if documents are kept apart.
    documents: Option<Vec<i32>>,
}

impl Case {
    fn tokens(&self) -> Vec<i32> {
        let tokens = 0..self.batch * self.seq;
        let vocab = self.config.vocab_size;
        tokens.map(|i| (i * i * 7 % vocab) as i32).collect()
    }

    fn pass(&self, device: &Device) -> Pass {
        match &self.documents {
            Some(numbers) => Pass::documents(Tensor::from_data(
                TensorData::new(numbers.clone(), [self.batch, self.seq]),
                device,
            )),
            None => Pass::causal(),
        }
    }

    /// What the pass reports, and every value of it.
    fn run(&self, device: &Device) -> (ProbeFigures, Trace) {
        let model = self.config.init(device).unwrap();
        let tokens = TensorData::new(self.tokens(), [self.batch, self.seq]);
        let tokens = Tensor::<2, Int>::from_data(tokens, device);
        let mut plain = self.pass(device).traced();
        let logits = values(model.forward_in(tokens.clone(), &mut plain));
        let mut pass = self.pass(device).probed();
        let probed = values(model.forward_in(tokens.clone(), &mut pass));
        assert_eq!(logits, probed, "probing changes the pass");
        let mut both = self.pass(device).traced().probed();
        model.forward_in(tokens, &mut both);
        let (plain, figures) = (plain.into_trace().unwrap(), pass.into_probe().unwrap());
        let places = |trace: &Trace| {
            let values = trace.values().iter();
            values.map(|(place, _)| *place).collect::<Vec<_>>()
        };
        assert_eq!(places(&plain), places(&both.into_trace().unwrap()));
        (figures.read().unwrap(), plain)
    }

    /// Whether query `i` of a sequence may see key `j`.
    fn sees(&self, sequence: usize, i: usize, j: usize) -> bool {
        let window = self.config.sliding_window.unwrap_or(self.seq);
        let document = |at: usize| {
            let documents = self.documents.as_ref();
            documents.map(|numbers| numbers[sequence * self.seq + at])
        };
        j <= i && i - j < window && document(i) == document(j)
    }

    /// Entropy of each head and the largest score, from rotated queries `[batch, heads, seq, d]` and keys.
    fn attention(&self, query: &[f64], key: &[f64]) -> (Vec<f64>, f64) {
        let DecoderConfig {
            n_heads: heads,
            n_kv_heads: kv,
            attention_softcap: cap,
            ..
        } = self.config;
        let (d, seq) = (self.config.head_dim(), self.seq);
        let scale = 1.0 / (d as f64).sqrt();
        let (mut entropy, mut largest) = (vec![0.0; heads], f64::NEG_INFINITY);
        for sequence in 0..self.batch {
            for (head, entropy) in entropy.iter_mut().enumerate() {
                let group = head / (heads / kv);
                let row = |x: &[f64], heads: usize, head: usize, at: usize| {
                    let start = ((sequence * heads + head) * seq + at) * d;
                    x[start..start + d].to_vec()
                };
                for i in 0..seq {
                    let q = row(query, heads, head, i);
                    let keys = (0..=i).filter(|j| self.sees(sequence, i, *j));
                    let scores = keys.map(|j| {
                        let k = row(key, kv, group, j);
                        let score: f64 = q.iter().zip(&k).map(|(a, b)| a * b).sum();
                        let score = score * scale;
                        cap.map_or(score, |cap| cap * (score / cap).tanh())
                    });
                    let scores: Vec<f64> = scores.collect();
                    largest = scores.iter().copied().fold(largest, f64::max);
                    let total: f64 = scores.iter().map(|score| score.exp()).sum();
                    let chances = scores.iter().map(|score| score.exp() / total);
                    *entropy -= chances.map(|p| p * p.ln()).sum::<f64>();
                }
            }
        }
        let rows = (self.batch * seq) as f64;
        (entropy.iter().map(|sum| sum / rows).collect(), largest)
    }

    /// RMS, and the mean cosine of all pairs, of a stream `[batch, seq, d_model]`.
    fn stream(&self, x: &[f64]) -> (f64, f64) {
        let (d, seq) = (self.config.d_model, self.seq);
        let rms = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (mut sum, mut pairs) = (0.0, 0.0);
        for sequence in x.chunks(seq * d) {
            let tokens: Vec<&[f64]> = sequence.chunks(d).collect();
            for (i, a) in tokens.iter().enumerate() {
                for b in &tokens[..i] {
                    sum += dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
                    pairs += 1.0;
                }
            }
        }
        (rms, sum / pairs)
    }

    fn check(&self, device: &Device) {
        let (figures, trace) = self.run(device);
        let last = |layer: Option<usize>, op: Option<Op>| {
            let found = trace.values().iter().rev().find(|(place, _)| {
                let embedding = [Op::Embedding, Op::EmbeddingNorm].contains(&place.op);
                place.layer == layer
                    && op.is_none_or(|op| place.op == op && place.branch == Some(Branch::Attention))
                    && (layer.is_some() || embedding)
            });
            values(found.unwrap().1.clone())
        };
        let near = |what: &str, got: f64, expected: f64, scale: f64| {
            let error = (got - expected).abs();
            assert!(error <= TOLERANCE * scale, "{what}: {got}, not {expected}");
        };
        let (rms, similarity) = self.stream(&last(None, None));
        near("embedding", figures.embedding.rms, rms, rms);
        let found = figures.embedding.token_similarity;
        near("embedding", found, similarity, 1.0);
        assert_eq!(figures.layers.len(), self.config.n_layers);
        for (layer, found) in figures.layers.iter().enumerate() {
            let LayerFigures {
                stream, entropy, ..
            } = found;
            let (rms, similarity) = self.stream(&last(Some(layer), None));
            near("RMS", stream.rms, rms, rms);
            near("similarity", stream.token_similarity, similarity, 1.0);
            let [query, key] = [Op::QueryRotation, Op::KeyRotation];
            let [query, key] = [query, key].map(|op| last(Some(layer), Some(op)));
            let (entropies, largest) = self.attention(&query, &key);
            near("largest", found.largest_logit, largest, largest.abs());
            assert_eq!(entropy.len(), self.config.n_heads);
            for (found, expected) in entropy.iter().zip(&entropies) {
                near("entropy", *found, *expected, 1.0);
            }
            let least = entropies.iter().copied().fold(f64::INFINITY, f64::min);
            near("least", found.least_entropy(), least, 1.0);
            let mean = entropies.iter().sum::<f64>() / entropies.len() as f64;
            near("mean", found.mean_entropy(), mean, 1.0);
        }
    }
}

/// Four query heads on two of keys, with weights large enough that attention prefers something.
fn config(placement: &str) -> DecoderConfig {
    let mut config = DecoderConfig {
        n_kv_heads: 2,
        placement: placement.parse().unwrap(),
        ..DecoderConfig::new(29, 16, 4, 3)
    };
    config.init.std = Some(0.7);
    config
}

#[apply(every_device!)]
fn figures_are_those_of_plain_loops(
    #[case] device: &Device,
    #[values("pre", "post", "hybrid-star", "peri-ln")] placement: &str,
) {
    Case {
        config: config(placement),
        batch: 3,
        seq: 11,
        documents: None,
    }
    .check(device);
}

#[apply(every_device!)]
fn what_is_masked_is_not_seen(#[case] device: &Device) {
    let documents = [
        0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 0, 1, 1, 1, 1, 1, 1, 1, 2, 3, 3,
    ];
    Case {
        config: DecoderConfig {
            sliding_window: Some(3),
            attention_softcap: Some(1.5),
            ..config("pre")
        },
        batch: 2,
        seq: 11,
        documents: Some(documents.to_vec()),
    }
    .check(device);
}

/// So many scores that attention is looked at in four blocks of queries.
#[apply(every_device!)]
fn blocks_of_queries_add_up(#[case] device: &Device) {
    let documents = (0..2048).map(|at| at / 700).collect();
    Case {
        config: DecoderConfig {
            sliding_window: Some(1500),
            ..DecoderConfig::new(29, 8, 2, 1)
        },
        batch: 1,
        seq: 2048,
        documents: Some(documents),
    }
    .check(device);
}

/// One token has nothing to be similar to, and only itself to attend to.
#[apply(every_device!)]
fn one_token_is_no_pair(#[case] device: &Device) {
    let case = Case {
        config: config("pre"),
        batch: 2,
        seq: 1,
        documents: None,
    };
    let (figures, _) = case.run(device);
    assert!(figures.embedding.token_similarity.is_nan());
    assert!(figures.embedding.rms > 0.0);
    assert!(
        figures
            .layers
            .iter()
            .all(|layer| layer.mean_entropy().abs() < 1e-6)
    );
}
