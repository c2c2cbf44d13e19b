//! How long a batch of a prepared folder takes: `cargo run --release -p hybridnorm-data --example batches -- DIR [SEQ BATCH]`.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use hybridnorm_data::{Batches, Shards};

const STEPS: u64 = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir: PathBuf = args.next().ok_or("give a prepared folder")?.into();
    let mut number = |default| args.next().map_or(Ok(default), |arg| arg.parse());
    let (seq, batch) = (number(256)?, number(8)?);
    let train = Shards::open(&dir)?.train();
    let batches = Batches::new(train, seq, batch, 1)?.with_repetition_filter(true);
    let mut times = Vec::new();
    for step in 0..STEPS {
        let start = Instant::now();
        let batch = batches.batch(step)?;
        times.push(start.elapsed());
        std::hint::black_box(batch);
    }
    times.sort();
    let [median, worst] = [times.len() / 2, times.len() - 1].map(|place| times[place]);
    println!("{batch} sequences of {seq} tokens: median {median:?}, slowest {worst:?}");
    Ok(())
}
