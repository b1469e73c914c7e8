/// Of the intervals around estimates.
pub(crate) const CONFIDENCE: f64 = 0.95;

/// A unit of time, for the numbers of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanos,
    Micros,
    Millis,
    Seconds,
}

impl Unit {
    /// The largest unit in which `nanos` is at least one.
    pub(crate) fn of(nanos: f64) -> Self {
        match nanos {
            _ if nanos >= 1e9 => Self::Seconds,
            _ if nanos >= 1e6 => Self::Millis,
            _ if nanos >= 1e3 => Self::Micros,
            _ => Self::Nanos,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nanos => "ns",
            Self::Micros => "us",
            Self::Millis => "ms",
            Self::Seconds => "s",
        }
    }

    /// `nanos` in this unit, to four digits.
    pub(crate) fn number(self, nanos: f64) -> String {
        let per_unit = match self {
            Self::Nanos => 1.0,
            Self::Micros => 1e3,
            Self::Millis => 1e6,
            Self::Seconds => 1e9,
        };
        if nanos == 0.0 {
            return "0".to_owned();
        }
        if self == Self::Nanos { number(nanos, 0) } else { four_digits(nanos / per_unit) }
    }
}

/// A time with the unit that suits it: "251.3 ms".
pub(crate) fn duration(nanos: f64) -> String {
    let unit = Unit::of(nanos);
    format!("{} {}", unit.number(nanos), unit.name())
}

/// A rate: "119.7/s".
pub(crate) fn rate(per_second: f64) -> String {
    if per_second == 0.0 {
        return "0/s".to_owned();
    }
    format!("{}/s", four_digits(per_second))
}

/// A count with its thousands set apart: "1,200".
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn four_digits(value: f64) -> String {
    // Compared as rounded, so that 9.9996 is 10.00 and not 10.000.
    let decimals = match value.abs() {
        size if size >= 999.95 => 0,
        size if size >= 99.995 => 1,
        size if size >= 9.9995 => 2,
        _ => 3,
    };
    number(value, decimals)
}

fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.split_once('.') {
        Some((whole, fraction)) => format!("{}.{fraction}", thousands(whole)),
        None => thousands(&text),
    }
}

fn thousands(whole: &str) -> String {
    whole.parse().map_or_else(|_| whole.to_owned(), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_four_digits_and_a_unit_that_suits() {
        let texts: Vec<_> = [0.0, 999.0, 1_500.0, 251_340_000.0, 1.5e9, 9_999_600.0, 7.2e12]
            .map(duration)
            .into_iter()
            .collect();
        let expected = ["0 ns", "999 ns", "1.500 us", "251.3 ms", "1.500 s", "10.00 ms", "7,200 s"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn counts_and_rates() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(rate(119.73), "119.7/s");
        assert_eq!(rate(123_456.7), "123,457/s");
        assert_eq!(rate(0.25), "0.250/s");
        assert_eq!(rate(0.0), "0/s");
    }
}
