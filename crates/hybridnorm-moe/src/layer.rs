//! Dense or sparse, layer by layer.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::{Device, Tensor};
use hybridnorm_core::{DenseFeedForward, FeedForward, Pass};

use crate::feed_forward::SparseFeedForward;
use crate::router::Routing;

/// The feed-forward layer of a block in a model that may have dense and sparse ones.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // one of each per block, and never moved about
pub enum FeedForwardLayer {
    /// Reports nothing.
    Dense(DenseFeedForward),
    /// Reports its routing.
    Sparse(SparseFeedForward),
}

impl FeedForward for FeedForwardLayer {
    type Report = Routing;

    fn forward(&self, x: Tensor<3>, pass: &mut Pass<Routing>) -> Tensor<3> {
        match self {
            Self::Dense(dense) => dense.forward_in(x, pass),
            Self::Sparse(sparse) => sparse.forward(x, pass),
        }
    }
}

impl FeedForwardLayer {
    /// The layer, if it is sparse.
    pub fn as_sparse(&self) -> Option<&SparseFeedForward> {
        match self {
            Self::Dense(_) => None,
            Self::Sparse(sparse) => Some(sparse),
        }
    }
}

/// The same expression for either layer.
macro_rules! either {
    ($self:ident, $layer:ident => $value:expr) => {
        match $self {
            Self::Dense($layer) => $value,
            Self::Sparse($layer) => $value,
        }
    };
    ($self:ident, $layer:ident -> $value:expr) => {
        match $self {
            Self::Dense($layer) => Self::Dense($value),
            Self::Sparse($layer) => Self::Sparse($value),
        }
    };
}

/// By hand, because the derived one puts the variant's name into the path of every parameter: `feed_forward.Dense.input.weight`.
impl Module for FeedForwardLayer {
    fn collect_devices(&self, devices: Devices) -> Devices {
        either!(self, layer => layer.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        either!(self, layer -> layer.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        either!(self, layer -> layer.to_device(device))
    }

    fn train(self) -> Self {
        either!(self, layer -> layer.train())
    }

    fn valid(&self) -> Self {
        either!(self, layer -> layer.valid())
    }

    fn materialize(self) -> Self {
        either!(self, layer -> layer.materialize())
    }

    fn num_params(&self) -> usize {
        either!(self, layer => Module::num_params(layer))
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        either!(self, layer => layer.visit(visitor));
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        either!(self, layer -> layer.map(mapper))
    }
}

impl ModuleDisplayDefault for FeedForwardLayer {
    fn content(&self, content: Content) -> Option<Content> {
        either!(self, layer => layer.content(content))
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl ModuleDisplay for FeedForwardLayer {}
