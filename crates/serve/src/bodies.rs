//! The memory of request bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::gauge::Gauge;

/// Bounds the request bodies that are held whole, all together.
#[derive(Debug)]
pub(crate) struct Bodies {
    max: u64,
    held: AtomicU64,
    gauge: Gauge,
}

/// Memory of one body; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    bodies: Arc<Bodies>,
    bytes: u64,
}

impl Bodies {
    /// At most so many bytes.
    pub(crate) fn new(max: u64, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self { max, held: AtomicU64::new(0), gauge })
    }

    /// A body of no bytes yet.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held { bodies: Arc::clone(self), bytes: 0 }
    }
}

impl Held {
    /// Takes memory for as many bytes more; `false` if there is none.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let bodies = &self.bodies;
        if bodies.held.fetch_add(bytes, Ordering::Relaxed) + bytes > bodies.max {
            bodies.held.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        bodies.gauge.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bodies.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bodies.gauge.dec_by(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back() {
        let bodies = Bodies::new(10, Gauge::default());
        let (mut first, mut second) = (bodies.hold(), bodies.hold());
        assert!(first.grow(4) && first.grow(4));
        assert!(!second.grow(3), "there are only 2 left");
        assert!(second.grow(2));
        drop(first);
        assert!(second.grow(8) && !second.grow(1));
        assert_eq!(bodies.gauge.get(), 10);
    }
}
