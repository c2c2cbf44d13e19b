//! Sparse experts in a Burn model of your own: it learns to copy the token two places back.
//!
//! `cargo run --release -p hybridnorm-examples --bin sparse_layer`

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use hybridnorm_core::{Block, BlockConfig, ConfigError, Norm, NormConfig, Pass, loss};
use hybridnorm_moe::health::HealthMeter;
use hybridnorm_moe::{Routing, SparseConfig, SparseFeedForward};

/// Your model: whatever you have, and blocks whose feed-forward layers are sparse.
#[derive(Module, Debug)]
struct Model {
    embedding: Embedding,
    blocks: Vec<Block<SparseFeedForward>>,
    norm: Norm,
    head: Linear,
}

impl Model {
    fn new(sparse: &SparseConfig, device: &Device) -> Result<Self, ConfigError> {
        let block = |layer| {
            BlockConfig::new(64, 4, 128)
                .at(layer, 2)
                .init_with(device, |init| sparse.init(64, init, device))
        };
        Ok(Self {
            embedding: EmbeddingConfig::new(16, 64).init(device),
            blocks: vec![block(0)?, block(1)?],
            norm: NormConfig::new(64).init(device)?,
            head: LinearConfig::new(64, 16).init(device),
        })
    }

    /// `[batch, seq]` → `[batch, seq, 16]`; `pass` collects what the routers did.
    fn forward(&self, tokens: Tensor<2, Int>, pass: &mut Pass<Routing>) -> Tensor<3> {
        let x = self.embedding.forward(tokens);
        let blocks = self.blocks.iter();
        let x = blocks.fold(x, |x, block| block.forward(x, pass));
        self.head.forward(self.norm.forward(x))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex().autodiff();
    let sparse = SparseConfig::new(8, 2, 64); // experts, experts per token, inner width of each
    let mut model = Model::new(&sparse, &device)?;
    let mut optimizer = AdamWConfig::new().init();
    for step in 1..=100 {
        let tokens = Tensor::<2>::random([16, 34], Distribution::Uniform(0.0, 16.0), &device).int();
        let (input, target) = (tokens.clone().narrow(1, 2, 32), tokens.narrow(1, 0, 32));
        let mut pass = Pass::causal();
        let loss = loss::next_token_loss(model.forward(input, &mut pass), target);
        if step % 20 == 0 {
            let meters: Vec<_> = pass.reports.iter().map(HealthMeter::new).collect();
            let health = HealthMeter::read(&meters)?;
            let loss = loss.clone().into_scalar::<f32>();
            let spread = health
                .iter()
                .map(|layer| format!("{:.1}", layer.effective_experts));
            let spread = spread.collect::<Vec<_>>().join(" and ");
            println!("step {step:3}  loss {loss:.3}  tokens spread over {spread} of 8 experts");
        }
        let auxiliary = sparse.losses.of(&pass.reports); // load balancing and router z-loss
        let gradients = auxiliary.add_to(loss).backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        model = optimizer.step(3e-3, model, gradients);
    }
    Ok(())
}
