use std::collections::BTreeMap;
use std::path::Path;

use rstest::rstest;

use super::*;
use crate::{HeldOut, ShardedHeldOut, Shards, TextSplit, TokenSource, Validation};

fn tokenized(dir: &Path, out: &str, workers: usize) -> Preparation {
    Preparation {
        inputs: vec![dir.join("in")],
        out: dir.join(out),
        tokenizer: Tokenizer::Byte,
        validation_fraction: 0.2,
        deduplicate: false,
        shard_tokens: 2000,
        max_document_bytes: 1 << 20,
        workers,
    }
}

/// Some hundred documents of different lengths in several files and formats; every seventh repeats the one before.
fn corpus(dir: &Path) {
    let input = dir.join("in");
    std::fs::create_dir_all(input.join("deep")).unwrap();
    let text = |n: usize| {
        let n = if n % 7 == 6 { n - 1 } else { n };
        format!("document {n}: {}", "é wörd ".repeat(n * 37 % 23))
    };
    let line = |n: usize| format!("{}\n", serde_json::json!({ "text": text(n), "id": n }));
    let lines: String = (0..150).map(line).collect();
    std::fs::write(input.join("a.jsonl"), &lines).unwrap();
    std::fs::write(input.join("b.txt"), text(1000)).unwrap();
    std::fs::write(input.join("blank.txt"), " \n").unwrap();
    let lines: String = (150..260).map(line).collect();
    let packed = zstd::encode_all(lines.as_bytes(), 3).unwrap();
    std::fs::write(input.join("deep/c.jsonl.zst"), packed).unwrap();
}

/// The files of a folder by name.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

#[test]
fn a_folder_holds_the_tokens_of_the_corpus_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let index = tokenized(dir.path(), "out", 2).run(&mut |_| {}).unwrap();
    let shards = Shards::open(&dir.path().join("out")).unwrap();
    shards.verify(|_| {}).unwrap();
    assert_eq!(*shards.index(), index);
    assert!(index.train.len() > 3, "{}", index.train.len());
    assert_eq!(index.blank, 1);

    let corpus = crate::Corpus::from_path(&dir.path().join("in")).unwrap();
    let split = TextSplit::new(&corpus, 0.2).unwrap();
    let memory = split.tokenize(&Tokenizer::Byte).unwrap();
    let all = |source: &dyn TokenSource| {
        let length = source.tokens();
        source.window(0, length as usize).unwrap()
    };
    assert_eq!(all(&*shards.train()), all(&*memory.train.tokens));
    let held_out = ShardedHeldOut::of(&[&shards]).unwrap();
    assert_eq!(all(held_out.tokens()), all(memory.validation.tokens()));
    // Bits per byte speak of the same bytes, whichever windows are taken.
    for (seq, most) in [(7, None), (32, Some(5)), (1000, Some(3))] {
        let disk = Validation::new(&held_out, seq, most).unwrap();
        let memory = Validation::new(&memory.validation, seq, most).unwrap();
        assert_eq!(disk.text(), memory.text());
        let batches = |validation: &Validation| validation.batches(3).unwrap().collect::<Vec<_>>();
        assert_eq!(batches(&disk), batches(&memory));
    }
}

#[test]
fn the_held_out_sides_of_two_folders_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let preparation = tokenized(dir.path(), "one", 1);
    preparation.run(&mut |_| {}).unwrap();
    let one = Shards::open(&preparation.out).unwrap();
    let alone = ShardedHeldOut::of(&[&one]).unwrap();
    let both = ShardedHeldOut::of(&[&one, &one]).unwrap();
    let tokens = alone.tokens().tokens();
    assert_eq!(both.tokens().tokens(), 2 * tokens);
    let text = |held_out: &ShardedHeldOut, range| held_out.text(range).unwrap();
    assert_eq!(text(&both, tokens..2 * tokens), text(&alone, 0..tokens));
    assert_eq!(
        text(&both, 3..2 * tokens),
        [text(&alone, 3..tokens), text(&alone, 0..tokens)].concat()
    );
}

#[test]
fn the_number_of_workers_changes_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    for (out, workers) in [("one", 1), ("two", 2), ("many", 9)] {
        tokenized(dir.path(), out, workers)
            .run(&mut |_| {})
            .unwrap();
    }
    let one = content(&dir.path().join("one"));
    assert!(one.contains_key("index.json") && !one.contains_key("progress.json"));
    assert_eq!(content(&dir.path().join("two")), one);
    assert_eq!(content(&dir.path().join("many")), one);
}

#[rstest]
fn a_preparation_that_was_cut_off_goes_on_and_ends_in_the_same_bytes(
    #[values(false, true)] deduplicate: bool,
) {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let whole = Preparation {
        deduplicate,
        ..tokenized(dir.path(), "whole", 2)
    };
    let index = whole.run(&mut |_| {}).unwrap();
    let expected = content(&whole.out);
    let pairs = index.train.len();
    // Killed after each pair of shards in turn: what is on disk then is what `stop_after` leaves.
    for stop in 0..pairs {
        let cut = Preparation {
            out: dir.path().join(format!("cut-{stop}")),
            ..whole.clone()
        };
        stop_after(&cut, stop);
        assert!(cut.out.join("progress.json").is_file());
        let before = content(&cut.out);
        let mut first = None;
        cut.run(&mut |progress| {
            first.get_or_insert(progress);
        })
        .unwrap();
        assert_eq!(first.unwrap().documents > 0, stop > 0, "it began anew");
        assert_eq!(content(&cut.out), expected, "cut after {stop} of {pairs}");
        // Finished shards were not written again.
        assert!(before.keys().filter(|name| name.ends_with(".part")).count() <= 6);
    }
}

/// Runs a preparation up to its `stop`-th pair of shards, and leaves it as a killed process would: with the files of
/// the next pair begun, and keys written that no progress speaks of.
fn stop_after(preparation: &Preparation, stop: usize) {
    let files = Files::find(&preparation.inputs).unwrap().files;
    let settings = state::Settings::new(preparation, &files).unwrap();
    let folder::Begin::From(mut folder, state) = Folder::begin(&preparation.out, settings).unwrap()
    else {
        panic!("already prepared");
    };
    let mut state = *state;
    let seen = folder.seen(&state).unwrap();
    let mut documents = Documents::new(preparation, files, state.mark, seen, Arc::default());
    let mut segment = Segment::new(&folder, &state);
    let mut done = 0;
    while let Some(chunk) = documents.chunk().unwrap() {
        for document in chunk {
            if done == stop && segment.tokens() > 500 {
                std::fs::write(preparation.out.join("lock"), "").unwrap();
                if preparation.deduplicate && stop > 0 {
                    let path = preparation.out.join("documents.keys");
                    let mut keys = std::fs::read(&path).unwrap();
                    keys.extend([7; 24]);
                    std::fs::write(path, keys).unwrap();
                }
                return;
            }
            let document = Encoded::new(document, &preparation.tokenizer).unwrap();
            segment.write(&document).unwrap();
            state.mark = document.mark;
            if segment.tokens() >= preparation.shard_tokens {
                segment.finish(&mut folder, &mut state).unwrap();
                segment = Segment::new(&folder, &state);
                done += 1;
            }
        }
    }
}

#[test]
fn repeated_documents_are_dropped_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let kept = tokenized(dir.path(), "kept", 2).run(&mut |_| {}).unwrap();
    let dropped = Preparation {
        deduplicate: true,
        ..tokenized(dir.path(), "dropped", 2)
    };
    let dropped = dropped.run(&mut |_| {}).unwrap();
    let documents =
        |index: &Index| index.totals(Side::Train)[1] + index.totals(Side::Validation)[1];
    assert_eq!((documents(&kept), kept.duplicates), (261, None));
    // Every seventh of 260 lines repeats the one before: 6, 13, .. 258.
    assert_eq!(
        (documents(&dropped), dropped.duplicates),
        (261 - 37, Some(37))
    );
}

#[test]
fn a_folder_is_prepared_once_and_not_mixed_with_another() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let preparation = tokenized(dir.path(), "out", 2);
    let index = preparation.run(&mut |_| {}).unwrap();
    let again = preparation
        .run(&mut |_| panic!("it was prepared again"))
        .unwrap();
    assert_eq!(index, again);
    let other = Preparation {
        validation_fraction: 0.3,
        ..preparation.clone()
    };
    let error = other.run(&mut |_| {}).unwrap_err().to_string();
    assert!(
        error.contains("another validation fraction: 0.2, not 0.3"),
        "{error}"
    );
    std::fs::write(dir.path().join("in/b.txt"), "edited").unwrap();
    let error = preparation.run(&mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("another input: b.txt"), "{error}");
    let error = Preparation {
        out: dir.path().join("in"),
        ..preparation
    }
    .run(&mut |_| {})
    .unwrap_err()
    .to_string();
    assert!(error.contains("it holds other files"), "{error}");
}

#[test]
fn two_processes_do_not_write_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let preparation = tokenized(dir.path(), "out", 1);
    let mut other = None;
    preparation
        .run(&mut |_| {
            other.get_or_insert_with(|| preparation.run(&mut |_| {}));
        })
        .unwrap();
    assert!(
        matches!(other, Some(Err(DataError::Busy { .. }))),
        "{other:?}"
    );
}

#[test]
fn the_first_error_in_order_is_told_whatever_the_workers() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let mut lines = std::fs::read_to_string(dir.path().join("in/a.jsonl")).unwrap();
    lines.push_str("{\"text\": 3}\nnonsense\n");
    std::fs::write(dir.path().join("in/a.jsonl"), lines).unwrap();
    for workers in [1, 4] {
        let out = format!("out-{workers}");
        let error = tokenized(dir.path(), &out, workers)
            .run(&mut |_| {})
            .unwrap_err();
        assert!(
            error.to_string().contains("a.jsonl:151: invalid type"),
            "{error}"
        );
    }
}

#[test]
fn a_corpus_too_small_to_split_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    std::fs::write(dir.path().join("in/a.txt"), "one document").unwrap();
    let preparation = tokenized(dir.path(), "out", 1);
    let error = preparation.run(&mut |_| {}).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, DataError::OneSided { .. }), "{message}");
    for words in ["only document is not", "12 bytes", "--validation 0"] {
        assert!(message.contains(words), "no {words:?} in: {message}");
    }
    assert!(!preparation.out.exists());
    // A folder that was there stays.
    std::fs::create_dir(&preparation.out).unwrap();
    preparation.run(&mut |_| {}).unwrap_err();
    assert!(content(&preparation.out).is_empty());
    let all = Preparation {
        validation_fraction: 0.0,
        ..preparation
    };
    let index = all.run(&mut |_| {}).unwrap();
    assert_eq!(index.totals(Side::Train), [13, 1, 12]);
    assert!(
        Shards::open(&all.out)
            .unwrap()
            .index()
            .validation
            .is_empty()
    );
}
