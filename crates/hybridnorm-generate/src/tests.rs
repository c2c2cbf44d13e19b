use burn::tensor::Device;
use hybridnorm_core::{DecoderConfig, FeedForward};
use hybridnorm_moe::{ModelConfig, SparseConfig};
use hybridnorm_testing::{any_device, apply, every_device};
use hybridnorm_tokenizer::Tokenizer;

use super::*;

#[apply(every_device!)]
fn the_cache_changes_nothing(#[case] device: &Device) {
    let model = DecoderConfig::new(40, 32, 4, 3).init(device).unwrap();
    let with = greedy(&model, &[1, 2, 3], 12, true, 40).unwrap();
    let without = greedy(&model, &[1, 2, 3], 12, false, 40).unwrap();
    assert_eq!(with, without);
    assert_eq!(with.len(), 12);
}

#[apply(every_device!)]
fn the_cache_changes_nothing_in_a_sparse_model(#[case] device: &Device) {
    let config = ModelConfig {
        decoder: DecoderConfig::new(40, 32, 4, 3),
        sparse: Some(SparseConfig::new(4, 2, 24)),
    };
    let model = config.init(device).unwrap();
    let with = greedy(&model, &[1, 2, 3], 12, true, 40).unwrap();
    let without = greedy(&model, &[1, 2, 3], 12, false, 40).unwrap();
    assert_eq!(with, without);
}

/// Texts that outgrow the window, at different times, give what each gives alone and without a cache.
#[apply(every_device!)]
fn texts_may_outgrow_their_window(#[case] device: &Device) {
    let model = DecoderConfig::new(40, 32, 4, 1).init(device).unwrap();
    let prompts: [&[u32]; 2] = [&[1, 2, 3, 4, 5], &[6]];
    let mut both = Texts::new(&model, 8, 100);
    let mut alone = prompts.map(|_| Texts::new(&model, 8, 100).without_cache());
    let close = |a: &[f32], b: &[f32]| {
        assert_eq!((a.len(), b.len()), (40, 40));
        let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        assert!(differences.fold(0f32, f32::max) < 2e-5);
    };
    for (prompt, alone) in prompts.iter().zip(&mut alone) {
        close(&both.begin(prompt).unwrap(), &alone.begin(prompt).unwrap());
    }
    for id in 0..20 {
        let next = [id, 39 - id];
        let found = both.step(&next).unwrap();
        for ((found, id), alone) in found.iter().zip(next).zip(&mut alone) {
            close(found, &alone.step(&[id]).unwrap()[0]);
        }
    }
    assert_eq!(Texts::new(&model, 8, 9).begin(&[1; 20]).unwrap().len(), 40);
}

/// All texts of `prompts`, with why they ended and how many tokens they have.
fn written<F: FeedForward + Sync>(
    generator: &Generator<'_, F>,
    prompts: &[Vec<u32>],
    settings: &Settings,
) -> Vec<(String, Option<Ending>, usize)> {
    let mut all = vec![(String::new(), None, 0); prompts.len()];
    let report = generator.run(prompts, settings, |index, event| {
        match event {
            Event::Text(text) => all[index].0 += &text,
            Event::Ended { ending, tokens } => {
                (all[index].1, all[index].2) = (Some(ending), tokens)
            }
        }
        true
    });
    let report = report.unwrap();
    assert_eq!(report.prompt_tokens, prompts.concat().len());
    assert_eq!(report.tokens, all.iter().map(|text| text.2).sum::<usize>());
    all
}

/// A text is the same whichever are written beside it: prompts of unequal length, drawn and greedy, some ended by a stop string.
#[apply(every_device!)]
fn a_text_does_not_depend_on_its_batch(#[case] device: &Device) {
    let model = DecoderConfig::new(257, 32, 4, 2).init(device).unwrap();
    let generator = Generator {
        model: &model,
        tokenizer: &Tokenizer::Byte,
        window: 40,
        ends: &[256],
    };
    let prompts: Vec<Vec<u32>> = ["The", "a", "rather longer", "x y"]
        .map(|text| text.bytes().map(u32::from).collect())
        .into();
    for temperature in [0.0, 1.0] {
        let settings = |batch| Settings {
            tokens: 24,
            sampling: Sampling {
                temperature,
                ..Sampling::default()
            },
            stops: vec!["e".to_string(), "\u{1}".to_string()],
            batch,
        };
        let alone = written(&generator, &prompts, &settings(1));
        for batch in [2, 3, 4, 9] {
            assert_eq!(written(&generator, &prompts, &settings(batch)), alone);
        }
    }
}

#[apply(every_device!)]
fn a_text_ends_as_it_should(#[case] device: &Device) {
    let config = DecoderConfig {
        tied: false,
        ..DecoderConfig::new(257, 32, 4, 1)
    };
    let model = config.init(device).unwrap();
    let mut generator = Generator {
        model: &model,
        tokenizer: &Tokenizer::Byte,
        window: 16,
        ends: &[],
    };
    let settings = Settings {
        tokens: 6,
        sampling: Sampling {
            temperature: 0.0,
            ..Sampling::default()
        },
        ..Settings::default()
    };
    // A beginning that goes on with a token which had not been there before: that token is to end the text.
    let (prompt, tokens, place) = (0..256)
        .find_map(|first| {
            let tokens = greedy(&model, &[first], 6, true, 257).unwrap();
            let place = (1..6).find(|i| !tokens[..*i].contains(&tokens[*i]))?;
            Some((vec![vec![first]], tokens, place))
        })
        .expect("texts that are not one token over and over");
    let all = written(&generator, &prompt, &settings);
    assert_eq!(all[0].1, Some(Ending::Length));
    assert_eq!(all[0].2, 6);
    assert_eq!(all[0].0, Tokenizer::Byte.decode(&tokens).unwrap());
    let ends = [tokens[place]];
    generator.ends = &ends;
    let all = written(&generator, &prompt, &settings);
    assert_eq!((all[0].1, all[0].2), (Some(Ending::End), place + 1));
    let none = Settings {
        tokens: 0,
        ..settings.clone()
    };
    let mut events = Vec::new();
    let report = generator.run(&prompt, &none, |_, event| {
        events.push(event);
        true
    });
    assert_eq!(report.unwrap(), Report::default());
    assert_eq!(events.len(), 1);
    // A reader who has had enough is obeyed at once.
    let mut events = 0;
    let _ = generator.run(&[vec![65], vec![66]], &settings, |_, _| {
        events += 1;
        false
    });
    assert_eq!(events, 1);
}

#[test]
fn what_cannot_be_written_is_refused() {
    let model = DecoderConfig::new(257, 32, 4, 1)
        .init(&any_device())
        .unwrap();
    let generator = Generator {
        model: &model,
        tokenizer: &Tokenizer::Byte,
        window: 4,
        ends: &[],
    };
    let refused = |prompt: &[u32], stops: &[&str]| {
        let settings = Settings {
            tokens: 1,
            stops: stops.iter().map(|stop| (*stop).to_string()).collect(),
            ..Settings::default()
        };
        let result = generator.run(&[prompt.to_vec()], &settings, |_, _| true);
        result.unwrap_err().to_string()
    };
    let message = refused(&[1; 5], &[]);
    assert!(
        message.contains('5') && message.contains("at most 4"),
        "{message}"
    );
    assert!(refused(&[], &[]).contains("at least one"));
    assert!(refused(&[1], &[""]).contains("stop"));
}
