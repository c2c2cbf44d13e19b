//! Texts in the making, side by side: token ids in, the logits of the next tokens out.

use burn::tensor::{Device, Int, Tensor, TensorData, TensorReadError, try_read_sync};
use hybridnorm_core::{Decoder, FeedForward, KvCache, Pass};
use hybridnorm_kernels::on_pool;

use crate::error::GenerateError;

/// Texts in the making: feeds tokens to a model and gives the logits of the next.
///
/// The model never sees more than `window` tokens of a text at once. When a text outgrows them, its older half is forgotten.
#[derive(Debug)]
pub struct Texts<'a, F: FeedForward> {
    model: &'a Decoder<F>,
    device: Device,
    window: usize,
    /// Tokens that a cache is made for.
    room: usize,
    /// The tokens of each text that the model still sees.
    held: Vec<Vec<u32>>,
    cache: Option<KvCache>,
    use_cache: bool,
}

impl<'a, F: FeedForward + Sync> Texts<'a, F> {
    /// No text yet. Each will have at most `longest` tokens, of which `model` sees at most `window` at once.
    pub fn new(model: &'a Decoder<F>, window: usize, longest: usize) -> Self {
        Self {
            device: model.embedding.weight.val().device(),
            model,
            window: window.max(1),
            room: longest.clamp(1, window.max(1)),
            held: Vec::new(),
            cache: None,
            use_cache: true,
        }
    }

    /// Computes everything anew for each token, as a check on the cache.
    #[must_use]
    pub fn without_cache(mut self) -> Self {
        self.use_cache = false;
        self
    }

    /// Begins a text with `ids` and returns the logits of the token after them, `[padded_vocab_size]`.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When there are no ids.
    pub fn begin(&mut self, ids: &[u32]) -> Result<Vec<f32>, GenerateError> {
        now(&self.device.clone(), self.begin_async(ids))
    }

    /// [`begin`](Self::begin) where nothing may be waited for.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When there are no ids.
    pub async fn begin_async(&mut self, ids: &[u32]) -> Result<Vec<f32>, GenerateError> {
        let forgotten = match ids.len() > self.window {
            true => ids.len() - self.window.div_ceil(2),
            false => 0,
        };
        self.held.push(ids[forgotten..].to_vec());
        let (cache, logits) = self.prefill(self.held.len() - 1).await?;
        let caches = self.cache.take().into_iter().chain(cache).collect();
        self.join(caches);
        Ok(logits)
    }

    /// Appends one token to each text and returns the logits of those after them, `[padded_vocab_size]` each.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When there is not one token for each text.
    pub fn step(&mut self, next: &[u32]) -> Result<Vec<Vec<f32>>, GenerateError> {
        now(&self.device.clone(), self.step_async(next))
    }

    /// [`step`](Self::step) where nothing may be waited for.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When there is not one token for each text.
    pub async fn step_async(&mut self, next: &[u32]) -> Result<Vec<Vec<f32>>, GenerateError> {
        assert_eq!(next.len(), self.held.len(), "one token for each text");
        for (held, id) in self.held.iter_mut().zip(next) {
            held.push(*id);
        }
        let outgrown = |held: &Vec<u32>| held.len() > self.window;
        if !self.use_cache || self.held.iter().any(outgrown) {
            return self.anew().await;
        }
        let new_cache = || self.model.new_cache(self.room);
        let cache = self.cache.get_or_insert_with(new_cache);
        let ids: Vec<i64> = next.iter().map(|id| i64::from(*id)).collect();
        let logits = on_pool(&self.device, || {
            let tokens = Tensor::from_data(TensorData::new(ids, [next.len(), 1]), &self.device);
            self.model.next_logits(tokens, cache)
        });
        let [_, width] = logits.dims();
        let logits = read(logits).await?;
        Ok(logits.chunks_exact(width).map(<[f32]>::to_vec).collect())
    }

    /// Goes on with the texts `rows` only, in that order.
    pub fn keep(&mut self, rows: &[usize]) {
        if rows.iter().copied().eq(0..self.held.len()) {
            return;
        }
        self.held = rows.iter().map(|row| self.held[*row].clone()).collect();
        let cache = self.cache.take().filter(|_| !rows.is_empty());
        self.cache = cache.map(|cache| cache.keep(rows));
    }

    /// All texts from their beginnings, those that the window does not hold from their younger halves.
    async fn anew(&mut self) -> Result<Vec<Vec<f32>>, GenerateError> {
        let (mut caches, mut all) = (Vec::new(), Vec::new());
        self.cache = None;
        for row in 0..self.held.len() {
            let held = &mut self.held[row];
            if held.len() > self.window {
                held.drain(..held.len() - self.window.div_ceil(2));
            }
            let (fresh, logits) = self.prefill(row).await?;
            caches.extend(fresh);
            all.push(logits);
        }
        self.join(caches);
        Ok(all)
    }

    /// The cache of one text alone, and the logits behind it.
    async fn prefill(&self, row: usize) -> Result<(Option<KvCache>, Vec<f32>), GenerateError> {
        let ids: Vec<i64> = self.held[row].iter().map(|id| i64::from(*id)).collect();
        let n = ids.len();
        let mut cache = match self.use_cache {
            true => Some(self.model.new_cache(self.room.max(n))),
            false => None,
        };
        let logits = on_pool(&self.device, || {
            let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, n]), &self.device);
            match &mut cache {
                Some(cache) => self.model.next_logits(tokens, cache),
                None => {
                    let hidden = self.model.hidden(tokens, &mut Pass::causal());
                    let logits = self.model.logits(hidden.narrow(1, n - 1, 1));
                    logits.squeeze_dim(1)
                }
            }
        });
        let logits = read(logits).await?;
        Ok((cache, logits))
    }

    fn join(&mut self, mut caches: Vec<KvCache>) {
        self.cache = match caches.len() {
            0 | 1 => caches.pop(),
            _ => Some(KvCache::stack(caches, self.room)),
        };
    }
}

/// The numbers of a tensor, row by row.
async fn read(logits: Tensor<2>) -> Result<Vec<f32>, TensorReadError> {
    let data = logits.into_data_async().await?;
    Ok(data.try_into_vec_as::<f32>()?)
}

/// What comes of `work`, which waits for nothing but `device`.
///
/// # Errors
/// Where a system can only be told later, as a browser with its GPU.
pub(crate) fn now<T>(
    device: &Device,
    work: impl Future<Output = Result<T, GenerateError>>,
) -> Result<T, GenerateError> {
    let ready = try_read_sync(work);
    ready.unwrap_or_else(|| Err(GenerateError::OnlyAsync(format!("{device:?}"))))
}
