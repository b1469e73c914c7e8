//! A worker in Rust: counts the primes below a number.

use gatewright_worker::{Failure, Request, Worker, WorkerError, blocking_fn};
use serde::Serialize;

#[derive(Serialize)]
struct Counted {
    below: u32,
    primes: u32,
}

/// The sieve of Eratosthenes, given up between two numbers when nobody waits any more.
fn count_primes(request: Request) -> Result<Counted, Failure> {
    let below: u32 = request.input()?;
    if below > 100_000_000 {
        return Err(Failure::new("TooMuch", "at most 100 000 000, please"));
    }
    let mut composite = vec![false; below as usize];
    let mut primes = 0;
    for number in 2..below as usize {
        if request.is_cancelled() {
            return Err(Failure::new("Cancelled", "nobody waits for it"));
        }
        if !composite[number] {
            primes += 1;
            composite.iter_mut().skip(number * 2).step_by(number).for_each(|mark| *mark = true);
        }
    }
    Ok(Counted { below, primes })
}

#[tokio::main]
async fn main() -> Result<(), WorkerError> {
    let hub = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5019".to_owned());
    Worker::new(hub).function("primes").concurrency(2).run(blocking_fn(count_primes)).await
}
