//! `docs/metrics.md` documents every field of `metrics.jsonl`, and none besides.

use std::collections::{BTreeMap, BTreeSet};

use hybridnorm_train::engine::{
    Diagnostics, Evaluation, ForwardFigures, PartFigures, Record, RouterRecord, StepRecord,
    TaskRecord,
};
use hybridnorm_train::guard::Action;
use hybridnorm_train::recipe::ParamGroup;
use serde_json::Value;

const PAGE: &str = include_str!("../../../../docs/metrics.md");

const GROUPS: [ParamGroup; 8] = [
    ParamGroup::Embedding,
    ParamGroup::Attention,
    ParamGroup::FeedForward,
    ParamGroup::Router,
    ParamGroup::Experts,
    ParamGroup::Norms,
    ParamGroup::Head,
    ParamGroup::Other,
];

/// A step with every optional field, or with none.
fn step(full: bool) -> Record {
    let some = |value: f64| full.then_some(value);
    let router = RouterRecord {
        layer: 0,
        dead: 0,
        max_violation: 0.0,
        effective_experts: 1.0,
        entropy: 1.0,
        dropped: 0.0,
        load: Some(vec![1.0]),
    };
    Record::Step(StepRecord {
        step: 1,
        tokens: 1,
        loss: 1.0,
        balance_loss: some(1.0),
        router_z_loss: some(1.0),
        lr: 1.0,
        grad_norm: 1.0,
        tokens_per_s: 1.0,
        mfu: some(1.0),
        peak_tflops: some(1.0),
        peak_measured: full,
        update_ratios: GROUPS.iter().filter(|_| full).map(|g| (*g, 0.5)).collect(),
        elapsed_s: 1.0,
        routers: if full { vec![router] } else { Vec::new() },
    })
}

/// Of a model with a head of its own, or with none; with a layer of which nothing can be said.
fn diagnostics(head: bool) -> Record {
    let layers = || vec![Some(1.0), None];
    let parts = || PartFigures {
        embedding: Some(1.0),
        attention: layers(),
        feed_forward: layers(),
        norms: layers(),
        head: head.then_some(1.0),
        other: None,
    };
    Record::Diagnostics(Box::new(Diagnostics {
        step: 1,
        tokens: 1,
        gradient_norm: parts(),
        weight_norm: parts(),
        update_ratio: parts(),
        forward: ForwardFigures {
            embedding_rms: Some(1.0),
            activation_rms: layers(),
            embedding_similarity: None,
            token_similarity: layers(),
            attention_entropy: layers(),
            least_head_entropy: layers(),
            largest_logit: layers(),
            sequences: 1,
        },
        seconds: 1.0,
    }))
}

fn others() -> Vec<Record> {
    let text = String::new;
    vec![
        diagnostics(true),
        Record::Evaluation {
            step: 1,
            tokens: 1,
            evaluation: Evaluation {
                nats_per_token: 1.0,
                bits_per_byte: 1.0,
            },
        },
        Record::Task {
            step: 1,
            tokens: 1,
            record: TaskRecord {
                task: text(),
                questions: 1,
                accuracy: Some(1.0),
                accuracy_error: Some(1.0),
                accuracy_per_token: Some(1.0),
                accuracy_per_character: Some(1.0),
                accuracy_per_byte: Some(1.0),
                accuracy_unconditional: Some(1.0),
                chance: Some(1.0),
                gold_bits_per_byte: 1.0,
            },
        },
        Record::Router {
            step: 1,
            layer: 0,
            collapsed: true,
            message: text(),
        },
        Record::Guard {
            step: 1,
            refused: 1,
            action: Action::Skip,
            message: text(),
        },
        Record::Change {
            step: 1,
            field: text(),
            from: text(),
            to: text(),
        },
    ]
}

/// Kind and fields of a record; those of a router as `routers.FIELD`, those of the parts of a model, which three fields have, as
/// `gradient_norm.PART`.
fn fields(record: &Record) -> (String, BTreeSet<String>) {
    let Value::Object(mut object) = serde_json::to_value(record).unwrap() else {
        panic!("no object");
    };
    let kind = object.remove("kind").unwrap().as_str().unwrap().to_string();
    let mut names: BTreeSet<String> = object.keys().cloned().collect();
    if let Some(router) = object.get("routers").and_then(|routers| routers.get(0)) {
        let inner = router.as_object().unwrap().keys();
        names.extend(inner.map(|name| format!("routers.{name}")));
    }
    if let Some(parts) = object.get("gradient_norm") {
        let inner = parts.as_object().unwrap().keys();
        names.extend(inner.map(|name| format!("gradient_norm.{name}")));
    }
    (kind, names)
}

/// Fields in the page's tables, by kind, and those of them that are optional.
fn documented() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let mut found: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    let mut kind = None;
    for line in PAGE.lines() {
        if line.starts_with('#') {
            let name = line
                .strip_prefix("### `")
                .and_then(|rest| rest.strip_suffix('`'));
            kind = name.map(str::to_string);
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
    let page = documented();
    let records: Vec<Record> = [step(true)].into_iter().chain(others()).collect();
    let kinds: BTreeSet<String> = records.iter().map(|record| fields(record).0).collect();
    assert_eq!(kinds, page.keys().cloned().collect());
    for record in &records {
        let (kind, names) = fields(record);
        assert_eq!(names, page[&kind].0, "{kind}");
    }
    let (_, least) = fields(&step(false));
    let (all, optional) = &page["step"];
    let inner = |name: &&String| !name.contains('.');
    let required: BTreeSet<&String> = all.difference(optional).filter(inner).collect();
    assert_eq!(least.iter().collect::<BTreeSet<_>>(), required);
    let (_, least) = fields(&diagnostics(false));
    let (all, optional) = &page["diagnostics"];
    let required: BTreeSet<&String> = all.difference(optional).collect();
    assert_eq!(least.iter().collect::<BTreeSet<_>>(), required);
}

#[test]
fn every_record_reads_back_as_itself() {
    for record in [step(true), step(false), diagnostics(false)]
        .into_iter()
        .chain(others())
    {
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }
}

#[test]
fn the_page_names_every_group() {
    for group in GROUPS {
        let name = serde_json::to_value(group).unwrap();
        let name = format!("`{}`", name.as_str().unwrap());
        assert!(PAGE.contains(&name), "{name}");
    }
}
