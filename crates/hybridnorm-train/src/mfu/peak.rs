//! The most that a device can do with f32 operands: from its maker's data sheet, or else as measured.

use std::time::Instant;

use burn::tensor::{Device, Tensor};

use crate::device::adapter_name;

/// A device whose maker says what it can do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakRow {
    /// Its name, as its driver tells.
    pub name: &'static str,
    /// Dense operations on f32 operands, in 10¹² a second: on TF32 units where it has them, which Burn's tuned kernels use.
    pub tflops: f64,
    /// Where the number stands. Data sheets that give one with sparsity are halved.
    pub source: &'static str,
}

/// Every device that is known by name.
pub const PEAKS: &[PeakRow] = &[
    row("NVIDIA H200", 494.7, "NVIDIA H200 data sheet, TF32"),
    row(
        "NVIDIA H100 80GB HBM3",
        494.7,
        "NVIDIA H100 data sheet, SXM, TF32",
    ),
    row(
        "NVIDIA H100 NVL",
        417.5,
        "NVIDIA H100 data sheet, NVL, TF32",
    ),
    row(
        "NVIDIA H100 PCIe",
        378.0,
        "NVIDIA H100 data sheet, PCIe, TF32",
    ),
    row(
        "NVIDIA A100-SXM4-80GB",
        156.0,
        "NVIDIA A100 data sheet, TF32",
    ),
    row(
        "NVIDIA A100-SXM4-40GB",
        156.0,
        "NVIDIA A100 data sheet, TF32",
    ),
    row(
        "NVIDIA A100 80GB PCIe",
        156.0,
        "NVIDIA A100 data sheet, TF32",
    ),
    row(
        "NVIDIA A100-PCIE-40GB",
        156.0,
        "NVIDIA A100 data sheet, TF32",
    ),
    row("NVIDIA L40S", 183.0, "NVIDIA L40S data sheet, TF32"),
    row("NVIDIA L4", 60.0, "NVIDIA L4 data sheet, TF32"),
    row("NVIDIA A40", 74.8, "NVIDIA A40 data sheet, TF32"),
    row("NVIDIA A10", 62.5, "NVIDIA A10 data sheet, TF32"),
    row(
        "NVIDIA GeForce RTX 4090",
        82.6,
        "NVIDIA Ada architecture paper, TF32",
    ),
    row(
        "NVIDIA GeForce RTX 3090",
        35.6,
        "NVIDIA GA102 architecture paper, TF32",
    ),
    row(
        "Tesla V100-SXM2-32GB",
        15.7,
        "NVIDIA V100 data sheet, NVLink, FP32",
    ),
    row(
        "Tesla V100-SXM2-16GB",
        15.7,
        "NVIDIA V100 data sheet, NVLink, FP32",
    ),
    row("Tesla T4", 8.1, "NVIDIA T4 data sheet, FP32"),
];

const fn row(name: &'static str, tflops: f64, source: &'static str) -> PeakRow {
    PeakRow {
        name,
        tflops,
        source,
    }
}

/// The most that a device can do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Operations on f32 operands, in 10¹² a second.
    pub tflops: f64,
    /// Whether it was measured, which makes every utilisation an estimate: a kernel of Burn's was timed, not the silicon.
    pub measured: bool,
}

/// A product that takes longer than this is as good a measurement as a larger one.
const LONG_ENOUGH_S: f64 = 0.02;

impl Peak {
    /// By the device's name, or else by [`measure`](Self::measure).
    pub fn of(device: &Device) -> Option<Self> {
        let name = adapter_name(device);
        let row = PEAKS.iter().find(|row| row.name == name);
        match row {
            Some(row) => Some(Self {
                tflops: row.tflops,
                measured: false,
            }),
            None => Self::measure(device),
        }
    }

    /// The best of three products of square matrices, of the first size from 512 to 4096 whose product takes 20 ms; `None` where the
    /// device fails, of which its first step will tell more.
    pub fn measure(device: &Device) -> Option<Self> {
        let device = match device.is_autodiff() {
            true => device.clone().inner(),
            false => device.clone(),
        };
        let mut tflops = 0.0;
        for n in [512, 1024, 2048, 4096] {
            let x = Tensor::<2>::ones([n, n], &device);
            let mut best = f64::INFINITY;
            // The first compiles the kernel.
            for round in 0..4 {
                device.sync().ok()?;
                let started = Instant::now();
                let product = x.clone().matmul(x.clone());
                device.sync().ok()?;
                drop(product);
                if round > 0 {
                    best = best.min(started.elapsed().as_secs_f64());
                }
            }
            tflops = 2.0 * (n as f64).powi(3) / best / 1e12;
            if best >= LONG_ENOUGH_S {
                break;
            }
        }
        tflops.is_finite().then_some(Self {
            tflops,
            measured: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use hybridnorm_testing::{apply, every_device};

    use super::*;

    #[apply(every_device!)]
    fn a_device_without_a_data_sheet_is_measured(#[case] device: &Device) {
        let peak = Peak::measure(device).unwrap();
        assert!(peak.measured);
        // From a tenth of a scalar core to a rack.
        assert!((1e-4..1e4).contains(&peak.tflops), "{peak:?}");
    }

    #[test]
    fn no_device_stands_in_the_table_twice() {
        let mut names: Vec<&str> = PEAKS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PEAKS.len());
        assert!(PEAKS.iter().all(|row| row.source.contains("NVIDIA")));
    }
}
