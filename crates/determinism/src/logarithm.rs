//! The logarithm behind exponential variables: the most frequent computation of a simulation.

use std::f64::consts::LN_2;

/// Bits of the significand that choose the row of the table.
const BITS: u32 = 7;
const ROWS: usize = 1 << BITS;

/// For each part of [1, 2): the reciprocal of its middle, and the logarithm of that reciprocal's reciprocal.
const TABLE: [(f64, f64); ROWS] = table();

/// -ln(x) for x in (0, 1], normal numbers only: within 1e-15 (times the result, where that is above 1), never below 0.
///
/// By a table of 128 reciprocals and a polynomial of degree 7 (P. T. P. Tang, "Table-driven implementation of the
/// logarithm function in IEEE floating-point arithmetic", ACM TOMS 16, 1990). Additions and multiplications only, in a
/// fixed order, none of them fused: the same bits on every machine, in a third of the time of libm's `log`. What is
/// lost is the relative precision of results near 0, that is for x near 1, which is of no matter to a time.
pub(crate) const fn minus_ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    let (inverse, ln) = TABLE[(bits >> (52 - BITS)) as usize % ROWS];
    let significand = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    // |z| < 2^-8: what comes after the seventh power is below 2^-66.
    let z = significand * inverse - 1.0;
    let square = z * z;
    let odd = 1.0 / 3.0 + square * (1.0 / 5.0 + square * (1.0 / 7.0));
    let even = 0.5 + square * (0.25 + square * (1.0 / 6.0));
    let ln_1p = z + square * (z * odd - even);
    let sum = -(exponent as f64) * LN_2 - (ln + ln_1p);
    if sum > 0.0 { sum } else { 0.0 }
}

const fn table() -> [(f64, f64); ROWS] {
    let mut rows = [(0.0, 0.0); ROWS];
    let mut row = 0;
    while row < ROWS {
        let middle = 1.0 + (row as f64 + 0.5) / ROWS as f64;
        let inverse = 1.0 / middle;
        rows[row] = (inverse, -ln_of_inverse(inverse));
        row += 1;
    }
    rows
}

/// ln of a number in (1/2, 1): 2 artanh((x - 1) / (x + 1)) by its series, whose 40 terms leave less than 1e-38.
const fn ln_of_inverse(x: f64) -> f64 {
    let ratio = (x - 1.0) / (x + 1.0);
    let square = ratio * ratio;
    let mut sum = 0.0;
    let mut term = 40;
    while term > 0 {
        term -= 1;
        sum = sum * square + 1.0 / (2 * term + 1) as f64;
    }
    2.0 * ratio * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Purpose, Stream};

    /// Beside libm's, whose error is below one unit in the last place.
    #[test]
    fn it_is_within_the_stated_error() {
        let mut stream = Stream::new(1, Purpose::Resample, 0);
        let mut worst = 0.0f64;
        let mut look =
            |x: f64| worst = worst.max((minus_ln(x) + libm::log(x)).abs() / x.ln().abs().max(1.0));
        for _ in 0..1_000_000 {
            look(stream.open_unit());
        }
        for exponent in 0..=53 {
            // The ends of the parts, and the smallest and largest values there are.
            let power = f64::from_bits((1023 - exponent) << 52);
            for row in 0..ROWS as u64 {
                let edge = f64::from_bits(power.to_bits() + (row << (52 - BITS)));
                [edge, f64::from_bits(edge.to_bits() - 1)]
                    .into_iter()
                    .filter(|x| *x <= 1.0)
                    .for_each(&mut look);
            }
        }
        assert!(worst < 1e-15, "{worst:e}");
    }

    #[test]
    fn it_never_falls_as_its_argument_falls_and_is_never_negative() {
        assert_eq!(minus_ln(1.0), 0.0);
        let mut last = 0.0;
        for step in 1..200_000u32 {
            let found = minus_ln(1.0 - f64::from(step) / 200_000.0);
            assert!(found >= last, "{step}: {found} after {last}");
            last = found;
        }
        // The longest gap that a stream can draw.
        assert!((minus_ln(1.0 / (1u64 << 53) as f64) - 53.0 * LN_2).abs() < 1e-14);
    }
}
