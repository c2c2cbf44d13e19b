//! The most that a device can do: from its maker's data sheet, or else as measured.

use std::time::Instant;

use burn::tensor::{Device, Tensor};

use crate::device::adapter_name;
use crate::engine::Precision;

/// A device whose maker says what it can do: dense operations, in 10¹² a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakRow {
    /// Its name, as its driver tells.
    pub name: &'static str,
    /// On f32 operands: on TF32 units where it has them, which Burn's tuned kernels use.
    pub f32: f64,
    /// On bf16 operands, summed in f32; `None` where it has no units for them.
    pub bf16: Option<f64>,
    /// Where the numbers stand. Those that are given with sparsity are halved.
    pub source: &'static str,
}

/// Every device whose data sheet was looked up; the others are measured.
#[rustfmt::skip]
pub const PEAKS: &[PeakRow] = &[
    row("NVIDIA H200", 494.7, Some(989.4), "NVIDIA H200 data sheet"),
    row("NVIDIA H100 80GB HBM3", 494.7, Some(989.4), "NVIDIA H100 data sheet, SXM"),
    row("NVIDIA A100-SXM4-80GB", 156.0, Some(312.0), "NVIDIA A100 data sheet"),
    row("NVIDIA A100-SXM4-40GB", 156.0, Some(312.0), "NVIDIA A100 data sheet"),
    row("NVIDIA A100 80GB PCIe", 156.0, Some(312.0), "NVIDIA A100 data sheet"),
    row("NVIDIA A100-PCIE-40GB", 156.0, Some(312.0), "NVIDIA A100 data sheet"),
];

const fn row(name: &'static str, f32: f64, bf16: Option<f64>, source: &'static str) -> PeakRow {
    PeakRow {
        name,
        f32,
        bf16,
        source,
    }
}

impl PeakRow {
    /// What it can do with operands of a type.
    pub fn tflops(&self, precision: Precision) -> Option<f64> {
        match precision {
            Precision::F32 => Some(self.f32),
            Precision::Bf16 => self.bf16,
        }
    }
}

/// The most that a device can do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Operations in 10¹² a second, on operands of the type that is trained with.
    pub tflops: f64,
    /// Whether it was measured, which makes every utilisation an estimate: a kernel of Burn's was timed, not the silicon.
    pub measured: bool,
}

/// A product that takes longer than this is as good a measurement as a larger one.
const LONG_ENOUGH_S: f64 = 0.02;

impl Peak {
    /// By the device's name, or else by [`measure`](Self::measure).
    pub fn of(device: &Device, precision: Precision) -> Option<Self> {
        let name = adapter_name(device);
        let row = PEAKS.iter().find(|row| row.name == name);
        match row.and_then(|row| row.tflops(precision)) {
            Some(tflops) => Some(Self {
                tflops,
                measured: false,
            }),
            None => Self::measure(device, precision),
        }
    }

    /// The best of three products of square matrices, of the first size from 512 to 4096 whose product takes 20 ms; `None` where the
    /// device fails, of which its first step will tell more.
    pub fn measure(device: &Device, precision: Precision) -> Option<Self> {
        let device = match device.is_autodiff() {
            true => device.clone().inner(),
            false => device.clone(),
        };
        let mut tflops = 0.0;
        for n in [512, 1024, 2048, 4096] {
            let x = Tensor::<2>::ones([n, n], &device);
            let x = precision
                .products()
                .map_or(x.clone(), |dtype| x.cast(dtype));
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
        let peak = Peak::measure(device, Precision::F32).unwrap();
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
        // Units for bf16 do at least twice what those for f32 do, but for a rounding of data sheets.
        for row in PEAKS {
            assert!(row.bf16.is_none_or(|bf16| bf16 / row.f32 > 1.97), "{row:?}");
            assert_eq!(row.tflops(Precision::F32), Some(row.f32));
            assert_eq!(row.tflops(Precision::Bf16), row.bf16);
        }
    }
}
