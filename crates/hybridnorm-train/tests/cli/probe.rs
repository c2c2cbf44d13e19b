//! `probe`: what it refuses, a probe from beginning to end, and what a kill leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use rstest::rstest;
use serde_json::Value;

use crate::place::{Place, stderr};

const PAGE: &str = include_str!("../../../../docs/probe.md");

/// Everything that can be measured, of models that take a moment.
const TINY: &str = "probe --config tiny.toml --placements pre,hybrid --depths 2,1 --inits normal,megatron --steps 4 --device flex";

#[rstest]
#[case::placement("--placements pre,hybird", &["placement", "hybird", "did you mean \"hybrid\"?"])]
#[case::twice("--placements pre,hybrid,pre", &["placements = pre", "once"])]
#[case::depth("--depths 8,0", &["n_layers", "at least 1"])]
#[case::no_depth("--depths eight", &["eight", "--depths"])]
#[case::depth_twice("--depths 8,8", &["depths = 8", "once"])]
#[case::init("--inits megatorn", &["init", "megatorn", "did you mean \"megatron\"?"])]
#[case::measure("--measure layer", &["measure", "layer", "did you mean \"layers\"?"])]
#[case::steps("--steps 0", &["steps", "at least 1"])]
#[case::seeds("--seeds 0", &["0", "--seeds"])]
#[case::lr("--lr -1", &["lr", "-1"])]
#[case::no_lr("--lr 0", &["lr = 0", "above 0"])]
#[case::preset("--preset dmeo", &["preset", "dmeo", "did you mean \"demo\"?"])]
#[case::device("--device felx", &["device", "felx", "did you mean \"flex\"?"])]
#[case::heads("--heads 3", &["n_heads", "3", "divisor of d_model = 64"])]
#[case::data("--data nowhere.txt", &["nowhere.txt", "does not exist"])]
#[case::short("--data text.md --seq 100000", &["training split", "--seq"])]
#[case::taken("--data text.md --out full", &["full", "--out"])]
#[case::a_file("--data text.md --out text.md", &["text.md", "--out"])]
fn a_mistake_is_refused_in_one_line(#[case] args: &str, #[case] words: &[&str]) {
    let place = Place::new();
    fs::create_dir(place.path("full")).unwrap();
    place.write("full/notes.txt", "mine");
    let message = place.refuse(&format!("probe {args}"));
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

#[test]
fn models_that_cannot_fit_are_refused() {
    let place = Place::new();
    let output =
        place.run("probe --data text.md --d-model 65536 --heads 64 --depths 512 --device flex");
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("--ignore-memory"), "{message}");
    assert!(!place.path("runs").exists());
}

/// The lines of a probe, without their times.
fn lines(place: &Place, dir: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path(dir).join("probe.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("seconds");
        line
    };
    text.lines().map(line).collect()
}

fn count(lines: &[Value], kind: &str) -> usize {
    lines.iter().filter(|line| line["kind"] == kind).count()
}

#[test]
fn a_probe_from_beginning_to_end() {
    let place = Place::new();
    let out = place.succeed(&format!("{TINY} --out probe"));
    for words in [
        "probe     pre, hybrid",
        "2 layers",
        "measure   learning-rate",
        "time      about",
        "| hybrid    | 1      |",
        "At 2 layers, over 4 steps of 32 tokens and one seed: ",
        "the highest learning rate",
        "initialisation matters least to",
        "report.html",
        "probe.jsonl",
    ] {
        assert!(out.contains(words), "no {words:?} in:\n{out}");
    }
    let all = lines(&place, "probe");
    assert_eq!(all[0]["kind"], "setting");
    // Two placements at two depths, and two initialisations of each.
    let kinds = ["setting", "layers", "coupling", "init"].map(|kind| count(&all, kind));
    assert_eq!(kinds, [1, 4, 4, 8]);
    assert!(count(&all, "learning_rate") >= 8);

    // Nothing is measured twice.
    let again = place.run(&format!("{TINY} --out probe --json"));
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(stderr(&again).contains("everything was measured before"));
    assert_eq!(lines(&place, "probe"), all);
    let again = String::from_utf8(again.stdout).unwrap();
    let json: Value = serde_json::from_str(again.lines().last().unwrap()).unwrap();
    let saved = fs::read_to_string(place.path("probe/probe.json")).unwrap();
    assert_eq!(json, serde_json::from_str::<Value>(&saved).unwrap());
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    assert!(out.contains(json["answer"].as_str().unwrap()));
    for row in rows {
        assert_eq!(row["inits"].as_array().unwrap().len(), 2, "{row}");
        for figure in [
            "first_gradient_ratio",
            "last_gradient_ratio",
            "lr_holds",
            "coupling",
        ] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{figure}: {row}");
        }
    }

    // More of the same is added, and something else is refused.
    place.succeed(&format!("{TINY} --out probe --seeds 2 --measure layers"));
    let more = lines(&place, "probe");
    assert_eq!((&more[..all.len()], more.len()), (&all[..], all.len() + 4));
    let longer = TINY.replace("--steps 4", "--steps 5");
    for (args, words) in [
        (longer.as_str(), "--steps is 5 now"),
        (&format!("{TINY} --lr 0.02"), "schedule.lr is 0.02 now"),
        (&format!("{TINY} --data tiny.toml"), "tiny.toml"),
    ] {
        let message = place.refuse(&format!("{args} --out probe"));
        assert!(message.contains(words), "no {words:?} in: {message}");
    }
}

/// A kill loses the measurement in progress, and what it tore; the rest is the same whether there was one or not.
#[test]
fn a_killed_probe_goes_on_where_it_was() {
    let place = Place::new();
    place.succeed(&format!("{TINY} --out whole"));
    let whole = lines(&place, "whole");
    let path = place.path("killed/probe.jsonl");
    let mut child = place
        .command(&format!("{TINY} --out killed"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let measured = || fs::read_to_string(&path).map_or(0, |text| text.lines().count());
    while measured() < 4 && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let kept = text.lines().count();
    assert!(kept >= 4);
    fs::write(&path, text + "{\"kind\":\"layers\",\"pla").unwrap();
    place.succeed(&format!("{TINY} --out killed"));
    assert_eq!(lines(&place, "killed"), whole);
    println!("{kept} of {} lines were kept", whole.len());
}

/// JSON's reader is off by a bit in this learning rate: it is the same all the same.
#[test]
fn a_setting_of_many_digits_is_known_again() {
    let place = Place::new();
    let probe = format!("{TINY} --measure coupling --lr 0.00022049313921881914 --out probe");
    place.succeed(&probe);
    let whole = lines(&place, "probe");
    place.succeed(&probe);
    assert_eq!(lines(&place, "probe"), whole);
    let other = probe.replace("914 ", "915 ");
    let message = place.refuse(&other);
    assert!(message.contains("schedule.lr"), "{message}");
}

/// Whatever is no measurement is named, and nothing of the file is lost.
#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let place = Place::new();
    place.succeed(&format!("{TINY} --measure layers --out probe"));
    let whole = fs::read_to_string(place.path("probe/probe.jsonl")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for (number, line) in [(1, "not json"), (3, "{\"kind\": \"unheard-of\"}"), (4, "")] {
        let mut damaged = lines.clone();
        damaged[number - 1] = line;
        let damaged = damaged.join("\n") + "\n";
        place.write("probe/probe.jsonl", &damaged);
        let message = place.refuse(&format!("{TINY} --measure layers --out probe"));
        let words = format!("probe.jsonl:{number}: not a measurement");
        assert!(message.contains(&words), "{message}");
        let after = fs::read_to_string(place.path("probe/probe.jsonl")).unwrap();
        assert_eq!(after, damaged);
    }
    let headless = lines[1..].join("\n") + "\n";
    place.write("probe/probe.jsonl", headless);
    let message = place.refuse(&format!("{TINY} --measure layers --out probe"));
    assert!(
        message.contains("does not begin with its setting"),
        "{message}"
    );
}

/// Two processes do not measure into one file.
#[test]
fn one_probe_at_a_time() {
    let place = Place::new();
    let long = TINY.replace("--steps 4", "--steps 4000");
    let mut child = place
        .command(&format!("{long} --out probe"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !place.path("probe/probe.jsonl").exists() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(2));
    }
    let second = place.run(&format!("{long} --out probe"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(stderr(&second).contains("in use by another probe"));
}

/// Fields in the page's tables by kind, and those of them that are optional.
fn documented() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let mut found: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    let mut kind = None;
    for line in PAGE.lines() {
        if line.starts_with('#') {
            let name = line.strip_prefix("### `");
            kind = name
                .and_then(|rest| rest.strip_suffix('`'))
                .map(str::to_string);
        }
        if let (Some(kind), Some(row)) = (&kind, line.strip_prefix("| `")) {
            let (field, rest) = row.split_once("` |").unwrap();
            let (all, optional) = found.entry(kind.clone()).or_default();
            assert!(all.insert(field.to_string()), "{field} twice");
            if rest.starts_with(" optional |") {
                optional.insert(field.to_string());
            }
        }
    }
    found
}

#[test]
fn the_page_has_every_field_and_no_other() {
    let place = Place::new();
    place.succeed(&format!("{TINY} --out probe"));
    // A rate at which everything diverges.
    place.succeed(&format!("{TINY} --out hot --lr 1e30 --measure layers,init"));
    let mut found: BTreeMap<String, Vec<BTreeSet<String>>> = BTreeMap::new();
    for dir in ["probe", "hot"] {
        let text = fs::read_to_string(place.path(dir).join("probe.jsonl")).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let fields = line.as_object().unwrap();
            let mut names: BTreeSet<String> = fields.keys().cloned().collect();
            names.remove("kind");
            for (list, nested) in [("looks", "looks"), ("layers", "layers"), ("model", "model")] {
                let inner = match &fields.get(list) {
                    Some(Value::Array(items)) => items.first().and_then(Value::as_object),
                    Some(Value::Object(inner)) => Some(inner),
                    _ => None,
                };
                let inner = inner.into_iter().flat_map(|inner| inner.keys());
                names.extend(inner.map(|name| format!("{nested}.{name}")));
            }
            let kind = fields["kind"].as_str().unwrap().to_string();
            found.entry(kind).or_default().push(names);
        }
    }
    let page = documented();
    let kinds = |map: &BTreeSet<&String>| map.iter().map(|kind| kind.to_string()).collect();
    let (a, b): (Vec<String>, Vec<String>) = (
        kinds(&found.keys().collect()),
        kinds(&page.keys().collect()),
    );
    assert_eq!(a, b);
    for (kind, lines) in &found {
        let (all, optional) = &page[kind];
        let seen: BTreeSet<String> = lines.iter().flatten().cloned().collect();
        assert_eq!(&seen, all, "{kind}");
        for names in lines {
            let missing = all.difference(names).filter(|name| !name.contains('.'));
            for name in missing {
                assert!(
                    optional.contains(name),
                    "{kind}: {name} is missing somewhere"
                );
            }
        }
    }
}
