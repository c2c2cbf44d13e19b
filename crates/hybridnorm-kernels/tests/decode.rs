//! The operations of decoding against plain ones in f64, on every compiled-in device.

mod numbers;

use burn::tensor::{DType, Device, Tensor, TensorData};
use hybridnorm_kernels::{AttentionSpec, DecodeSpec, decode_attention, on_pool, project};
use hybridnorm_testing::{apply, every_device, largest, largest_difference, open, values};
use numbers::numbers;

/// Errors allowed, in roundings of f32 of the largest value of a tensor.
const ROUNDINGS: f64 = 16.0;

fn tensor<const D: usize>(
    shape: [usize; D],
    seed: u64,
    device: &Device,
    dtype: DType,
) -> Tensor<D> {
    // Rounded to f32 first: all get the same numbers.
    let values = numbers(shape.iter().product(), seed);
    let values: Vec<f64> = values.into_iter().map(|x| f64::from(x as f32)).collect();
    let data = TensorData::new(values, shape).convert_dtype(dtype);
    Tensor::from_data(data, (device, dtype))
}

#[track_caller]
fn close(found: &[f64], exact: &[f64]) {
    let unit = largest(exact) * f64::from(f32::EPSILON) / 2.0;
    let error = largest_difference(found, exact) / unit;
    assert!(error <= ROUNDINGS, "{error} roundings");
}

/// Any number of rows, matrices by rows and by columns, widths that fit no vector.
#[apply(every_device!)]
fn a_few_rows_are_a_product(#[case] device: &Device) {
    for (rows, d_in, d_out) in [
        (1, 5, 3),
        (1, 300, 129),
        (3, 64, 128),
        (8, 257, 400),
        (16, 30, 140),
        (17, 9, 7),
    ] {
        let run = |device: &Device, dtype, transposed: bool| {
            let x = tensor([rows, d_in], 1, device, dtype);
            let weight = match transposed {
                false => tensor([d_in, d_out], 2, device, dtype),
                true => tensor([d_out, d_in], 2, device, dtype).transpose(),
            };
            (project(x.clone(), weight.clone()), x.matmul(weight))
        };
        for transposed in [false, true] {
            let (found, _) = run(device, DType::F32, transposed);
            assert_eq!(found.dims(), [rows, d_out]);
            let (_, exact) = run(open("flex"), DType::F64, transposed);
            let found = values(found);
            close(&found, &values(exact));
            let (again, _) = run(device, DType::F32, transposed);
            assert_eq!(found, values(again), "two runs differ");
        }
    }
}

/// What each sequence's newest token sees, key by key: its own, within the window.
fn expected(
    query: &[f64],
    keys: &[f64],
    held: &[f64],
    [batch, capacity, dim]: [usize; 3],
    spec: &DecodeSpec,
) -> Vec<f64> {
    let AttentionSpec {
        heads,
        kv_heads,
        scale,
        softcap,
        window,
        ..
    } = spec.attention;
    let mut out = Vec::new();
    for b in 0..batch {
        let start = spec.starts.get(b).copied().unwrap_or(0);
        let first = start.max(spec.len - window.unwrap_or(spec.len).min(spec.len));
        for head in 0..heads {
            let query = &query[(b * heads + head) * dim..][..dim];
            let plane = (b * kv_heads + head / (heads / kv_heads)) * capacity;
            let of = |held: &'_ [f64], place: usize| held[(plane + place) * dim..][..dim].to_vec();
            let weights: Vec<f64> = (first..spec.len)
                .map(|place| {
                    let key = of(keys, place);
                    let score: f64 = query.iter().zip(key).map(|(q, k)| q * k).sum();
                    let score = score * scale;
                    softcap
                        .map_or(score, |cap| cap * (score / cap).tanh())
                        .exp()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            let mut context = vec![0.0; dim];
            for (weight, place) in weights.iter().zip(first..) {
                for (out, value) in context.iter_mut().zip(of(held, place)) {
                    *out += weight / sum * value;
                }
            }
            out.extend(context);
        }
    }
    out
}

/// Grouped heads, windows, sequences of different lengths, caches that are not full.
#[apply(every_device!)]
fn a_token_attends_to_its_cache(#[case] device: &Device) {
    for (batch, heads, kv_heads, dim, capacity, len, starts, window, softcap) in [
        (1, 4, 4, 8, 5, 1, vec![], None, None),
        (1, 6, 2, 12, 40, 33, vec![], None, Some(1.5)),
        (3, 4, 1, 20, 16, 16, vec![0, 15, 7], None, None),
        (2, 4, 2, 16, 9, 7, vec![5, 0], Some(3), Some(20.0)),
        (2, 2, 1, 64, 700, 600, vec![], Some(500), None),
    ] {
        let spec = DecodeSpec {
            attention: AttentionSpec {
                heads,
                kv_heads,
                scale: 0.4,
                softcap,
                window,
                products: None,
            },
            len,
            starts,
        };
        let shapes = ([batch, heads, dim], [batch, kv_heads, capacity, dim]);
        let run = || {
            let query = tensor(shapes.0, 1, device, DType::F32);
            let [keys, held] = [2, 3].map(|seed| tensor(shapes.1, seed, device, DType::F32));
            decode_attention(query, keys, held, spec.clone())
        };
        let found = run();
        assert_eq!(found.dims(), [batch, heads * dim]);
        let exact = |shape: &[usize], seed| {
            let values = numbers(shape.iter().product(), seed).into_iter();
            values.map(|x| f64::from(x as f32)).collect::<Vec<f64>>()
        };
        let [keys, held] = [2, 3].map(|seed| exact(&shapes.1, seed));
        let exact = expected(
            &exact(&shapes.0, 1),
            &keys,
            &held,
            [batch, capacity, dim],
            &spec,
        );
        let found = values(found);
        close(&found, &exact);
        assert_eq!(found, values(run()), "two runs differ");
    }
}

/// Where it is called from changes no bit.
#[apply(every_device!)]
fn the_pool_computes_the_same(#[case] device: &Device) {
    let product = || {
        let x = tensor([2, 300], 1, device, DType::F32);
        values(project(x, tensor([300, 500], 2, device, DType::F32)))
    };
    assert_eq!(on_pool(device, product), product());
}
