//! Attention against one head after the other in f64, each with all its scores: values and gradients, on every compiled-in device.

mod compare;
mod numbers;

use burn::tensor::{Bool, Device, FloatDType, Int, Tensor, TensorData, activation};
use compare::{compare_in, flat, numbers};
use hybridnorm_kernels::{AttentionSpec, attention};
use hybridnorm_testing::{apply, every_device, values};

/// Which document each token belongs to.
#[derive(Debug, Clone, Copy)]
enum Documents {
    /// One.
    One,
    /// Three, one after the other, cut differently in each sequence.
    Three,
    /// Two that take turns.
    Alternating,
}

impl Documents {
    fn numbers(self, batch: usize, seq: usize) -> Vec<i64> {
        let number = |b: usize, t: usize| match self {
            Self::One => 5,
            Self::Three => ((t + b) * 3 / (seq + b)) as i64,
            Self::Alternating => (t / 3 % 2) as i64,
        };
        let sequence = |b| (0..seq).map(move |t| number(b, t));
        (0..batch).flat_map(sequence).collect()
    }
}

#[apply(every_device!)]
fn attention_equals_f64(
    #[case] device: &Device,
    #[values([1, 1, 1, 1, 2], [3, 7, 2, 1, 6], [2, 65, 4, 2, 16], [1, 129, 2, 2, 8])] shape: [usize;
        5],
    #[values(None, Some(2), Some(20))] window: Option<usize>,
    #[values(
        None,
        Some(Documents::One),
        Some(Documents::Three),
        Some(Documents::Alternating)
    )]
    documents: Option<Documents>,
) {
    compare_attention(device, shape, window, documents, (None, None));
}

/// Scores below the cap, around it and far above it.
#[apply(every_device!)]
fn attention_under_a_cap_equals_f64(
    #[case] device: &Device,
    #[values([3, 7, 2, 1, 6], [2, 65, 4, 2, 16], [1, 600, 2, 1, 4])] shape: [usize; 5],
    #[values(None, Some(20))] window: Option<usize>,
    #[values(0.5, 5.0, 50.0)] cap: f64,
) {
    compare_attention(device, shape, window, None, (Some(cap), None));
}

/// More queries than are computed at once.
#[apply(every_device!)]
fn a_long_sequence_equals_f64(
    #[case] device: &Device,
    #[values((None, None), (Some(100), None), (Some(550), Some(Documents::Three)))] what: (
        Option<usize>,
        Option<Documents>,
    ),
) {
    compare_attention(device, [2, 600, 2, 1, 4], what.0, what.1, (None, None));
}

/// What is rounded to bf16 is off by roundings of bf16.
#[apply(every_device!)]
fn products_in_bf16_are_off_by_roundings_of_bf16(
    #[case] device: &Device,
    #[values(None, Some(20))] window: Option<usize>,
) {
    let products = Some(FloatDType::BF16);
    if device.supports_dtype(FloatDType::BF16) {
        compare_attention(device, [2, 65, 4, 2, 16], window, None, (None, products));
    } else {
        eprintln!("{device:?} has no bf16");
    }
}

/// The operation against one head after the other, each with all its scores.
#[track_caller]
fn compare_attention(
    device: &Device,
    shape: [usize; 5],
    window: Option<usize>,
    documents: Option<Documents>,
    (softcap, products): (Option<f64>, Option<FloatDType>),
) {
    let [batch, seq, heads, kv_heads, head_dim] = shape;
    let all = heads + 2 * kv_heads;
    let spec = AttentionSpec {
        heads,
        kv_heads,
        scale: 0.6,
        softcap,
        window,
        products,
    };
    let inputs = [numbers(batch * all * seq * head_dim, 12)];
    let of = |x: &[Tensor<1>]| x[0].clone().reshape([batch, all, seq, head_dim]);
    let numbers = documents.map(|documents| documents.numbers(batch, seq));
    let rounding = match products {
        Some(_) => 2f64.powi(-9),
        // Sums of hundreds of products, which each device adds up in an order of its own: composed of Burn's operations, and with
        // wgpu's product of matrices, the gradient of 600 tokens is off by 19 roundings.
        None if seq > 256 => f64::from(f32::EPSILON),
        None => f64::from(f32::EPSILON) / 2.0,
    };
    compare_in(
        rounding,
        device,
        &inputs,
        |x| {
            let documents = numbers.clone().map(|numbers| {
                let numbers = TensorData::new(numbers, [batch, seq]);
                Tensor::<2, Int>::from_data(numbers, &x[0].device())
            });
            flat(attention(of(&x), documents, spec))
        },
        |x| {
            let forbidden = |b: usize, t: usize, s: usize| {
                let document = |t: usize| numbers.as_ref().map(|numbers| numbers[b * seq + t]);
                s > t || window.is_some_and(|window| t - s >= window) || document(t) != document(s)
            };
            let mut mask = Vec::new();
            for b in 0..batch {
                for t in 0..seq {
                    mask.extend((0..seq).map(|s| forbidden(b, t, s)));
                }
            }
            let mask = TensorData::new(mask, [batch, 1, seq, seq]);
            let mask = Tensor::<4, Bool>::from_data(mask, &x[0].device());
            let qkv = of(&x);
            let mut contexts = Vec::new();
            for head in 0..heads {
                let shared = head / (heads / kv_heads);
                let [q, k, v] = [head, heads + shared, heads + kv_heads + shared]
                    .map(|head| qkv.clone().narrow(1, head, 1));
                let scores = q.matmul(k.transpose()) * spec.scale;
                let scores = match softcap {
                    Some(cap) => (scores / cap).tanh() * cap,
                    None => scores,
                };
                let scores = scores.mask_fill(mask.clone(), f64::NEG_INFINITY);
                let context = activation::softmax(scores, 3).matmul(v);
                contexts.push(context.reshape([batch, seq, head_dim]));
            }
            flat(Tensor::cat(contexts, 2))
        },
    );
}

/// A window of one token leaves each its own value.
#[apply(every_device!)]
fn a_window_of_one_token_sees_itself(#[case] device: &Device) {
    let spec = AttentionSpec {
        heads: 2,
        kv_heads: 1,
        scale: 0.5,
        softcap: None,
        window: Some(1),
        products: None,
    };
    let qkv = Tensor::<1>::from_data(TensorData::new(numbers(4 * 70 * 6, 13), [1680]), device);
    let qkv = qkv.reshape([1, 4, 70, 6]);
    let value: Vec<f64> = values(qkv.clone().narrow(1, 3, 1));
    let out = values(attention(qkv, None, spec));
    let twice = value.chunks(6).flat_map(|value| [value, value].concat());
    assert_eq!(out, twice.collect::<Vec<f64>>());
}
