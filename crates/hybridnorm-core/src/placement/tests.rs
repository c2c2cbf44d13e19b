use super::*;

fn equations(name: &str, n_layers: usize) -> String {
    let placement: Placement = name.parse().unwrap();
    placement.equations(n_layers).unwrap().to_string()
}

/// Block equations as the paper prints them (§1.1, §1.2 of paper.md), by equation number.
#[test]
fn rows_read_like_the_paper() {
    for (name, expected) in [
        ("post", "layers 0-3: Y = N(X + Attn(X)); X⁺ = N(Y + FFN(Y))"),
        ("pre", "layers 0-3: Y = X + Attn(N(X)); X⁺ = Y + FFN(N(Y))"),
        (
            "hybrid",
            "layers 0-3: Y = X + Attn_QKV(X); X⁺ = N(Y) + FFN(N(Y))",
        ),
        (
            "hybrid-star",
            "layer 0: Y = X + Attn_QKV(N(X)); X⁺ = Y + FFN(N(Y))\nlayers 1-3: Y = X + Attn_QKV(X); X⁺ = N(Y) + FFN(N(Y))",
        ),
        (
            "first-qkv-pre",
            "layer 0: Y = X + Attn_QKV(X); X⁺ = Y + FFN(N(Y))\nlayers 1-3: Y = X + Attn_QKV(X); X⁺ = N(Y) + FFN(N(Y))",
        ),
        (
            "post-pre",
            "layers 0-3: Y = N(X) + Attn(N(X)); X⁺ = Y + FFN(N(Y))",
        ),
        (
            "pre-qk-post",
            "layers 0-3: Y = X + Attn_QK(N(X)); X⁺ = N(Y) + FFN(N(Y))",
        ),
        (
            "kc-post",
            "layers 0-3: Y = X + Attn_KC(X); X⁺ = N(Y) + FFN(N(Y))",
        ),
        (
            "output-norm",
            "layers 0-3: Y = X + N(Attn_QK(full)(X)); X⁺ = Y + N(FFN(Y))",
        ),
        (
            "peri-ln",
            "layers 0-3: Y = X + N(Attn(N(X))); X⁺ = Y + N(FFN(N(Y)))",
        ),
        (
            "deepnorm",
            "layers 0-3: Y = N(1.6818·X + Attn(X)); X⁺ = N(1.6818·Y + FFN(Y))",
        ),
        (
            "mix-ln",
            "layer 0: Y = N(X + Attn(X)); X⁺ = N(Y + FFN(Y))\nlayers 1-3: Y = X + Attn(N(X)); X⁺ = Y + FFN(N(Y))",
        ),
    ] {
        assert_eq!(equations(name, 4), expected, "{name}");
    }
}

/// MiniMax-01 ships α = 3.5565588200778455 for 80 layers.
#[test]
fn minimax_alpha_is_the_published_one() {
    let norms = "minimax"
        .parse::<Placement>()
        .unwrap()
        .layer(7, 80)
        .unwrap();
    assert!((norms.attention.alpha - 3.556_558_820_077_845_5).abs() < 1e-12);
}

#[test]
fn layernorm_scaling_divides_by_the_root_of_the_layer() {
    let placement: Placement = "layernorm-scaling".parse().unwrap();
    assert_eq!(placement.layer(3, 9).unwrap().attention.input_scale, 0.5);
    assert_eq!(
        placement.layer(8, 9).unwrap().feed_forward.input_scale,
        1.0 / 3.0
    );
}

#[test]
fn names_are_unique_and_round_trip() {
    for row in PLACEMENTS {
        let placement: Placement = row.name.parse().unwrap();
        assert_eq!(placement.row(), Some(row));
        assert_eq!(placement.to_string(), row.name);
        let json = serde_json::to_string(&placement).unwrap();
        assert_eq!(json, format!("\"{}\"", row.name));
        assert_eq!(serde_json::from_str::<Placement>(&json).unwrap(), placement);
    }
    let mut names: Vec<_> = PLACEMENTS.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PLACEMENTS.len());
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    let error = "hybrid_star".parse::<Placement>().unwrap_err().to_string();
    assert!(error.contains("did you mean \"hybrid-star\"?"), "{error}");
    let error = "mix-ln=1.5".parse::<Placement>().unwrap_err().to_string();
    assert!(error.contains("between 0 and 1"), "{error}");
    assert!("pre=0.5".parse::<Placement>().is_err());
}

#[test]
fn overrides_and_custom_rows_round_trip() {
    let json = r#"{"base":"hybrid","layers":{"1":{"attention":{"input":true},"qkv":{"value":{"span":"per-head","affine":false}}}}}"#;
    let placement: Placement = serde_json::from_str(json).unwrap();
    assert_eq!(
        placement.equations(3).unwrap().to_string(),
        "layer 0: Y = X + Attn_QKV(X); X⁺ = N(Y) + FFN(N(Y))\nlayer 1: Y = X + Attn_V(N(X)); X⁺ = Y + FFN(Y)\nlayer 2: Y = X + Attn_QKV(X); X⁺ = N(Y) + FFN(N(Y))"
    );
    let back = serde_json::to_string(&placement).unwrap();
    assert_eq!(serde_json::from_str::<Placement>(&back).unwrap(), placement);
    assert!(
        placement
            .layer(0, 1)
            .unwrap_err()
            .to_string()
            .contains("placement.layers = 1")
    );

    let custom = Placement::custom(LayerNorms::new(
        QkvNormSites::QKV,
        ResidualNorms::SANDWICH,
        ResidualNorms::OUTPUT,
    ));
    let back = serde_json::to_string(&custom).unwrap();
    assert_eq!(serde_json::from_str::<Placement>(&back).unwrap(), custom);
}

/// A mistake inside a table is named, however deep.
#[test]
fn mistakes_in_tables_are_named() {
    for (json, word) in [
        (r#"{"custom":{"attn":{}}}"#, "unknown field `attn`"),
        (
            r#"{"custom":{"qkv":{"query":"per-haed"}}}"#,
            "did you mean \"per-head\"?",
        ),
        (
            r#"{"custom":{"qkv":{"query":{"span":"per-head"}}}}"#,
            "missing field `affine`",
        ),
        (
            r#"{"custom":{"qkv":{"query":true}}}"#,
            "\"full-width\" or a table",
        ),
        (r#"{"base":"hybird"}"#, "did you mean \"hybrid\"?"),
        (
            r#"{"base":"hybrid","layers":{"first":{}}}"#,
            "placement.layers = first",
        ),
        ("{}", "either base"),
        ("3", "the name of a placement"),
    ] {
        let error = serde_json::from_str::<Placement>(json).unwrap_err();
        assert!(error.to_string().contains(word), "{json}: {error}");
    }
    let factor = ResidualNorms::PLAIN.with_alpha(f64::NAN);
    let norms = LayerNorms::new(QkvNormSites::NONE, ResidualNorms::PRE, factor);
    let error = Placement::default().with_layer(1, norms).layer(1, 2);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("layer 1: feed_forward.alpha = NaN")
    );
}

#[test]
fn known_clashes_warn() {
    let clash = |name: &str, init| name.parse::<Placement>().unwrap().clash(init);
    assert!(clash("layernorm-scaling", InitScheme::Megatron).is_some());
    assert!(clash("layernorm-scaling", InitScheme::Normal).is_none());
    assert!(clash("hybrid", InitScheme::Normal).is_some());
    assert!(clash("deepnorm", InitScheme::Megatron).is_some());
    for row in PLACEMENTS {
        assert!(
            (row.clash)(row.init).is_none(),
            "{} clashes with its own default",
            row.name
        );
    }
}

#[test]
fn only_the_diverging_row_is_unbounded() {
    for row in PLACEMENTS {
        let norms = Placement::from(row).layer(1, 4).unwrap();
        assert_eq!(
            norms.is_attention_unbounded(),
            row.name == "qk-post",
            "{}",
            row.name
        );
    }
}

/// A norm stands before the head unless the last block ends with one, whatever made it so.
#[test]
fn the_final_norm_follows_the_last_block() {
    let ends = |text: &str| !text.parse::<Placement>().unwrap().final_norm(4).unwrap();
    assert!(ends("post") && ends("deepnorm") && ends("mix-ln=1"));
    assert!(!ends("mix-ln") && !ends("hybrid-star") && !ends("post-shifted"));
    let post: Placement = "post".parse().unwrap();
    let pre = LayerNorms::new(QkvNormSites::NONE, ResidualNorms::PRE, ResidualNorms::PRE);
    assert!(post.with_layer(3, pre).final_norm(4).unwrap());
}
