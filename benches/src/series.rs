//! Speeds of operations on the best device compiled in, by Criterion, and each beside the first one measured.

use std::time::{Duration, Instant};

use burn::tensor::Device;
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};

/// Operations that are measured beside one of them.
pub struct Series<'a> {
    group: BenchmarkGroup<'a, WallTime>,
    device: Device,
    /// Name, and work done in a second.
    speeds: Vec<(String, f64)>,
    /// What a billion of work in a second is called.
    unit: &'static str,
}

impl<'a> Series<'a> {
    pub fn new(criterion: &'a mut Criterion, name: &str, unit: &'static str) -> Self {
        let mut group = criterion.benchmark_group(name);
        group
            .sample_size(15)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2));
        Self {
            group,
            device: hybridnorm_testing::any_device(),
            speeds: Vec::new(),
            unit,
        }
    }

    pub fn device(&self) -> Device {
        self.device.clone()
    }

    /// Measures `work`, a call of which is worth `amount`; the device is waited for after each sample, not after each call.
    pub fn measure(&mut self, name: &str, amount: Throughput, work: impl Fn()) {
        let mut times = Vec::new();
        let device = self.device.clone();
        self.group.throughput(amount.clone());
        self.group.bench_function(name, |bencher| {
            bencher.iter_custom(|calls| {
                let start = Instant::now();
                for _ in 0..calls {
                    work();
                }
                device.sync().expect("a device that works");
                times.push(start.elapsed().as_secs_f64() / calls as f64);
                start.elapsed()
            });
        });
        let (Throughput::Bytes(amount) | Throughput::Elements(amount)) = amount else {
            unreachable!("bytes or operations")
        };
        times.sort_by(f64::total_cmp);
        // None where the command line asks for others.
        if let Some(median) = times.get(times.len() / 2) {
            self.speeds.push((name.to_owned(), amount as f64 / median));
        }
    }

    /// Prints every speed, and its share of the first.
    pub fn finish(self) {
        self.group.finish();
        let Some((first, most)) = self.speeds.first() else {
            return;
        };
        println!("\nmedians, on {:?}", self.device);
        for (name, speed) in &self.speeds {
            let (speed, share) = (speed / 1e9, 100.0 * speed / most);
            println!(
                "{name:40} {speed:7.1} {} {share:5.0} % of {first}",
                self.unit
            );
        }
    }
}
