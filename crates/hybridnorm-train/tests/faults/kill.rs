//! kill -9, wherever it strikes.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{RUN, checkpoint, damages, inspect};
use crate::place::Place;

/// Killed runs; each is then resumed to its end.
const RUNS: u64 = 30;
/// A checkpoint after each of so many steps: most of the time goes into saving.
const STEPS: u64 = 24;

/// Thirty runs, each killed at a random instant of its life: no checkpoint is damaged, and the resumed run ends in the same bytes.
#[test]
fn thirty_runs_killed_at_random_lose_nothing() {
    let place = Place::new();
    let args = format!("{RUN} --steps {STEPS} --checkpoint-every 1 --keep 3");
    let began = Instant::now();
    place.succeed(&format!("{args} --out whole"));
    let life = began.elapsed();
    let expected = checkpoint(&place.path("whole"), STEPS);

    let mut random = ChaCha8Rng::seed_from_u64(6198);
    let (mut alive, mut in_a_save, mut never_began) = (0, 0, 0);
    for run in 0..RUNS {
        let name = format!("killed-{run}");
        let mut child = place
            .command(&format!("{args} --out {name}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(life.mul_f64(random.random::<f64>()));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        alive += u64::from(!status.success());
        if !place.path(&name).join("config.toml").exists() {
            // Killed before there was a run: it can simply be started.
            never_began += 1;
            place.succeed(&format!("{args} --out {name}"));
        } else {
            let found = inspect(&place, &name);
            assert!(
                damages(&found).iter().all(|(_, damage)| damage.is_none()),
                "{found}"
            );
            in_a_save += u64::from(
                found["unfinished"]
                    .as_array()
                    .is_some_and(|u| !u.is_empty()),
            );
            place.succeed(&format!("--out {name} --resume"));
        }
        assert!(
            checkpoint(&place.path(&name), STEPS) == expected,
            "{name}: other bytes"
        );
        std::fs::remove_dir_all(place.path(&name)).unwrap();
    }
    println!(
        "{RUNS} runs of {life:.0?}: {alive} killed alive, {in_a_save} of them in a save, {never_began} before the first step"
    );
    assert!(alive > RUNS / 2, "{alive}");
    assert!(life > Duration::from_millis(10));
}

/// A run that was killed while it made its directory can be started as if it had never been.
#[test]
fn a_run_killed_before_it_was_one_can_be_started() {
    let place = Place::new();
    std::fs::create_dir(place.path("killed")).unwrap();
    for left in [".lock", ".config.toml.tmp", ".hybridnorm-probe-1"] {
        place.write(&format!("killed/{left}"), "");
    }
    place.succeed(&format!("{RUN} --out killed"));
}

/// A run that was killed once it was trained, before it had written its results: they are written when it is resumed, and once.
#[test]
fn a_run_killed_before_its_results_writes_them() {
    let place = Place::new();
    place.succeed(&format!("{RUN} --out run"));
    let path = place.path("run/summary.json");
    let read =
        || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap() };
    let trained = read();
    std::fs::remove_file(&path).unwrap();
    place.succeed("--out run --resume");
    let found = read();
    for field in ["steps", "tokens", "training_loss", "validation_loss"] {
        assert_eq!(found[field], trained[field], "{field}");
    }
    assert_eq!(found["fresh_steps"], 0);
    let before = std::fs::read(&path).unwrap();
    place.succeed("--out run --resume");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// As random kills, with gradients accumulated, with experts, with documents kept apart.
#[test]
fn killed_in_the_middle_of_accumulation_among_experts_or_documents() {
    let place = Place::new();
    place.write_variant("masked.toml", "[data]", "[data]\ndocument_mask = true");
    for (config, extra) in [
        ("tiny.toml", "--micro-batch 1"),
        ("sparse.toml", ""),
        ("masked.toml", ""),
    ] {
        let args =
            format!("--config {config} {extra} --eval-every 0 --steps 40 --checkpoint-every 3");
        place.succeed(&format!("{args} --out whole-{config}"));
        let name = format!("killed-{config}");
        let mut child = place
            .command(&format!("{args} --out {name}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let log = place.path(&name).join("metrics.jsonl");
        let began = Instant::now();
        while std::fs::read_to_string(&log)
            .unwrap_or_default()
            .lines()
            .count()
            < 10
        {
            assert!(began.elapsed() < Duration::from_secs(60), "no progress");
            sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        place.succeed(&format!("--out {name} --resume"));
        let [whole, killed] = [format!("whole-{config}"), name].map(|run| {
            let run = place.path(&run);
            (checkpoint(&run, 40), figures(&run))
        });
        assert!(whole == killed, "{config}");
    }
}

/// How many threads compute is no part of a run: it is killed on one, goes on with three, and ends in the bytes that two gave.
#[test]
fn resumed_by_another_number_of_threads() {
    let place = Place::new();
    for config in ["tiny.toml", "sparse.toml"] {
        // Matrices that are large enough to be shared out.
        let mut wide = std::fs::read_to_string(place.path(config)).unwrap();
        for (small, large) in [
            ("d_model = 16", "d_model = 128"),
            ("d_ff = 32", "d_ff = 192"),
            ("d_ff = 12", "d_ff = 96"),
            (
                "\nbatch = 2\nmicro_batch = 2",
                "\nbatch = 32\nmicro_batch = 32",
            ),
        ] {
            wide = wide.replace(small, large);
        }
        place.write(config, wide);
        let args = format!("--config {config} --eval-every 0 --steps 12 --checkpoint-every 4");
        let with = |threads: &str, args: &str| {
            let mut command = place.command(args);
            command.env("RAYON_NUM_THREADS", threads);
            command
        };
        let whole = format!("{args} --out whole-{config}");
        assert!(with("2", &whole).output().unwrap().status.success());
        let mut child = with("1", &format!("{args} --out killed-{config}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while !place
            .path(&format!("killed-{config}/checkpoints/step-4"))
            .exists()
        {
            assert!(began.elapsed() < Duration::from_secs(60), "no progress");
            sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let resumed = with("3", &format!("--out killed-{config} --resume")).output();
        let resumed = resumed.unwrap();
        assert!(resumed.status.success(), "{resumed:?}");
        let [whole, killed] = ["whole", "killed"].map(|run| {
            let run = place.path(&format!("{run}-{config}"));
            (checkpoint(&run, 12), figures(&run))
        });
        assert!(whole == killed, "{config}");
    }
}

/// Every figure of every step that does not speak of time.
fn figures(run: &std::path::Path) -> Vec<serde_json::Value> {
    let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let record = |line: &str| -> serde_json::Value {
        let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
        for time in ["elapsed_s", "tokens_per_s", "mfu", "peak_tflops"] {
            record.as_object_mut().unwrap().remove(time);
        }
        record
    };
    log.lines().map(record).collect()
}
