//! The figures that every layer has: in `diagnostics` lines of a run's log, and in the looks of a probe.

/// A figure of each layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerFigure {
    /// Its path in a line.
    pub path: &'static str,
    /// What files that hold it are called.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What its axis shows.
    pub unit: &'static str,
    /// Whether equal steps of the axis are equal factors.
    pub log: bool,
}

/// All of them. A look of a probe has no update ratios.
pub(super) const LAYER_FIGURES: [LayerFigure; 9] = [
    LayerFigure {
        path: "gradient_norm.attention",
        id: "gradient-attention",
        title: "Gradient norm of attention by layer",
        unit: "norm",
        log: true,
    },
    LayerFigure {
        path: "gradient_norm.feed_forward",
        id: "gradient-feed-forward",
        title: "Gradient norm of the feed-forward layer by layer",
        unit: "norm",
        log: true,
    },
    LayerFigure {
        path: "activation_rms",
        id: "activation-rms",
        title: "RMS of the stream behind each layer",
        unit: "RMS",
        log: true,
    },
    LayerFigure {
        path: "token_similarity",
        id: "token-similarity",
        title: "Mean cosine of pairs of tokens behind each layer",
        unit: "cosine",
        log: false,
    },
    LayerFigure {
        path: "attention_entropy",
        id: "attention-entropy",
        title: "Entropy of attention by layer",
        unit: "nats",
        log: false,
    },
    LayerFigure {
        path: "least_head_entropy",
        id: "least-head-entropy",
        title: "Entropy of the head that has the least, by layer",
        unit: "nats",
        log: false,
    },
    LayerFigure {
        path: "largest_logit",
        id: "largest-logit",
        title: "Largest attention logit by layer",
        unit: "logit",
        log: true,
    },
    LayerFigure {
        path: "update_ratio.attention",
        id: "update-ratio-attention",
        title: "‖Δw‖/‖w‖ of attention by layer",
        unit: "‖Δw‖/‖w‖",
        log: true,
    },
    LayerFigure {
        path: "update_ratio.feed_forward",
        id: "update-ratio-feed-forward",
        title: "‖Δw‖/‖w‖ of the feed-forward layer by layer",
        unit: "‖Δw‖/‖w‖",
        log: true,
    },
];
