//! The key/value cache of incremental decoding.

use burn::tensor::{Int, Tensor};

use crate::error::ConfigError;

/// Normed and rotated keys and normed values of all layers, in buffers of a fixed capacity.
///
/// The sequences of a batch may differ in length: they end at the same place, so that the next token of each goes to one place, and the
/// places before the shorter ones are empty and never attended to.
///
/// The reference caches keys before the rotation and rotates all of them in each step (`model.py`,
/// `OLMoBlock.attention`); rotating once is the same number, cheaper.
///
/// Greedy decoding by [`Decoder::next_logits`](crate::Decoder::next_logits); the crate `hybridnorm-generate` does it with sampling, stop strings
/// and batches:
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use hybridnorm_core::DecoderConfig;
///
/// # #[cfg(feature = "flex")] {
/// let device = Device::flex();
/// let model = DecoderConfig::new(257, 64, 4, 2).init(&device)?;
/// let mut cache = model.new_cache(8); // tokens of the longest text
/// let mut text = vec![72, 121, 98];
/// let mut new = text.clone(); // the prompt at once, then token by token
/// while text.len() < 8 {
///     let tokens = Tensor::<1, Int>::from_ints(new.as_slice(), &device).unsqueeze();
///     let token = model.next_logits(tokens, &mut cache).argmax(1).into_scalar::<i64>();
///     text.push(token);
///     new = vec![token];
/// }
/// # }
/// # Ok::<(), hybridnorm_core::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<Option<[Tensor<4>; 2]>>,
    len: usize,
    capacity: usize,
    /// Empty places before each sequence; none at all where no sequence has any.
    starts: Vec<usize>,
}

impl KvCache {
    /// An empty cache for `n_layers` layers and at most `capacity` tokens.
    pub fn new(n_layers: usize, capacity: usize) -> Self {
        Self {
            layers: vec![None; n_layers],
            len: 0,
            capacity,
            starts: Vec::new(),
        }
    }

    /// Tokens held of the longest sequence.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens of each sequence it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Empty places before each sequence; an empty list where no sequence has any.
    pub(crate) fn starts(&self) -> &[usize] {
        &self.starts
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

    /// The sequences of `caches`, one after the other, in a batch for at most `capacity` tokens of each.
    ///
    /// # Panics
    /// When there is no cache, one is empty or of another model, or the longest does not fit.
    pub fn stack(caches: Vec<Self>, capacity: usize) -> Self {
        let lens: Vec<usize> = caches.iter().map(Self::len).collect();
        let len = lens.iter().copied().max().unwrap_or(0);
        assert!(
            len <= capacity && lens.iter().all(|len| *len > 0),
            "caches of {lens:?} tokens for a capacity of {capacity}"
        );
        let starts: Vec<usize> = caches
            .iter()
            .flat_map(|cache| {
                let shift = len - cache.len;
                (0..cache.batch()).map(move |row| shift + cache.start(row))
            })
            .collect();
        let layers = (0..caches[0].layers.len()).map(|layer| {
            let parts: Vec<_> = caches
                .iter()
                .filter_map(|cache| Some((cache.layers[layer].as_ref()?, cache.len)))
                .collect();
            Some([0, 1].map(|which| {
                let parts = parts.iter().map(|(both, held)| (&both[which], *held));
                aligned(parts, starts.len(), len, capacity)
            }))
        });
        Self {
            layers: layers.collect(),
            len,
            capacity,
            starts: unless_all_zero(starts),
        }
    }

    /// Only the sequences `rows`, in that order. Places that are empty in all of them are given back.
    ///
    /// # Panics
    /// When there is no such row, or none is asked for.
    #[must_use]
    pub fn keep(self, rows: &[usize]) -> Self {
        let starts: Vec<usize> = rows.iter().map(|row| self.start(*row)).collect();
        let unused = starts.iter().copied().min().unwrap_or(0);
        let len = self.len - unused;
        let layers = self.layers.into_iter().map(|layer| {
            layer.map(|both| {
                both.map(|held| {
                    let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
                    let rows = Tensor::<1, Int>::from_ints(&rows[..], &held.device());
                    let n = rows.dims()[0];
                    let held = held.select(0, rows);
                    if unused == 0 {
                        return held;
                    }
                    let held = held.narrow(2, unused, len);
                    aligned([(&held, len)].into_iter(), n, len, self.capacity)
                })
            })
        });
        Self {
            layers: layers.collect(),
            len,
            capacity: self.capacity,
            starts: unless_all_zero(starts.iter().map(|start| start - unused).collect()),
        }
    }

    /// As [`append`](Self::append), but returns only what is filled.
    ///
    /// # Shapes
    /// - input `[batch, n_kv_heads, new, head_dim]`
    /// - output `[batch, n_kv_heads, len + new, head_dim]`
    ///
    /// # Panics
    /// When the tokens do not fit ([`check_room`](Self::check_room)) or the layer does not exist.
    pub(crate) fn extend(&mut self, layer: usize, new: [Tensor<4>; 2]) -> [Tensor<4>; 2] {
        let filled = self.len + new[0].dims()[2];
        self.append(layer, new)
            .map(|held| held.narrow(2, 0, filled))
    }

    /// Appends `layer`'s keys and values of the current tokens and returns all it holds of them.
    ///
    /// # Shapes
    /// - input `[batch, n_kv_heads, new, head_dim]`
    /// - output `[batch, n_kv_heads, capacity, head_dim]`
    ///
    /// # Panics
    /// As [`extend`](Self::extend).
    pub(crate) fn append(&mut self, layer: usize, new: [Tensor<4>; 2]) -> [Tensor<4>; 2] {
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
        let held = [keys, values];
        self.layers[layer] = Some(held.clone());
        held
    }

    /// Counts `n` tokens as held, after all layers have been extended by them. A [`Decoder`](crate::Decoder) does it by
    /// itself; a model of your own that runs blocks in a [cached pass](crate::Pass::cached) does it after the last block.
    pub fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// Sequences held.
    fn batch(&self) -> usize {
        let held = self.layers.iter().flatten().next();
        held.map_or(0, |[keys, _]| keys.dims()[0])
    }

    fn start(&self, row: usize) -> usize {
        self.starts.get(row).copied().unwrap_or(0)
    }
}

/// A buffer `[batch, heads, capacity, dim]` with the first tokens of each part, `[rows, heads, .., dim]`, ending at `len`.
fn aligned<'a>(
    parts: impl Iterator<Item = (&'a Tensor<4>, usize)>,
    batch: usize,
    len: usize,
    capacity: usize,
) -> Tensor<4> {
    let (mut buffer, mut first) = (None, 0);
    for (held, tokens) in parts {
        let [rows, heads, _, dim] = held.dims();
        let empty = || {
            Tensor::zeros(
                [batch, heads, capacity, dim],
                (&held.device(), held.dtype()),
            )
        };
        let place = [first..first + rows, 0..heads, len - tokens..len, 0..dim];
        let held = held.clone().narrow(2, 0, tokens);
        buffer = Some(buffer.unwrap_or_else(empty).slice_assign(place, held));
        first += rows;
    }
    buffer.unwrap_or_else(|| unreachable!("there is a part for each sequence"))
}

fn unless_all_zero(starts: Vec<usize>) -> Vec<usize> {
    match starts.iter().all(|start| *start == 0) {
        true => Vec::new(),
        false => starts,
    }
}
