//! The key/value cache of incremental decoding.

use burn::tensor::Tensor;

use crate::error::ConfigError;

/// Normed and rotated keys and normed values of all layers, in buffers of a fixed capacity.
///
/// The reference caches keys before the rotation and rotates all of them in each step (`model.py`,
/// `OLMoBlock.attention`); rotating once is the same number, cheaper.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<Option<[Tensor<4>; 2]>>,
    len: usize,
    capacity: usize,
}

impl KvCache {
    /// An empty cache for `n_layers` layers and at most `capacity` tokens.
    pub fn new(n_layers: usize, capacity: usize) -> Self {
        Self {
            layers: vec![None; n_layers],
            len: 0,
            capacity,
        }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Refuses more tokens than fit.
    ///
    /// # Errors
    /// When `n` more tokens would pass the capacity.
    pub fn check_room(&self, n: usize) -> Result<(), ConfigError> {
        if self.len + n > self.capacity {
            return Err(ConfigError::new(
                "cache length",
                self.len + n,
                format!("at most its capacity of {} tokens", self.capacity),
            ));
        }
        Ok(())
    }

    /// Appends `layer`'s keys and values of the current tokens and returns all it holds of them.
    ///
    /// # Shapes
    /// - input `[batch, n_kv_heads, new, head_dim]`
    /// - output `[batch, n_kv_heads, len + new, head_dim]`
    ///
    /// # Panics
    /// When the tokens do not fit ([`check_room`](Self::check_room)) or the layer does not exist.
    pub(crate) fn extend(&mut self, layer: usize, new: [Tensor<4>; 2]) -> [Tensor<4>; 2] {
        let [batch, heads, n, dim] = new[0].dims();
        let (len, capacity) = (self.len, self.capacity);
        let held = self.layers[layer].take().unwrap_or_else(|| {
            let options = (&new[0].device(), new[0].dtype());
            [(); 2].map(|()| Tensor::zeros([batch, heads, capacity, dim], options))
        });
        let [old_keys, old_values] = held;
        let [keys, values] = new;
        let place = [0..batch, 0..heads, len..len + n, 0..dim];
        let keys = old_keys.slice_assign(place.clone(), keys);
        let values = old_values.slice_assign(place, values);
        let view = [keys.clone(), values.clone()].map(|held| held.narrow(2, 0, len + n));
        self.layers[layer] = Some([keys, values]);
        view
    }

    /// Counts `n` tokens as held, after all layers have been extended by them. A [`Decoder`](crate::Decoder) does it by
    /// itself; a model of your own that runs blocks in a [cached pass](crate::Pass::cached) does it after the last block.
    pub fn advance(&mut self, n: usize) {
        self.len += n;
    }
}
