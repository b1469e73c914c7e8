use std::sync::Arc;

use crate::{Answer, Failure, Init, IntoAnswer, Request};

/// What answers requests. Made of functions by [`service_fn`], [`blocking_fn`] and [`batch_fn`].
pub trait Service: Send + Sync + 'static {
    /// Called on every connection before its first request, with the arguments that the function has in the hub's
    /// file. A failure here ends [`Worker::run`](crate::Worker::run).
    fn start(&self, init: Init) -> impl Future<Output = Result<(), Failure>> + Send {
        drop(init);
        async { Ok(()) }
    }

    /// Answers one request. The future is dropped when the connection ends; when the request alone is cancelled,
    /// [`Request::cancelled`] says so, and its answer is what frees its place.
    fn call(&self, request: Request) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// How many requests it takes in one [`Self::call_batch`]; 0 if it wants each by itself.
    fn batch_size(&self) -> u32 {
        0
    }

    /// Answers the requests of a batch, one result for each in their order. Only called if [`Self::batch_size`] is
    /// not 0.
    fn call_batch(
        &self,
        requests: Vec<Request>,
    ) -> impl Future<Output = Vec<Result<Answer, Failure>>> + Send {
        async {
            let mut results = Vec::with_capacity(requests.len());
            for request in requests {
                results.push(self.call(request).await);
            }
            results
        }
    }
}

/// An async function as a service: see [`service_fn`].
#[derive(Clone, Debug)]
pub struct ServiceFn<F>(F);

/// A service of an async function. Its future is dropped when its request is cancelled.
pub fn service_fn<F, Fut, T>(function: F) -> ServiceFn<F>
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, Failure>> + Send,
    T: IntoAnswer,
{
    ServiceFn(function)
}

impl<F, Fut, T> Service for ServiceFn<F>
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, Failure>> + Send,
    T: IntoAnswer,
{
    async fn call(&self, request: Request) -> Result<Answer, Failure> {
        let cancelled = request.cancelled.clone();
        let result = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Err(Failure::cancelled()),
            result = (self.0)(request) => result,
        };
        result?.into_answer()
    }
}

/// A function that blocks as a service: see [`blocking_fn`].
#[derive(Debug)]
pub struct BlockingFn<F>(Arc<F>);

/// A service of a function that computes or waits without `await`, run on a thread of the runtime's blocking pool,
/// so that pings are answered meanwhile. It runs to its end even if cancelled, and may look at
/// [`Request::is_cancelled`] to end sooner.
pub fn blocking_fn<F, T>(function: F) -> BlockingFn<F>
where
    F: Fn(Request) -> Result<T, Failure> + Send + Sync + 'static,
    T: IntoAnswer,
{
    BlockingFn(Arc::new(function))
}

impl<F, T> Service for BlockingFn<F>
where
    F: Fn(Request) -> Result<T, Failure> + Send + Sync + 'static,
    T: IntoAnswer,
{
    async fn call(&self, request: Request) -> Result<Answer, Failure> {
        if request.is_cancelled() {
            return Err(Failure::cancelled());
        }
        let function = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || function(request)?.into_answer()).await?
    }
}

/// An async function over batches as a service: see [`batch_fn`].
#[derive(Clone, Debug)]
pub struct BatchFn<F> {
    size: u32,
    function: F,
}

/// A service of an async function that answers up to `size` requests in one call, at least 1, with a list of results
/// in their order. For functions with `batch = { max_size = ... }`, of at most this size.
pub fn batch_fn<F, Fut, T>(size: u32, function: F) -> BatchFn<F>
where
    F: Fn(Vec<Request>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<T>, Failure>> + Send,
    T: IntoAnswer,
{
    BatchFn { size: size.max(1), function }
}

impl<F, Fut, T> Service for BatchFn<F>
where
    F: Fn(Vec<Request>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<T>, Failure>> + Send,
    T: IntoAnswer,
{
    async fn call(&self, request: Request) -> Result<Answer, Failure> {
        let results = self.call_batch(vec![request]).await;
        results.into_iter().next().unwrap_or_else(|| Err(wrong_count(1, 0)))
    }

    fn batch_size(&self) -> u32 {
        self.size
    }

    async fn call_batch(&self, requests: Vec<Request>) -> Vec<Result<Answer, Failure>> {
        let count = requests.len();
        let failed = match (self.function)(requests).await {
            Ok(results) if results.len() == count => {
                return results.into_iter().map(IntoAnswer::into_answer).collect();
            }
            Ok(results) => wrong_count(count, results.len()),
            Err(failure) => failure,
        };
        vec![Err(failed); count]
    }
}

fn wrong_count(requests: usize, results: usize) -> Failure {
    let message = format!("a batch of {requests} requests was answered with {results} results");
    Failure::new("WrongCount", message)
}
