//! HTTP dates and the way from the run's time to the calendar (RFC 9110 section 5.6.7).

use gatewright_determinism::Time;
use serde::{Deserialize, Serialize};

const NANOS: u64 = 1_000_000_000;
const DAY: i64 = 86_400;
const MONTHS: [&[u8; 3]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];
const DAYS: [&[u8; 3]; 7] = [b"mon", b"tue", b"wed", b"thu", b"fri", b"sat", b"sun"];
const LONG_DAYS: [&[u8]; 7] =
    [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];

/// Where the run's time lies on the calendar: the wall clock, read once at the start of the run. HTTP dates are
/// compared through it, so that a simulated run has a calendar too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallAnchor {
    /// Nanoseconds since 1970-01-01 00:00 UTC at the start of the run.
    pub unix_nanos_at_start: u64,
}

/// Now, both in the run's time and on the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time of the run.
    pub now: Time,
    /// Where it lies on the calendar.
    pub anchor: WallAnchor,
}

impl WallAnchor {
    /// Nanoseconds since 1970 at `now`.
    #[must_use]
    pub const fn unix_nanos(self, now: Time) -> u64 {
        self.unix_nanos_at_start.saturating_add(now.as_nanos())
    }

    /// Whole seconds since 1970 at `now`.
    #[must_use]
    pub const fn unix_seconds(self, now: Time) -> i64 {
        (self.unix_nanos(now) / NANOS) as i64
    }
}

impl Moment {
    /// Whole seconds since 1970.
    #[must_use]
    pub const fn unix_seconds(self) -> i64 {
        self.anchor.unix_seconds(self.now)
    }
}

/// Reads an HTTP date in one of its three forms; seconds since 1970, or `None` if it is none of them.
///
/// Strict but for the case of letters. The name of the day is not compared with the date, and a leap second
/// counts as the second after it. `now` (seconds since 1970) decides the century of the form with a two-digit
/// year: never more than 50 years ahead.
#[must_use]
pub fn parse(value: &[u8], now: i64) -> Option<i64> {
    let value = value.trim_ascii();
    match value.iter().position(|&byte| byte == b',') {
        Some(3) => imf_fixdate(value),
        Some(_) => rfc850(value, now),
        None => asctime(value),
    }
}

/// Writes seconds since 1970 as an HTTP date: `Sun, 06 Nov 1994 08:49:37 GMT`. Years beyond 9999 count as 9999.
#[must_use]
pub fn format(unix_seconds: i64) -> String {
    // 9999-12-31 23:59:59 and 0000-01-01 00:00:00.
    let seconds = unix_seconds.clamp(-62_167_219_200, 253_402_300_799);
    let days = seconds.div_euclid(DAY);
    let rest = seconds.rem_euclid(DAY);
    let (year, month, day) = civil(days);
    let name = capital(DAYS[(days + 3).rem_euclid(7) as usize]);
    let month = capital(MONTHS[month as usize - 1]);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{name}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

fn capital(name: &[u8; 3]) -> String {
    let first = char::from(name[0].to_ascii_uppercase());
    format!("{first}{}{}", char::from(name[1]), char::from(name[2]))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(value: &[u8]) -> Option<i64> {
    if value.len() != 29 || !known(&value[..3], &DAYS.map(<[u8; 3]>::as_slice)) {
        return None;
    }
    let spaces = [4, 7, 11, 16, 25].iter().all(|&at| value[at] == b' ');
    if !spaces || !value[26..].eq_ignore_ascii_case(b"GMT") {
        return None;
    }
    let (day, month, year) =
        (number(&value[5..7])?, month(&value[8..11])?, number(&value[12..16])?);
    seconds(year, month, day, clock(&value[17..25])?)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(value: &[u8], now: i64) -> Option<i64> {
    let comma = value.iter().position(|&byte| byte == b',')?;
    let (name, rest) = (&value[..comma], &value[comma + 1..]);
    if !known(name, &LONG_DAYS) || rest.len() != 23 {
        return None;
    }
    let marks = [(0, b' '), (3, b'-'), (7, b'-'), (10, b' '), (19, b' ')];
    if marks.iter().any(|&(at, mark)| rest[at] != mark) || !rest[20..].eq_ignore_ascii_case(b"GMT")
    {
        return None;
    }
    let (day, month, short) = (number(&rest[1..3])?, month(&rest[4..7])?, number(&rest[8..10])?);
    let this_year = civil(now.div_euclid(DAY)).0;
    let mut year = this_year - this_year.rem_euclid(100) + short;
    if year > this_year + 50 {
        year -= 100;
    }
    seconds(year, month, day, clock(&rest[11..19])?)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(value: &[u8]) -> Option<i64> {
    if value.len() != 24 || !known(&value[..3], &DAYS.map(<[u8; 3]>::as_slice)) {
        return None;
    }
    if [3, 7, 10, 19].iter().any(|&at| value[at] != b' ') {
        return None;
    }
    let day = if value[8] == b' ' { number(&value[9..10])? } else { number(&value[8..10])? };
    seconds(number(&value[20..])?, month(&value[4..7])?, day, clock(&value[11..19])?)
}

fn known(name: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn month(name: &[u8]) -> Option<i64> {
    let index = MONTHS.iter().position(|known| known.eq_ignore_ascii_case(name))?;
    Some(index as i64 + 1)
}

fn number(bytes: &[u8]) -> Option<i64> {
    super::fields::digits(bytes, 9_999).map(|number| number as i64)
}

/// Seconds into the day of `08:49:37`.
fn clock(bytes: &[u8]) -> Option<i64> {
    if bytes[2] != b':' || bytes[5] != b':' {
        return None;
    }
    let (hour, minute, second) =
        (number(&bytes[..2])?, number(&bytes[3..5])?, number(&bytes[6..])?);
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3_600 + minute * 60 + second)
}

fn seconds(year: i64, month: i64, day: i64, clock: i64) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (1..=length).contains(&day).then(|| days(year, month, day) * DAY + clock)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. The year is counted from March, so that the leap
/// day is the last one; 146 097 days are 400 years.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a number of days since 1970-01-01; the reverse of [`days`].
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-21 00:00:00 UTC.
    const NOW: i64 = 1_795_219_200;

    #[test]
    fn reads_the_three_forms() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "SUN, 06 nov 1994 08:49:37 gMT",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn a_short_year_is_at_most_fifty_years_ahead() {
        assert_eq!(
            parse(b"Thursday, 18-Aug-50 02:01:18 GMT", NOW),
            parse(b"Thu, 18 Aug 2050 02:01:18 GMT", NOW)
        );
        assert_eq!(
            parse(b"Thursday, 18-Aug-77 02:01:18 GMT", NOW),
            parse(b"Thu, 18 Aug 1977 02:01:18 GMT", NOW)
        );
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "0",
            "-1",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 30 Feb 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Xyz, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Xyz 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT, Thu",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), None, "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(format(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(format(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(format(i64::MIN), "Sat, 01 Jan 0000 00:00:00 GMT");
    }

    #[test]
    fn the_anchor_moves_the_run_onto_the_calendar() {
        let anchor = WallAnchor { unix_nanos_at_start: 5_500_000_000 };
        assert_eq!(anchor.unix_seconds(Time::from_nanos(500_000_000)), 6);
        assert_eq!(anchor.unix_nanos(Time::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn every_second_survives_the_way_out_and_back(seconds in -62_167_219_200_i64..=253_402_300_799) {
            prop_assert_eq!(parse(format(seconds).as_bytes(), NOW), Some(seconds));
        }

        #[test]
        fn never_panics(value in prop::collection::vec(any::<u8>(), 0..40), now: i64) {
            let _read = parse(&value, now / 4);
        }

        #[test]
        fn almost_dates_never_panic(value in "[A-Za-z]{3,9}[, ]{1,2}[0-9 -]{1,4}[A-Za-z]{3}[ -][0-9]{2,4} [0-9:.]{7,9} ?[A-Z]{0,4}") {
            let _read = parse(value.as_bytes(), NOW);
        }
    }
}
