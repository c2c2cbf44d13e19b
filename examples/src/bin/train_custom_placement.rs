//! A placement of your own, trained for a minute on real text beside HybridNorm*.
//!
//! `cargo run --release -p hybridnorm-examples --bin train_custom_placement [SECONDS]`

use std::error::Error;
use std::time::{Duration, Instant};

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use hybridnorm_core::{
    Decoder, DecoderConfig, LayerNorms, Placement, QkvNormSites, ResidualNorms, loss,
};
use hybridnorm_train::data::{
    Batches, Corpus, DEFAULT_MAX_BYTES, TextSplit, Tokenizer, VALIDATION_FRACTION,
};
use hybridnorm_train::recipe::{AdamWConfig, GradientNorms, Optimizer, clip_coefficient};

const SEQ: usize = 128;
const BATCH: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args()
        .nth(1)
        .map_or(Ok(60), |text| text.parse())?;
    // Values and context normalised inside attention, a sandwich around the feed-forward layer, and a Pre-Norm
    // first block as in HybridNorm*.
    let mine = Placement::custom(LayerNorms::new(
        QkvNormSites::per_head("qkvc"),
        ResidualNorms::PLAIN,
        ResidualNorms::SANDWICH,
    ))
    .with_layer(
        0,
        LayerNorms::new(QkvNormSites::QKV, ResidualNorms::PRE, ResidualNorms::PRE),
    );
    let star: Placement = "hybrid-star".parse()?;

    let corpus = Corpus::from_cargo_registry(DEFAULT_MAX_BYTES)?;
    println!("{}, {} bytes", corpus.description, corpus.bytes);
    let tokens = TextSplit::new(&corpus, VALIDATION_FRACTION)?.tokenize(&Tokenizer::Byte)?;
    let batches = Batches::new(tokens.train.tokens, SEQ, BATCH, 1)?;
    for placement in [star, mine] {
        let config = DecoderConfig {
            placement,
            n_kv_heads: 2,
            ..DecoderConfig::new(257, 128, 4, 4)
        };
        println!(
            "\n{}:\n{}",
            config.placement,
            config.placement.equations(config.n_layers)?
        );
        train(&config, &batches, Duration::from_secs(seconds))?;
    }
    Ok(())
}

/// The paper's recipe with a constant learning rate, until the time is over.
fn train(config: &DecoderConfig, batches: &Batches, time: Duration) -> Result<(), Box<dyn Error>> {
    let device = Device::flex().autodiff();
    let mut model: Decoder = config.init(&device)?;
    let recipe = AdamWConfig::default();
    let mut optimizer = Optimizer::new(recipe.clone(), &model);
    let start = Instant::now();
    let (mut sum, mut count) = (0.0, 0);
    for step in 0.. {
        let batch = batches
            .batch(step)?
            .tokens
            .into_iter()
            .map(i64::from)
            .collect::<Vec<_>>();
        let batch = TensorData::new(batch, [BATCH, SEQ + 1]);
        let batch = Tensor::<2, Int>::from_data(batch, &device);
        let logits = model.forward(batch.clone().narrow(1, 0, SEQ));
        let loss = loss::next_token_loss(logits, batch.narrow(1, 1, SEQ));
        sum += loss.clone().into_scalar::<f64>();
        count += 1;
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let norm = GradientNorms::measure(&gradients, &model)?.global();
        let clip = clip_coefficient(norm, recipe.max_grad_norm);
        model = optimizer.step(model, gradients, 2e-3, clip);
        let over = start.elapsed() >= time;
        if count == 50 || over {
            let bits = sum / f64::from(count) / core::f64::consts::LN_2;
            println!(
                "step {:4}  {bits:.3} bits per byte on training text, gradient norm {norm:.2}",
                step + 1
            );
            (sum, count) = (0.0, 0);
        }
        if over {
            return Ok(());
        }
    }
    Ok(())
}
