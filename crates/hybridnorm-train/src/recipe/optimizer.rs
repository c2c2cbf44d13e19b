//! The optimiser over a whole module: each parameter by the rule of its group.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use hybridnorm_kernels::{AdamWStep, adamw};

use super::config::OptimizerConfig;
use super::groups::{muon_columns, params};
use super::muon::{MuonConfig, MuonStep};
use super::update::{ParamGroup, Update};

/// The optimiser and its state: the moments of every parameter, and the number of steps taken.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    rules: HashMap<ParamId, Rule>,
    moments: Moments,
    steps: u64,
}

/// What the optimiser remembers of the gradients, by parameter.
#[derive(Debug, Default)]
pub struct Moments {
    /// AdamW's running mean of the gradients.
    pub first: GradientsParams,
    /// AdamW's running mean of their squares.
    pub second: GradientsParams,
    /// Muon's momentum, of the parameters that are its.
    pub momentum: GradientsParams,
}

/// How one parameter is stepped.
#[derive(Debug)]
struct Rule {
    decays: bool,
    group: ParamGroup,
    /// The widths of Muon's matrices side by side in it; AdamW's where empty.
    muon: Vec<usize>,
}

impl Optimizer {
    /// A fresh optimiser for `module`.
    pub fn new<M: Module>(config: impl Into<OptimizerConfig>, module: &M) -> Self {
        let config = config.into();
        let groups = config.adamw.groups();
        let with_muon = config.muon().is_some();
        let params = params(module);
        let rules = params.iter().map(|param| {
            let rule = Rule {
                decays: groups.decays(param),
                group: ParamGroup::of(param),
                muon: match with_muon {
                    true => muon_columns(param, &params),
                    false => Vec::new(),
                },
            };
            (param.id, rule)
        });
        Self {
            rules: rules.collect(),
            config,
            moments: Moments::default(),
            steps: 0,
        }
    }

    /// Continues from saved state.
    pub fn restore(&mut self, moments: Moments, steps: u64) {
        self.moments = moments;
        self.steps = steps;
    }

    /// What is remembered of every parameter that has had a gradient.
    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes one step. Gradients are multiplied by `scale` first: averaging over micro-batches times clipping.
    pub fn step<M: Module>(&mut self, module: M, grads: GradientsParams, lr: f64, scale: f64) -> M {
        self.take(module, grads, lr, scale, None)
    }

    /// As [`step`](Self::step), and tells how far the weights moved. It keeps the weights of before for as long.
    pub fn measured_step<M: Module>(
        &mut self,
        module: M,
        grads: GradientsParams,
        lr: f64,
        scale: f64,
    ) -> (M, Update) {
        let mut update = Update::default();
        let module = self.take(module, grads, lr, scale, Some(&mut update));
        (module, update)
    }

    fn take<M: Module>(
        &mut self,
        module: M,
        grads: GradientsParams,
        lr: f64,
        scale: f64,
        measured: Option<&mut Update>,
    ) -> M {
        self.steps += 1;
        let adamw = self.config.adamw.step(self.steps, lr, scale);
        module.map(&mut Step {
            grads,
            adamw,
            muon: self.config.muon(),
            lr,
            weight_decay: self.config.adamw.weight_decay,
            rules: &self.rules,
            moments: &mut self.moments,
            measured,
        })
    }
}

struct Step<'a> {
    grads: GradientsParams,
    adamw: AdamWStep,
    muon: Option<MuonConfig>,
    lr: f64,
    weight_decay: f64,
    rules: &'a HashMap<ParamId, Rule>,
    moments: &'a mut Moments,
    measured: Option<&'a mut Update>,
}

impl Step<'_> {
    fn update<const D: usize>(
        &mut self,
        id: ParamId,
        weight: Tensor<D>,
        grad: Tensor<D>,
    ) -> Tensor<D> {
        let rule = self.rules.get(&id);
        match (rule, &self.muon) {
            (Some(Rule { decays, muon, .. }), Some(config)) if !muon.is_empty() => {
                let momentum = self.moments.momentum.remove(id);
                let momentum = momentum.unwrap_or_else(|| weight.zeros_like());
                let at = MuonStep {
                    grad_scale: self.adamw.scale,
                    lr: self.lr,
                    weight_decay: if *decays { self.weight_decay } else { 0.0 },
                };
                let (weight, momentum) = config.step(weight, grad, momentum, muon, at);
                self.moments.momentum.register(id, momentum);
                weight
            }
            (rule, _) => self.adamw(id, weight, grad, rule.is_some_and(|rule| rule.decays)),
        }
    }

    fn adamw<const D: usize>(
        &mut self,
        id: ParamId,
        weight: Tensor<D>,
        grad: Tensor<D>,
        decays: bool,
    ) -> Tensor<D> {
        let Moments { first, second, .. } = &mut self.moments;
        let state =
            [first, second].map(|moment| moment.remove(id).unwrap_or_else(|| weight.zeros_like()));
        let step = match decays {
            true => self.adamw,
            false => AdamWStep {
                keep: 1.0,
                ..self.adamw
            },
        };
        let (weight, [first, second]) = adamw(weight, grad, state, step);
        self.moments.first.register(id, first);
        self.moments.second.register(id, second);
        weight
    }
}

impl ModuleMapper for Step<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove::<D>(param.id) else {
            return param;
        };
        let id = param.id;
        param.map(|weight| {
            let checkpointing = weight.gradient_checkpointing_strategy();
            let weight = weight.inner();
            let before = self.measured.is_some().then(|| weight.clone());
            let updated = self.update(id, weight, grad);
            if let (Some(before), Some(measured)) = (before, &mut self.measured)
                && let Some(rule) = self.rules.get(&id)
            {
                measured.add(id, rule.group, before, updated.clone());
            }
            let updated = Tensor::from_inner(updated);
            let updated = match checkpointing {
                Some(strategy) => updated.with_gradient_checkpointing_strategy(strategy),
                None => updated,
            };
            updated.require_grad()
        })
    }
}
