//! How many requests a client may make: the generic cell rate algorithm, for any number of clients in constant memory.
//!
//! GCRA (ITU-T Recommendation I.371, 2004, annex A, as virtual scheduling) keeps one moment of each client, its
//! theoretical arrival time TAT. With T the time between two requests at the sustained rate, and τ = (burst − 1) · T,
//! a request at t conforms if t ≥ TAT − τ; then TAT becomes max(t, TAT) + T. It is a token bucket of `burst` tokens
//! that is filled by one every T, without anything to fill: a client whose TAT has passed is the same as one that was
//! never seen.
//!
//! Clients stand in a table of fixed size, each in one of eight places that its hash says. Whoever finds no free one
//! takes that of the client with the earliest TAT, *and its TAT too* (the rule of Space-Saving: Metwally, Agrawal and
//! El Abbadi, 2005). As the earliest TAT of eight places only ever grows, no client ever has an earlier TAT than its
//! own requests gave it: nobody is let through more often because others, or itself under other names, crowd the
//! table. What crowding costs is borne by those who come new while all eight places are taken by clients that are not
//! idle.

use std::time::Duration;

use gatewright_determinism::Time;

/// Clients that share a part of the table.
const WAYS: usize = 8;

/// A limit and what it knows of its clients.
#[derive(Clone, Debug)]
pub struct Limiter {
    /// T: nanoseconds between two requests at the sustained rate.
    interval: u64,
    /// burst · T.
    depth: u64,
    /// Sets of [`WAYS`]; their number is a power of two.
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    client: u64,
    /// Theoretical arrival time in nanoseconds.
    tat: u64,
}

/// What a limit says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it may be made.
    pub conforms: bool,
    /// Requests that may be made at once after it.
    pub remaining: u64,
    /// How long until one more may be made, if none may be made at once after it. Zero otherwise.
    pub next: Duration,
    /// How long until as many may be made at once as if the client had never asked.
    pub whole: Duration,
}

impl Limiter {
    /// A limit of `requests` in each `every`, of which `burst` may come at once, for about `clients` clients at a
    /// time (rounded up to a power of two; 16 bytes each). Zeros count as one. T is rounded up to a nanosecond.
    #[must_use]
    pub fn new(requests: u64, every: Duration, burst: u64, clients: usize) -> Self {
        let span = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX);
        let interval = span.div_ceil(requests.max(1)).max(1);
        let places = clients.max(WAYS).checked_next_power_of_two().unwrap_or(1 << 63);
        Self {
            interval,
            depth: interval.saturating_mul(burst.max(1)),
            places: vec![Place::default(); places],
        }
    }

    /// T: the time between two requests at the sustained rate.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// What a request of a client at `now` would come to. `client` is a hash of whatever tells clients apart: all of
    /// its bits must depend on all of that, in a way that clients cannot foresee.
    #[must_use]
    pub fn look(&self, now: Time, client: u64) -> Standing {
        self.standing(now.as_nanos(), self.places[self.place(client)].tat)
    }

    /// Counts a request that is made, conforming or not.
    pub fn take(&mut self, now: Time, client: u64) {
        let (place, interval) = (self.place(client), self.interval);
        let place = &mut self.places[place];
        place.client = client;
        place.tat = place.tat.max(now.as_nanos()).saturating_add(interval);
    }

    /// Looks, and counts the request if it conforms.
    pub fn ask(&mut self, now: Time, client: u64) -> Standing {
        let standing = self.look(now, client);
        if standing.conforms {
            self.take(now, client);
        }
        standing
    }

    /// Where a client stands, or would: its TAT is there.
    fn place(&self, client: u64) -> usize {
        let first = (client as usize) & (self.places.len() - 1) & !(WAYS - 1);
        let set = &self.places[first..first + WAYS];
        let own = set.iter().position(|place| place.client == client && place.tat > 0);
        let earliest = || {
            let ranked = set.iter().enumerate().min_by_key(|(_, place)| place.tat);
            ranked.map_or(0, |(index, _)| index)
        };
        first + own.unwrap_or_else(earliest)
    }

    fn standing(&self, now: u64, tat: u64) -> Standing {
        let after = tat.max(now).saturating_add(self.interval);
        // What the client is ahead of its rate by, were the request made.
        let ahead = after - now;
        let conforms = ahead <= self.depth;
        let ahead = if conforms { ahead } else { ahead - self.interval };
        let left = self.depth.saturating_sub(ahead);
        let remaining = left / self.interval;
        let next = if remaining > 0 { 0 } else { self.interval - left.min(self.interval) };
        // Where the TAT was taken over from another client, and lies further ahead than a burst.
        let next = next.saturating_add(ahead.saturating_sub(self.depth));
        Standing {
            conforms,
            remaining,
            next: Duration::from_nanos(next),
            whole: Duration::from_nanos(ahead),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    /// 10 a second, 3 at once: T = 100 ms, τ = 200 ms. By hand: (at, conforms, remaining, next, whole) in ms.
    #[test]
    fn agrees_with_what_was_worked_out_by_hand() {
        let mut limiter = Limiter::new(10, Duration::from_secs(1), 3, 1);
        let ms = Duration::from_millis;
        for (now, conforms, remaining, next, whole) in [
            (1_000, true, 2, 0, 100),
            (1_000, true, 1, 0, 200),
            (1_000, true, 0, 100, 300),
            (1_000, false, 0, 100, 300),
            (1_099, false, 0, 1, 201),
            (1_100, true, 0, 100, 300),
            (1_250, true, 0, 50, 250),
            (1_299, false, 0, 1, 201),
            (1_300, true, 0, 100, 300),
            (1_500, true, 1, 0, 200),
            (9_000, true, 2, 0, 100),
        ] {
            let said = limiter.ask(at(now), 7);
            let expected = Standing { conforms, remaining, next: ms(next), whole: ms(whole) };
            assert_eq!(said, expected, "at {now} ms");
        }
    }

    #[test]
    fn looking_counts_nothing() {
        let mut limiter = Limiter::new(1, Duration::from_secs(60), 1, 1);
        assert!((0..10).all(|_| limiter.look(at(5), 1).conforms));
        assert!(limiter.ask(at(5), 1).conforms);
        assert_eq!(limiter.ask(at(5), 1).next, Duration::from_secs(60));
        assert!(limiter.ask(at(5), 2).conforms, "another client");
    }

    /// An attacker cannot push its own entry out and begin anew: whoever comes into a full set has the TAT of the one
    /// that goes.
    #[test]
    fn crowding_the_table_resets_nothing() {
        let mut limiter = Limiter::new(1, Duration::from_secs(60), 2, WAYS);
        let mut let_through = 0;
        for round in 0..100 {
            let_through += u32::from(limiter.ask(at(1), 0xbad).conforms);
            for other in 0..WAYS as u64 * 4 {
                limiter.ask(at(1), 1_000 + round * 1_000 + other);
            }
        }
        assert!((1..=2).contains(&let_through), "{let_through} times");
        // Once the others are idle, everything is as if nobody had ever asked.
        let later = at(3 * 60_000);
        assert_eq!(limiter.ask(later, 0xbad).remaining, 1);
    }

    #[test]
    fn one_who_comes_into_a_crowd_waits_no_longer_than_a_burst_takes() {
        let mut limiter = Limiter::new(1, Duration::from_secs(1), 3, WAYS);
        (0..10_000).for_each(|client| {
            assert!(limiter.ask(at(0), client).whole <= 3 * Duration::from_secs(1))
        });
        let said = limiter.ask(at(0), 77_777);
        assert!(!said.conforms && said.next <= Duration::from_secs(1), "{said:?}");
        assert_eq!(limiter.places.len(), WAYS, "its memory is what it was");
    }

    #[test]
    fn rates_that_do_not_divide_a_second_are_never_exceeded() {
        let mut limiter = Limiter::new(3, Duration::from_secs(1), 1, 1);
        let mut now = 0;
        let made = (0..30_000).filter(|_| {
            now += 1_000_000;
            limiter.ask(Time::from_nanos(now), 1).conforms
        });
        assert!((89..=90).contains(&made.count()), "30 s at 3 a second, on a grid of ms");
        let fast = Limiter::new(u64::MAX, Duration::from_nanos(1), u64::MAX, 1);
        assert!(fast.look(Time::MAX, 1).conforms || fast.depth == u64::MAX);
    }

    proptest! {
        /// Whatever happens in whatever crowd: in any span, a client makes no more than burst + span / T requests.
        #[test]
        fn nobody_exceeds_the_limit(
            requests in 1u64..50, burst in 1u64..10,
            asks in prop::collection::vec((0u64..12, 0u64..20_000_000), 1..400),
        ) {
            let mut limiter = Limiter::new(requests, Duration::from_secs(1), burst, WAYS);
            let mut made: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            let mut now = 0;
            for (client, pause) in asks {
                now += pause;
                let looked = limiter.look(Time::from_nanos(now), client);
                let asked = limiter.ask(Time::from_nanos(now), client);
                prop_assert_eq!(looked, asked);
                if asked.conforms {
                    made.entry(client).or_default().push(now);
                } else {
                    let later = Time::from_nanos(now) + asked.next;
                    prop_assert!(!asked.next.is_zero() && limiter.look(later, client).conforms);
                }
            }
            let interval = SECOND.div_ceil(requests);
            for moments in made.values() {
                for (first, begin) in moments.iter().enumerate() {
                    for (last, end) in moments.iter().enumerate().skip(first) {
                        let allowed = burst + (end - begin) / interval;
                        prop_assert!((last - first + 1) as u64 <= allowed);
                    }
                }
            }
        }
    }
}
