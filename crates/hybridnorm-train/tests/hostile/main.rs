//! Files that somebody else wrote: whatever is in them costs a clear error and little memory, and never a panic. The readers of data have
//! such tests in `hybridnorm-data`.

mod targets;

use std::fs;

use hybridnorm_train::checkpoint::{FORMAT, Manifest};
use hybridnorm_train::engine::{Inspection, stored_config};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use targets::{Checkpoint, Run, assert_clear};

/// `bytes` with a few of them changed, moved, cut or repeated.
fn mutate(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    for _ in 0..random.random_range(1..4) {
        let Some(last) = mutated.len().checked_sub(1) else {
            break;
        };
        // Headers stand at the beginning.
        let most = if random.random() { last } else { last.min(600) };
        let at = random.random_range(0..=most);
        match random.random_range(0..5) {
            0 => mutated[at] ^= 1 << random.random_range(0..8),
            1 => mutated[at] = random.random(),
            2 => mutated.truncate(at),
            3 => mutated.insert(
                at,
                *b"0123456789{}[]\",:\xff\0"
                    .get(random.random_range(0..19))
                    .unwrap_or(&0),
            ),
            _ => drop(mutated.drain(at..(at + random.random_range(1..9)).min(mutated.len()))),
        }
    }
    mutated
}

#[test]
fn weights_that_somebody_made_up() {
    let checkpoint = Checkpoint::new();
    let bytes = checkpoint.read("model.safetensors");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let read = (0..600).map(|_| checkpoint.weights(&mutate(&bytes, &mut random)));
    let refused = read.filter(|accepted| !accepted).count();
    assert!(refused > 300, "{refused}");
}

/// Headers that promise what no file holds.
#[test]
fn weights_that_promise_too_much() {
    let checkpoint = Checkpoint::new();
    let with_header = |length: u64, header: &str| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + 64, 0);
        bytes
    };
    let tensor = |shape: &str, offsets: &str, dtype: &str| {
        format!(
            "{{\"final_norm.weight\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"
        )
    };
    for header in [
        tensor("[18446744073709551615]", "[0,64]", "F32"),
        tensor("[4611686018427387904,4]", "[0,64]", "F32"),
        tensor("[16]", "[0,18446744073709551615]", "F32"),
        tensor("[16]", "[64,0]", "F32"),
        tensor("[16]", "[-1,63]", "F32"),
        tensor("[1e3]", "[0,64]", "F32"),
        tensor("[16]", "[0,64]", "F7"),
        tensor("[32]", "[0,64]", "BF16"),
        tensor("[8]", "[0,64]", "F64"),
        "[".repeat(5000),
        "{\"a\":".repeat(5000),
        String::new(),
    ] {
        for length in [header.len() as u64, u64::MAX, 1 << 40, 0] {
            assert!(
                !checkpoint.weights(&with_header(length, &header)),
                "{header}"
            );
        }
    }
}

#[test]
fn manifests_and_states_that_somebody_made_up() {
    let checkpoint = Checkpoint::new();
    let [manifest, state] = ["manifest.json", "state.json"].map(|file| checkpoint.read(file));
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..300 {
        checkpoint.manifest(&mutate(&manifest, &mut random));
        checkpoint.state(&mutate(&state, &mut random));
    }
    let dir = checkpoint.dir();
    for entry in ["../state.json", "/etc/passwd", "", ".", "a/b"] {
        let made_up =
            json!({"format": FORMAT, "files": [{"name": entry, "bytes": 1, "blake3": "00"}]});
        fs::write(dir.join("manifest.json"), made_up.to_string()).unwrap();
        assert_clear(&Manifest::verify(dir).unwrap_err());
    }
    // A manifest of gigabytes is not read to its end.
    let file = fs::File::create(dir.join("manifest.json")).unwrap();
    file.set_len(8 << 30).unwrap();
    assert_clear(&Manifest::verify(dir).unwrap_err());
}

#[test]
fn configurations_and_logs_that_somebody_made_up() {
    let run = Run::new();
    let config = "[training]\nsteps = 6\neval_every = \"5M tokens\"\n\n[guard]\nspike = \"skip\"\n\n[model]\nvocab_size = 16\n\
                  padded_vocab_size = 16\nd_model = 8\nn_layers = 1\nn_heads = 1\nn_kv_heads = 1\nd_ff = 8\nmax_seq_len = 8\ntied = true\n";
    let log =
        "{\"kind\":\"guard\",\"step\":1,\"refused\":1,\"action\":\"skip\",\"message\":\"m\"}\n"
            .repeat(5);
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..600 {
        run.config(&mutate(config.as_bytes(), &mut random));
        run.log(&mutate(log.as_bytes(), &mut random));
    }
    let dir = run.dir();
    for deep in ["[", "a = [", "a = {b = "] {
        fs::write(dir.join("config.toml"), deep.repeat(20_000)).unwrap();
        assert_clear(&stored_config(dir).unwrap_err());
    }
    fs::write(dir.join("config.toml"), config).unwrap();
    assert!(stored_config(dir).is_ok() && Inspection::of(dir).is_ok());
}
