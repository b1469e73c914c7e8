use crate::logarithm::minus_ln;

/// What a random stream is for, so that no two purposes share their luck.
///
/// A stream is named by (seed, purpose, id); `id` is a request's number wherever a draw belongs to a request.
/// Two policies run with one seed then meet the same arrivals and the same service times, however differently
/// they dispatch (common random numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Inter-arrival times of a demand; the id is the demand's number.
    Arrival,
    /// Choice of a replica; the id is the request's number.
    Balance,
    /// Service time; the id is the request's number.
    Service,
    /// What a request asks for (key, size, class); the id is the request's number.
    Content,
    /// Time a replica takes to start; the id is the replica's number.
    Start,
    /// Whether and how a thing fails; the id is the request's or the replica's number.
    Fault,
    /// Jitter of a pause; the id is the number of whatever pauses.
    Jitter,
    /// Resampling of measurements (bootstrap); the id is the sample's number.
    Resample,
    /// Choice of a node; the id is the replica's number.
    Placement,
}

/// A stream of random numbers: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", OOPSLA 2014), started at a hash of (seed, purpose, id).
///
/// It is one word, made in a few nanoseconds, so every request can have its own. The numbers are part of the
/// project's contract: the same seed gives the same numbers in every version. Not for secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    state: u64,
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The streams of one purpose in one run, a stream for each id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    state: u64,
}

impl Streams {
    /// The streams for `purpose` in the run of `seed`.
    #[must_use]
    pub const fn new(seed: u64, purpose: Purpose) -> Self {
        let purpose = mix((purpose as u64 + 1).wrapping_mul(GOLDEN_GAMMA));
        Self { state: mix(seed.wrapping_add(GOLDEN_GAMMA) ^ purpose) }
    }

    /// The stream of `id`.
    #[inline]
    #[must_use]
    pub const fn of(self, id: u64) -> Stream {
        Stream { state: mix(self.state ^ mix(id.wrapping_add(GOLDEN_GAMMA))) }
    }
}

impl Stream {
    /// The stream of `id` for `purpose` in the run of `seed`.
    #[must_use]
    pub const fn new(seed: u64, purpose: Purpose, id: u64) -> Self {
        Streams::new(seed, purpose).of(id)
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// Uniform in [0, 1): 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in (0, 1], safe to take the logarithm of.
    pub fn open_unit(&mut self) -> f64 {
        1.0 - self.unit()
    }

    /// Uniform in 0..`bound`; 0 when `bound` is 0. By multiplication (Lemire, "Fast random integer generation
    /// in an interval", 2019) without the rejection step: the bias is below `bound` / 2^64.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.bits() as u128 * bound as u128) >> 64) as u64
    }

    /// Exponential with mean 1, by inversion. Its logarithm is our own, the same on every machine.
    pub fn exponential(&mut self) -> f64 {
        minus_ln(self.open_unit())
    }

    /// Normal with mean 0 and variance 1 (Box and Muller, 1958; one of the pair is thrown away).
    pub fn normal(&mut self) -> f64 {
        let radius = (2.0 * minus_ln(self.open_unit())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }
}

/// The finaliser of SplitMix64 (David Stafford's variant 13).
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden numbers: a change here changes every simulation ever written down.
    #[test]
    fn numbers_never_change() {
        let mut stream = Stream::new(1, Purpose::Service, 0);
        let drawn = [stream.bits(), stream.bits(), stream.bits()];
        assert_eq!(drawn, GOLDEN);
    }

    const GOLDEN: [u64; 3] =
        [7_895_081_531_379_870_780, 617_926_250_872_026_525, 15_492_977_847_892_036_932];

    #[test]
    fn streams_of_neighbours_differ() {
        let first = |seed, purpose, id| Stream::new(seed, purpose, id).bits();
        let all = [
            first(1, Purpose::Service, 0),
            first(1, Purpose::Service, 1),
            first(2, Purpose::Service, 0),
            first(1, Purpose::Balance, 0),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    /// First draws of many streams must themselves be uniform: each request takes just one or two.
    #[test]
    fn first_draws_of_many_streams_have_the_right_moments() {
        let n = 200_000;
        let mut sums = [0.0; 4];
        let mut previous = 0.5;
        for id in 0..n {
            let mut stream = Stream::new(7, Purpose::Service, id);
            let unit = stream.unit();
            let normal = stream.clone().normal();
            let exponential = stream.exponential();
            sums[0] += unit;
            sums[1] += exponential;
            sums[2] += normal * normal;
            sums[3] += (unit - 0.5) * (previous - 0.5);
            previous = unit;
        }
        let mean = sums.map(|sum| sum / n as f64);
        assert!((mean[0] - 0.5).abs() < 3.0 * (1.0f64 / 12.0 / n as f64).sqrt(), "{mean:?}");
        assert!((mean[1] - 1.0).abs() < 3.0 / (n as f64).sqrt(), "{mean:?}");
        assert!((mean[2] - 1.0).abs() < 3.0 * (2.0 / n as f64).sqrt(), "{mean:?}");
        assert!(mean[3].abs() < 3.0 / 12.0 / (n as f64).sqrt(), "{mean:?}");
    }

    #[test]
    fn below_stays_below() {
        let mut stream = Stream::new(3, Purpose::Balance, 9);
        let mut seen = [0u32; 5];
        for _ in 0..10_000 {
            seen[stream.below(5) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (1_800..2_200).contains(&count)), "{seen:?}");
        assert_eq!(stream.below(0), 0);
    }
}
