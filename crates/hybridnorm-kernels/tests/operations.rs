//! Each operation against sums written out in f64, forward and backward, on every compiled-in device.

mod numbers;

use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use hybridnorm_kernels::{Groups, Routes, combine, dispatch, grouped_matmul, top_k};
use hybridnorm_testing::{apply, every_device, largest, largest_difference, values};
use numbers::numbers;

fn tensor<const D: usize>(values: &[f64], shape: [usize; D], device: &Device) -> Tensor<D> {
    let tensor = Tensor::from_data(TensorData::new(values.to_vec(), shape), device);
    match device.is_autodiff() {
        true => tensor.require_grad(),
        false => tensor,
    }
}

fn gradient<const D: usize>(x: &Tensor<D>, gradients: &Gradients) -> Vec<f64> {
    values(x.grad(gradients).expect("a gradient"))
}

/// Sums of a few hundred products in f32, held to f64.
#[track_caller]
fn assert_close(found: &[f64], exact: &[f64], what: &str) {
    let error = largest_difference(found, exact) / largest(exact).max(f64::MIN_POSITIVE);
    assert!(
        error < 1e-6,
        "{what}: off by {error:e} of its largest value"
    );
}

/// Group sizes and rows behind the groups.
const LAYOUTS: &[(&[usize], usize)] = &[
    (&[3, 0, 5, 1], 0),
    (&[0, 0, 9, 0], 0), // all rows to one group
    (&[2, 2], 3),       // rows that belong to none
    (&[1], 0),
    (&[0, 0], 4), // no row belongs to any
    (&[70, 0, 1, 129], 0),
];

#[apply(every_device!)]
fn rows_meet_the_matrix_of_their_group(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let (d_in, d_out) = (7, 5);
    for (sizes, rest) in LAYOUTS {
        let groups = Groups::new(*sizes);
        let (n, rows) = (sizes.len(), groups.rows() + rest);
        let group_of = |row: usize| groups.ranges().position(|range| range.contains(&row));
        let x = numbers(rows * d_in, 1);
        let w = numbers(n * d_in * d_out, 2);
        let dy = numbers(rows * d_out, 3);
        let mut y = vec![0.0; rows * d_out];
        let mut dx = vec![0.0; rows * d_in];
        let mut dw = vec![0.0; n * d_in * d_out];
        for (row, group) in (0..rows).filter_map(|row| Some((row, group_of(row)?))) {
            for i in 0..d_in {
                for o in 0..d_out {
                    let at = (group * d_in + i) * d_out + o;
                    y[row * d_out + o] += x[row * d_in + i] * w[at];
                    dx[row * d_in + i] += dy[row * d_out + o] * w[at];
                    dw[at] += x[row * d_in + i] * dy[row * d_out + o];
                }
            }
        }
        let x = tensor(&x, [rows, d_in], &device);
        let w = tensor(&w, [n, d_in, d_out], &device);
        let found = grouped_matmul(x.clone(), w.clone(), &groups);
        let seen = tensor(&dy, [rows, d_out], &device).detach();
        let gradients = (found.clone() * seen).sum().backward();
        let what = |part: &str| format!("{part} for groups {sizes:?} and {rest} more rows");
        assert_close(&values(found), &y, &what("product"));
        assert_close(
            &gradient(&x, &gradients),
            &dx,
            &what("gradient of the rows"),
        );
        assert_close(
            &gradient(&w, &gradients),
            &dw,
            &what("gradient of the matrices"),
        );
    }
}

/// Rows and matrices that are views into other tensors.
#[apply(every_device!)]
fn views_are_read_as_what_they_show(#[case] device: &Device) {
    let (d_in, d_out, groups) = (6, 4, Groups::new([2usize, 3]));
    let x = tensor(&numbers(5 * d_in, 1), [5, d_in], device);
    let w = tensor(&numbers(2 * d_in * d_out, 2), [2, d_in, d_out], device);
    let plain = values(grouped_matmul(x.clone(), w.clone(), &groups));
    let turned = x.clone().transpose().mul_scalar(1.0).transpose();
    let cut = Tensor::cat(vec![x.clone(), x], 0).narrow(0, 5, 5);
    let matrices = w.clone().swap_dims(1, 2).mul_scalar(1.0).swap_dims(1, 2);
    for view in [turned, cut] {
        let found = grouped_matmul(view, matrices.clone(), &groups);
        assert_close(&values(found), &plain, "a view");
    }
}

#[apply(every_device!)]
fn copies_go_out_and_come_back(#[case] device: &Device) {
    let device = device.clone().autodiff();
    for shape in [[5, 3, 4], [7, 1, 5], [12, 4, 600]] {
        assert_copies_go_out_and_come_back(shape, &device);
    }
}

/// `[tokens, top_k, d_model]`.
fn assert_copies_go_out_and_come_back([tokens, k, d]: [usize; 3], device: &Device) {
    // 13 shares no divisor with a number of copies.
    let copies = tokens * k;
    let order = (0..copies).map(|p| ((p * 13 + 7) % copies) as u32);
    let order: Vec<u32> = order.collect();
    let routes = Routes::new(&order, k, device);
    let (x, y) = (numbers(tokens * d, 1), numbers(tokens * k * d, 2));
    let weights = numbers(tokens * k, 3);
    let (seen_copies, seen_sums) = (numbers(tokens * k * d, 4), numbers(tokens * d, 5));
    let (mut sent, mut dx) = (vec![0.0; copies * d], vec![0.0; tokens * d]);
    let (mut sums, mut dy) = (vec![0.0; tokens * d], vec![0.0; copies * d]);
    let mut dweights = vec![0.0; copies];
    for (place, copy) in order.iter().map(|copy| *copy as usize).enumerate() {
        let token = copy / k;
        for i in 0..d {
            let (at, to) = (place * d + i, token * d + i);
            sent[at] = x[to];
            dx[to] += seen_copies[at];
            sums[to] += weights[copy] * y[at];
            dy[at] = weights[copy] * seen_sums[to];
            dweights[copy] += y[at] * seen_sums[to];
        }
    }

    let x = tensor(&x, [tokens, d], device);
    let found = dispatch(x.clone(), &routes);
    let seen = tensor(&seen_copies, [tokens * k, d], device).detach();
    let gradients = (found.clone() * seen).sum().backward();
    assert_close(&values(found), &sent, "copies");
    assert_close(&gradient(&x, &gradients), &dx, "gradient of the tokens");

    let y = tensor(&y, [tokens * k, d], device);
    let weights = tensor(&weights, [tokens, k], device);
    let found = combine(y.clone(), weights.clone(), &routes);
    let seen = tensor(&seen_sums, [tokens, d], device).detach();
    let gradients = (found.clone() * seen).sum().backward();
    assert_close(&values(found), &sums, "sums");
    assert_close(&gradient(&y, &gradients), &dy, "gradient of the copies");
    assert_close(
        &gradient(&weights, &gradients),
        &dweights,
        "gradient of the weights",
    );
}

/// Only what has a gradient is asked for one.
#[apply(every_device!)]
fn constants_stay_constants(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let groups = Groups::new([1usize, 2]);
    let constant = |shape| Tensor::<3>::ones(shape, &device);
    let x = tensor(&numbers(12, 1), [3, 4], &device);
    let gradients = grouped_matmul(x.clone(), constant([2, 4, 2]), &groups)
        .sum()
        .backward();
    assert_eq!(gradient(&x, &gradients), [2.0; 12]);
    let w = tensor(&numbers(16, 1), [2, 4, 2], &device);
    let rows = Tensor::<2>::ones([3, 4], &device);
    let gradients = grouped_matmul(rows, w.clone(), &groups).sum().backward();
    assert_eq!(gradient(&w, &gradients), [[1.0; 8], [2.0; 8]].concat());
}

#[apply(every_device!)]
fn the_best_come_first_and_equals_in_order(#[case] device: &Device) {
    let chosen = |rows: &[f64], columns: usize, k: usize| -> Vec<i64> {
        let shape = [rows.len() / columns, columns];
        let found: Tensor<2, Int> = top_k(tensor(rows, shape, device), k);
        found.into_data().iter::<i64>().collect()
    };
    assert_eq!(
        chosen(&[0.1, 0.5, 0.2, 0.9, -1.0, -3.0, -2.0, -4.0], 4, 2),
        [3, 1, 0, 2]
    );
    assert_eq!(chosen(&[1.0; 9], 9, 4), [0, 1, 2, 3]);
    assert_eq!(
        chosen(&[0.5, 1.0, 0.5, 1.0, 0.0, 0.5], 6, 6),
        [1, 3, 0, 2, 5, 4]
    );
    assert_eq!(chosen(&[0.0, -0.0, 0.0], 3, 2), [0, 1]);
    assert_eq!(chosen(&[7.0, 8.0], 1, 1), [0, 0]);
    // As many columns as the largest models have experts, many ties among them.
    let coarse: Vec<f64> = numbers(40 * 256, 9)
        .iter()
        .map(|x| (x * 8.0).round() / 8.0)
        .collect();
    let mut expected: Vec<i64> = Vec::new();
    for row in coarse.chunks(256) {
        let mut columns: Vec<i64> = (0..256).collect();
        columns.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        expected.extend(&columns[..8]);
    }
    assert_eq!(chosen(&coarse, 256, 8), expected);
}

#[test]
#[should_panic(expected = "no permutation")]
fn an_order_with_a_copy_twice_is_refused() {
    Routes::new(&[0, 1, 1, 3], 2, &hybridnorm_testing::any_device());
}

#[test]
#[should_panic(expected = "6 routes, 2 a token, for 2 tokens and 4 copies")]
fn routes_of_other_tokens_are_refused() {
    let device = hybridnorm_testing::any_device();
    let routes = Routes::new(&[0, 1, 2, 3, 4, 5], 2, &device);
    dispatch(Tensor::ones([2, 4], &device), &routes);
}
