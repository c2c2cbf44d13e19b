//! One HybridNorm block in a Burn model of your own: it learns to copy the token two places back.
//!
//! `cargo run --release -p hybridnorm-examples --bin minimal_block`

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use hybridnorm_core::{Block, BlockConfig, ConfigError, Norm, NormConfig, Pass, loss};

/// Your model: whatever you have, and blocks in the middle.
#[derive(Module, Debug)]
struct Model {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: Norm, // the stream after the last block has no norm of its own
    head: Linear,
}

impl Model {
    fn new(device: &Device) -> Result<Self, ConfigError> {
        let block = |layer| {
            BlockConfig::new(64, 4, 128) // d_model, heads, inner width of the feed-forward layer
                .with_placement("hybrid-star".parse()?)
                .at(layer, 2)
                .init(device)
        };
        Ok(Self {
            embedding: EmbeddingConfig::new(16, 64).init(device),
            blocks: vec![block(0)?, block(1)?],
            norm: NormConfig::new(64).init(device)?,
            head: LinearConfig::new(64, 16).init(device),
        })
    }

    /// `[batch, seq]` → `[batch, seq, 16]`
    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let mut pass = Pass::causal();
        let x = self.embedding.forward(tokens);
        let x = self
            .blocks
            .iter()
            .fold(x, |x, block| block.forward(x, &mut pass));
        self.head.forward(self.norm.forward(x))
    }
}

fn main() -> Result<(), ConfigError> {
    let device = Device::flex().autodiff();
    let mut model = Model::new(&device)?;
    let mut optimizer = AdamWConfig::new().init();
    for step in 1..=100 {
        let tokens = Tensor::<2>::random([16, 34], Distribution::Uniform(0.0, 16.0), &device).int();
        let (input, target) = (tokens.clone().narrow(1, 2, 32), tokens.narrow(1, 0, 32));
        let loss = loss::next_token_loss(model.forward(input), target);
        if step % 20 == 0 {
            println!(
                "step {step:3}  loss {:.3}",
                loss.clone().into_scalar::<f32>()
            );
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(3e-3, model, gradients);
    }
    Ok(())
}
