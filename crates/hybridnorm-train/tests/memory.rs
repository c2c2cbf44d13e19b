//! The peak of a process that takes training steps, beside what was predicted for it.

use std::process::Command;

use rstest::rstest;

/// Bytes predicted and measured, of a process that takes two steps: the first one makes the moments.
fn peaks(args: &str) -> (f64, f64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybridnorm-train"));
    command.args("bench step --device flex --warmup 0 --steps 2 --json".split(' '));
    let output = command.args(args.split_whitespace()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let out = String::from_utf8(output.stdout).unwrap();
    let json: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let number = |key: &str| json[key].as_f64().unwrap_or_else(|| panic!("{key}: {out}"));
    (number("predicted_peak_bytes"), number("peak_bytes"))
}

#[rstest]
#[case::shape_of_the_yardstick("--batch 12")]
#[case::layers("--layers 8")]
#[case::sequence("--seq 1024 --batch 4 --vocab 256")]
#[case::width("--d-model 512 --layers 3 --seq 64 --batch 4 --ffn 2048 --vocab 8192")]
#[case::weights_above_all("--d-model 1024 --heads 16 --ffn 2048 --seq 64 --batch 2 --vocab 1024")]
#[case::vocabulary("--vocab 16384 --batch 6")]
#[case::tied("--vocab 16384 --tied --batch 6")]
#[case::feed_forward("--ffn 3072 --batch 4")]
#[case::pre_norm("--placement pre --batch 8")]
#[case::sandwich("--placement sandwich --batch 8")]
#[case::context_norm("--placement qkvc-post --kv-heads 4 --batch 12")]
#[case::experts("--experts 8 --top-k 2 --ffn 256 --batch 8")]
#[case::many_experts("--experts 64 --top-k 4 --ffn 256 --seq 128")]
#[case::accumulation("--layers 8 --batch 12 --micro-batch 4")]
#[case::logits_in_slices("--vocab 16384 --logit-rows 128 --batch 6")]
#[case::recomputed("--layers 8 --batch 16 --recompute block")]
#[case::recomputed_long("--seq 1024 --batch 8 --vocab 256 --recompute block")]
#[case::recomputed_and_accumulated("--d-model 512 --batch 12 --micro-batch 4 --recompute block")]
#[case::muon("--optimizer muon --batch 12")]
fn the_peak_is_predicted_within_15_percent(#[case] args: &str) {
    if !cfg!(all(feature = "flex", target_os = "linux")) {
        return;
    }
    let (predicted, measured) = peaks(args);
    let ratio = predicted / measured;
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let table = format!(
        "| `{args}` | {:.0} | {:.0} | {:+.1} % |",
        mib(predicted),
        mib(measured),
        100.0 * (ratio - 1.0)
    );
    println!("{table}");
    assert!(mib(measured) >= 300.0, "too small to tell: {table}");
    assert!((ratio - 1.0).abs() <= 0.15, "{table}");
}

#[test]
fn recomputation_and_accumulation_lower_the_peak() {
    if !cfg!(all(feature = "flex", target_os = "linux")) {
        return;
    }
    let peak = |args: &str| peaks(&format!("--layers 8 --batch 8 {args}")).1;
    let plain = peak("");
    assert!(peak("--recompute block") < 0.6 * plain);
    assert!(peak("--micro-batch 1") < 0.7 * plain);
}
