//! Names in configuration files: which are known, and what is refused.

use hybridnorm_train::recipe::{MuonConfig, OptimizerConfig, OptimizerName, ScheduleShape};
use hybridnorm_train::run::{RunConfig, ScheduleConfig, TrainingConfig};
use rstest::rstest;

fn optimizer(text: &str) -> Result<OptimizerConfig, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

fn run(text: &str) -> RunConfig {
    let model = "[model]\nvocab_size = 32\npadded_vocab_size = 32\nd_model = 16\nn_layers = 2\nn_heads = 2\nn_kv_heads = 2\nd_ff = 32\nmax_seq_len = 256\ntied = true";
    toml::from_str(&format!("{text}\n{model}")).unwrap()
}

#[test]
fn every_name_reads_back_as_itself() {
    for (name, value, _) in OptimizerName::ALL {
        assert_eq!(
            optimizer(&format!("name = \"{name}\"")).unwrap().name,
            *value
        );
        assert_eq!(value.to_string(), *name);
    }
    for (name, value, _) in ScheduleShape::ALL {
        let read: ScheduleConfig = toml::from_str(&format!("shape = \"{name}\"")).unwrap();
        assert_eq!(read.shape, *value);
    }
}

#[rstest]
#[case("name = \"adamv\"", &["optimizer.name", "did you mean \"adamw\"?", "muon"])]
#[case("[muon]\nscale = \"rms\"", &["optimizer.muon.scale", "did you mean \"rms-match\"?"])]
#[case("[muon]\nmomentun = 0.9", &["momentun", "momentum"])]
#[case("beta3 = 0.9", &["beta3"])]
fn a_wrong_name_is_refused(#[case] text: &str, #[case] words: &[&str]) {
    let message = optimizer(text).unwrap_err();
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

#[rstest]
#[case("[optimizer.muon]\nmomentum = 0.9", "optimizer.muon")]
#[case(
    "[optimizer]\nname = \"muon\"\n[optimizer.muon]\nmomentum = 1.0",
    "optimizer.muon.momentum"
)]
#[case(
    "[optimizer]\nname = \"muon\"\n[optimizer.muon]\nnewton_schulz_steps = 0",
    "optimizer.muon.newton_schulz_steps"
)]
#[case(
    "[optimizer]\nname = \"muon\"\n[optimizer.muon]\nlr_multiple = 0.0",
    "optimizer.muon.lr_multiple"
)]
#[case("[optimizer]\nbeta2 = 1.0", "optimizer.beta2")]
#[case("[optimizer]\nmax_grad_norm = 0.0", "optimizer.max_grad_norm")]
#[case(
    "[optimizer.clip_warmup]\nfrom = 0.0\ntokens = 9",
    "optimizer.clip_warmup.from"
)]
#[case(
    "[optimizer.clip_warmup]\nfrom = 1.0\ntokens = 9",
    "optimizer.clip_warmup.from"
)]
#[case(
    "[optimizer.clip_warmup]\nfrom = 2.0\ntokens = 0",
    "optimizer.clip_warmup.tokens"
)]
#[case(
    "[optimizer.clip_warmup]\nfrom = 2.0\ntokens = 2000000",
    "optimizer.clip_warmup.tokens"
)]
#[case("[schedule.decay]\nfraction = 0.1", "schedule.decay")]
#[case(
    "[schedule]\nshape = \"wsd\"\ndecay = { fraction = 0.0 }",
    "schedule.decay.fraction"
)]
#[case(
    "[schedule]\nshape = \"wsd\"\ndecay = { fraction = 0.96 }",
    "schedule.decay.fraction"
)]
#[case(
    "[schedule]\nshape = \"wsd\"\ndecay = { fraction = nan }",
    "schedule.decay.fraction"
)]
fn a_value_that_cannot_be_or_does_nothing_is_refused(#[case] text: &str, #[case] field: &str) {
    assert_eq!(run(text).validate().unwrap_err().field, field);
}

/// 500 steps of 8 x 256 tokens.
#[test]
fn what_is_allowed_is_allowed() {
    assert_eq!(TrainingConfig::default().steps, 500);
    for text in [
        "[optimizer]\nname = \"muon\"",
        "[optimizer.clip_warmup]\nfrom = 2.0\ntokens = 1024000",
        "[schedule]\nshape = \"wsd\"\ndecay = { fraction = 0.95, shape = \"linear\" }",
    ] {
        run(text).validate().unwrap();
    }
}

#[test]
fn what_was_left_out_can_be_spelled_out() {
    let mut config = run("[optimizer]\nname = \"muon\"\n[schedule]\nshape = \"wsd\"");
    config.spell_out();
    assert_eq!(config.optimizer.muon, Some(MuonConfig::default()));
    let text = toml::to_string(&config).unwrap();
    for line in [
        "[optimizer.muon]",
        "scale = \"rms-match\"",
        "[schedule.decay]",
        "shape = \"1-sqrt\"",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), config);
    // A table that does nothing is still refused.
    let mut config = run("[optimizer.muon]\nmomentum = 0.9");
    config.spell_out();
    assert_eq!(config.validate().unwrap_err().field, "optimizer.muon");
}
