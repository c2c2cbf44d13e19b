//! TensorBoard event files, read by a decoder of the tests' own, and by TensorBoard itself where Python has it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::tensor::Device;
use hybridnorm_testing::{any_device, apply, every_device};
use hybridnorm_train::amount::Amount;
use hybridnorm_train::engine::{Record, train};
use hybridnorm_train::recipe::ParamGroup;
use hybridnorm_train::run::RunConfig;
use tempfile::TempDir;

use crate::tiny;

/// What a file says: its version, the steps at which it begins anew, and its scalars by tag and step.
#[derive(Debug, Default)]
struct Events {
    version: String,
    starts: Vec<u64>,
    scalars: BTreeMap<(String, u64), f32>,
}

/// CRC-32C bit by bit: polynomial 0x1EDC6F41, reflected.
fn crc(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

fn check_crc(data: &[u8], stored: &[u8]) {
    let crc = crc(data);
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    assert_eq!(stored, masked.to_le_bytes());
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in 0.. {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// Fields of a message: number, and either an integer (fixed or not) or bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let mut take = |n: usize| {
            let (taken, rest) = bytes.split_at(n);
            bytes = rest;
            taken.to_vec()
        };
        let (number, data) = match key & 7 {
            0 => (varint(&mut bytes), Vec::new()),
            1 => (u64::from_le_bytes(take(8).try_into().unwrap()), Vec::new()),
            5 => (
                u64::from(u32::from_le_bytes(take(4).try_into().unwrap())),
                Vec::new(),
            ),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (data, rest) = bytes.split_at(length);
                bytes = rest;
                (0, data.to_vec())
            }
            wire => panic!("wire type {wire}"),
        };
        found.push((key >> 3, number, data));
    }
    found
}

fn read(file: &Path) -> Events {
    let bytes = fs::read(file).unwrap();
    let mut rest = &bytes[..];
    let mut events = Events::default();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        check_crc(&rest[..8], &rest[8..12]);
        let data = &rest[12..12 + length];
        check_crc(data, &rest[12 + length..16 + length]);
        rest = &rest[16 + length..];
        let event = fields(data);
        let step = event.iter().find(|field| field.0 == 2).unwrap().1;
        for (number, _, data) in event {
            match number {
                3 => events.version = String::from_utf8(data).unwrap(),
                7 => {
                    assert_eq!(fields(&data), [(1, 1, Vec::new())]);
                    events.starts.push(step);
                }
                5 => events.take_summary(step, &data),
                _ => {}
            }
        }
    }
    events
}

impl Events {
    fn take_summary(&mut self, step: u64, summary: &[u8]) {
        for (number, _, value) in fields(summary) {
            assert_eq!(number, 1);
            let value = fields(&value);
            let tag = String::from_utf8(value[0].2.clone()).unwrap();
            let bits = u32::try_from(value[1].1).unwrap();
            assert_eq!((value[0].0, value[1].0, value.len()), (1, 2, 2));
            let new = self.scalars.insert((tag, step), f32::from_bits(bits));
            assert_eq!(new, None, "a tag of a step twice");
        }
    }
}

fn files(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run.join("tensorboard")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A run of eight steps that is stopped after five, loses its last checkpoint, and continues from the one after four.
fn interrupted(config: &RunConfig, dir: &Path, device: &Device) {
    let mut request = tiny::request(config.clone(), dir, device, false);
    request.tensorboard = true;
    train(tiny::stopping(request, 5)).unwrap();
    fs::remove_dir_all(dir.join("checkpoints/step-5")).unwrap();
    let mut request = tiny::request(config.clone(), dir, device, true);
    request.tensorboard = true;
    let summary = train(request).unwrap();
    assert_eq!(summary.resumed_from, Some(4));
}

#[apply(every_device!)]
fn every_figure_is_there_and_a_resume_says_where_it_begins(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let mut config = tiny::sparse(8, 4);
    config.training.diagnostics_every = Amount::Steps(4);
    interrupted(&config, dir.path(), device);
    let [first, second] = files(dir.path()).try_into().unwrap();
    let (first, second) = (read(&first), read(&second));
    for events in [&first, &second] {
        assert_eq!(events.version, "brain.Event:2");
    }
    assert_eq!((first.starts, second.starts), (vec![1], vec![5]));
    let shown = |tag: &str, step| {
        let of = if step < 5 {
            &first.scalars
        } else {
            &second.scalars
        };
        of[&(tag.to_string(), step)]
    };
    let (mut steps, mut looks) = (0, Vec::new());
    for record in tiny::records(dir.path()) {
        match record {
            Record::Step(record) => {
                steps += 1;
                let step = record.step;
                assert_eq!(shown("train/loss", step), record.loss as f32);
                assert_eq!(shown("train/grad_norm", step), record.grad_norm as f32);
                let router = &record.routers[1];
                let entropy = shown("train/routers/1/entropy", step);
                assert_eq!(entropy, router.entropy as f32);
                assert_eq!(record.update_ratios.is_empty(), step % 2 == 1);
                if let Some(ratio) = record.update_ratios.get(&ParamGroup::Experts) {
                    let found = shown("train/update_ratios/experts", step);
                    assert_eq!(found, *ratio as f32);
                }
            }
            Record::Evaluation { step, .. } => {
                assert_eq!(shown("validation/bits_per_byte", step), 3.0);
            }
            Record::Diagnostics(look) => {
                looks.push(look.step);
                for (tag, value) in [
                    ("gradient_norm/attention/1", look.gradient_norm.attention[1]),
                    ("update_ratio/embedding", look.update_ratio.embedding),
                    ("attention_entropy/0", look.forward.attention_entropy[0]),
                    ("seconds", Some(look.seconds)),
                ] {
                    let found = shown(&format!("diagnostics/{tag}"), look.step);
                    assert_eq!(Some(found), value.map(|value| value as f32), "{tag}");
                }
            }
            Record::Task { .. }
            | Record::Router { .. }
            | Record::Guard { .. }
            | Record::Change { .. } => {}
        }
    }
    assert_eq!((steps, looks), (8, vec![1, 4, 8]));
}

/// TensorBoard itself: every tag once for every step. `TENSORBOARD_PYTHON` may name a Python that has it.
#[test]
#[ignore = "needs Python with tensorboard: pip install tensorboard"]
fn tensorboard_shows_every_step_once() {
    let dir = TempDir::new().unwrap();
    interrupted(&tiny::config(8, 4), dir.path(), &any_device());
    let program = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1]).Reload()
print([(event.step, event.value) for event in events.Scalars('train/loss')])
print([event.step for event in events.Scalars('validation/bits_per_byte')])
";
    let python = std::env::var("TENSORBOARD_PYTHON").unwrap_or_else(|_| "python3".to_string());
    let output = Command::new(python)
        .args(["-c", program])
        .arg(dir.path().join("tensorboard"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut lines = text.lines();
    let losses: Vec<String> = tiny::step_records(dir.path())
        .iter()
        .map(|record| format!("({}, {:?})", record.step, f64::from(record.loss as f32)))
        .collect();
    assert_eq!(
        lines.next(),
        Some(&*format!("[{}]", losses.join(", "))),
        "{errors}"
    );
    assert_eq!(lines.next(), Some("[2, 4, 6, 8]"));
}
