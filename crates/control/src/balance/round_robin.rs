use gatewright_determinism::{Stream, Time};

use super::{Asks, Balancer, Pool, Position};

/// Each replica in turn. A replica without a free slot loses its turn.
///
/// Where weights differ, the smooth weighted round robin of nginx (`ngx_http_upstream_round_robin.c`, 2012): every
/// replica gains its weight, the richest is taken and pays what all of them gained. Of weights 5, 1, 1 comes
/// a a b a c a a, never five of one in a row.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    /// Where the next search starts.
    next: usize,
    /// What each has gained and not paid, by position; only used where weights differ.
    credit: Vec<i64>,
}

impl Balancer for RoundRobin {
    fn pick(&mut self, pool: &Pool, _: Asks, _: &mut Stream) -> Option<Position> {
        if pool.is_weighted() {
            return self.by_weight(pool);
        }
        let position = pool.next_available(self.next)?;
        self.next = position.index() + 1;
        Some(position)
    }

    fn joined(&mut self, _: &Pool, position: Position, _: Time) {
        self.credit.resize(self.credit.len().max(position.index() + 1), 0);
        self.credit[position.index()] = 0;
    }
}

impl RoundRobin {
    fn by_weight(&mut self, pool: &Pool) -> Option<Position> {
        let mut total = 0;
        let mut richest: Option<Position> = None;
        for &position in pool.available() {
            let weight = i64::from(pool.weight(position));
            total += weight;
            self.credit[position.index()] += weight;
            let credit = |position: Position| self.credit[position.index()];
            let better = richest.is_none_or(|best| {
                (credit(position), best.index()) > (credit(best), position.index())
            });
            if better {
                richest = Some(position);
            }
        }
        let richest = richest?;
        self.credit[richest.index()] -= total;
        Some(richest)
    }
}
