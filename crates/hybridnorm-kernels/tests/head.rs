//! The loss of a head, computed a slice of rows at a time, against plain operations in f64 on all rows.

mod compare;
mod numbers;

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData, activation};
use compare::{compare, compare_in, numbers, run};
use hybridnorm_kernels::{HeadSpec, head_loss, softcap};
use hybridnorm_testing::{apply, every_device, largest, largest_difference, values};

const PLAIN: HeadSpec = HeadSpec {
    scale: 1.0,
    softcap: None,
    rows: 5,
    products: None,
};

/// A head, and what it is tried on.
#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    width: usize,
    vocab: usize,
    spec: HeadSpec,
    biased: bool,
    /// The weights are the transposed view of an embedding.
    tied: bool,
}

impl Case {
    /// Such that logits are about as large as 1. Where they are far apart, the gradient of a row is what is left of 1 − p, and its error in
    /// roundings of itself says how much was taken away, not how well.
    fn inputs(&self) -> Vec<Vec<f64>> {
        let bias = if self.biased { self.vocab } else { 1 };
        let size = 1.0 / (self.width as f64).sqrt();
        let weight = numbers(self.width * self.vocab, 2);
        vec![
            numbers(self.rows * self.width, 1),
            weight.into_iter().map(|x| x * size).collect(),
            numbers(bias, 3),
        ]
    }

    fn weight(&self, flat: &Tensor<1>) -> Tensor<2> {
        match self.tied {
            true => flat.clone().reshape([self.vocab, self.width]).transpose(),
            false => flat.clone().reshape([self.width, self.vocab]),
        }
    }

    fn targets(&self, device: &Device) -> Tensor<1, Int> {
        let targets: Vec<i64> = (0..self.rows)
            .map(|row| (row * 31 % self.vocab) as i64)
            .collect();
        Tensor::from_data(TensorData::new(targets, [self.rows]), device)
    }

    /// Every third row counts for nothing.
    fn shares(&self, device: &Device, dtype: DType) -> Tensor<1> {
        let shares = (0..self.rows).map(|row| {
            if row % 3 == 2 {
                0.0
            } else {
                1.0 / self.rows as f32
            }
        });
        let shares = TensorData::new(shares.collect::<Vec<f32>>(), [self.rows]);
        Tensor::from_data(shares.convert_dtype(dtype), (device, dtype))
    }

    fn fused(&self, x: &[Tensor<1>]) -> Tensor<1> {
        let device = x[0].device();
        head_loss(
            x[0].clone().reshape([self.rows, self.width]),
            self.weight(&x[1]),
            self.biased.then(|| x[2].clone()),
            self.targets(&device),
            self.shares(&device, x[0].dtype()),
            self.spec,
        )
    }

    fn plain(&self, x: &[Tensor<1>]) -> Tensor<1> {
        let device = x[0].device();
        let hidden = x[0].clone().reshape([self.rows, self.width]);
        let mut logits = hidden.matmul(self.weight(&x[1]));
        if self.biased {
            logits = logits + x[2].clone().unsqueeze();
        }
        logits = logits * self.spec.scale;
        if let Some(cap) = self.spec.softcap {
            logits = (logits / cap).tanh() * cap;
        }
        let targets = self.targets(&device).reshape([self.rows, 1]);
        let nll = -activation::log_softmax(logits, 1).gather(1, targets);
        (nll.reshape([self.rows]) * self.shares(&device, x[0].dtype())).sum()
    }
}

#[apply(every_device!)]
fn the_loss_of_a_head_equals_f64(
    #[case] device: &Device,
    #[values([1, 4, 6], [7, 3, 11], [70, 24, 300])] sizes: [usize; 3],
    #[values(1, 5, 32, 1000)] at_once: usize,
    #[values(PLAIN, HeadSpec { scale: 0.25, ..PLAIN }, HeadSpec { softcap: Some(3.0), scale: 1.5, ..PLAIN })]
    spec: HeadSpec,
    #[values(false, true)] biased: bool,
    #[values(false, true)] tied: bool,
) {
    let [rows, width, vocab] = sizes;
    let spec = HeadSpec {
        rows: at_once,
        ..spec
    };
    let case = Case {
        rows,
        width,
        vocab,
        spec,
        biased,
        tied,
    };
    // Sums over a vocabulary, of which one word takes away what the others add: within 32 roundings, as attention over 600 tokens.
    compare_in(
        f64::from(f32::EPSILON),
        device,
        &case.inputs(),
        |x| case.fused(&x),
        |x| case.plain(&x),
    );
}

/// Without anything to differentiate the loss is the same number.
#[apply(every_device!)]
fn the_loss_alone_is_the_same(#[case] device: &Device, #[values(false, true)] biased: bool) {
    let case = Case {
        rows: 33,
        width: 16,
        vocab: 50,
        spec: PLAIN,
        biased,
        tied: true,
    };
    let inputs = case.inputs();
    let with = run(&inputs, DType::F32, device, |x| case.fused(&x));
    let tensors = inputs.iter().map(|x| {
        let data = TensorData::new(x.clone(), [x.len()]).convert_dtype(DType::F32);
        Tensor::from_data(data, (device, DType::F32))
    });
    let alone = values(case.fused(&tensors.collect::<Vec<_>>()));
    assert!(
        (with[0][0] - alone[0]).abs() <= 2e-7 * alone[0],
        "{with:?} {alone:?}"
    );
}

/// Products in bf16 round their factors and what they give; the softmax and the sums stay in f32.
#[apply(every_device!)]
fn products_may_be_in_bf16(#[case] device: &Device) {
    if !device.supports_dtype(FloatDType::BF16) {
        eprintln!("{device:?} has no bf16");
        return;
    }
    let spec = HeadSpec {
        products: Some(FloatDType::BF16),
        ..PLAIN
    };
    let case = Case {
        rows: 40,
        width: 16,
        vocab: 60,
        spec,
        biased: false,
        tied: true,
    };
    let inputs = case.inputs();
    let rounded = run(&inputs, DType::F32, device, |x| case.fused(&x));
    let exact = run(&inputs, DType::F32, device, |x| case.plain(&x));
    for (rounded, exact) in rounded
        .iter()
        .zip(&exact)
        .filter(|(_, exact)| !exact.is_empty())
    {
        let error = largest_difference(rounded, exact) / largest(exact);
        assert!(error > 1e-5 && error < 3e-2, "{error}");
    }
}

#[apply(every_device!)]
fn caps_equal_f64(#[case] device: &Device, #[values(0.3, 3.0, 50.0)] cap: f64) {
    compare(
        device,
        &[numbers(300, 5)],
        |x| softcap(x[0].clone(), cap),
        |x| (x[0].clone() / cap).tanh() * cap,
    );
}
