//! Date: what RFC 5322 allows, its obsolete forms, and what can be made of the rest.

/// Octets of a Date that are looked at.
const DATE_BYTES_MAX: usize = 128;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// RFC 5322 4.3: zones with names, in hours. All others count as UTC.
const ZONES: [(&str, i32); 8] = [
    ("edt", -4),
    ("est", -5),
    ("cdt", -5),
    ("cst", -6),
    ("mdt", -6),
    ("mst", -7),
    ("pdt", -7),
    ("pst", -8),
];

/// Why: clocks are at most 14 hours from UTC; what says more than a day is no zone.
const ZONE_MIN_MAX: i32 = 24 * 60;

const S_PER_DAY: i64 = 86_400;

/// Seconds since 1970 in UTC and the zone in minutes; `None` without a valid date.
///
/// RFC 5256 2.2: an invalid time counts as 00:00:00 and an invalid zone as UTC.
pub(crate) fn date(value: &[u8]) -> Option<(i64, i32)> {
    let value = String::from_utf8_lossy(&value[..value.len().min(DATE_BYTES_MAX)]);
    let text = without_comments(&value);
    let is_gap = |c: char| c.is_ascii_whitespace() || c == ',' || c == '"';
    let mut words: Vec<&str> = text.split(is_gap).filter(|word| !word.is_empty()).collect();
    // The day of the week, in whatever language: it may begin as a month does.
    let is_month_third = words.get(2).is_some_and(|word| month(word).is_some());
    let is_day_name = |word: &&str| is_name(word) && (is_month_third || month(word).is_none());
    if words.first().is_some_and(is_day_name) {
        words.remove(0);
    }
    if let Some((day, month, year)) = words.first().and_then(|word| dashed(word)) {
        words.splice(..1, [day, month, year]);
    }
    if words.len() >= 3 && month(words[0]).is_some() {
        // As `ctime` writes it: month, day, time, zone or none, year; or as Americans do: month, day, year.
        let year = words.iter().skip(2).position(|word| is_number(word))? + 2;
        let year = words.remove(year);
        words.swap(0, 1);
        words.insert(2, year);
    }
    let [day, month_name, year, rest @ ..] = &words[..] else { return None };
    let day = number(day, 31).filter(|_| day.len() <= 2)?;
    let days = days_since_1970(full_year(year)?, month(month_name)?, day)?;
    let (seconds, zone_min) = match rest {
        [] => (0, 0),
        [clock, zone @ ..] => time_and_zone(clock, zone.first().copied()),
    };
    Some((days * S_PER_DAY + seconds - i64::from(zone_min) * 60, zone_min))
}

/// RFC 5322 3.2.2: comments, which nest, become a space.
fn without_comments(value: &str) -> String {
    let mut depth = 0_usize;
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                text.push(' ');
            }
            _ if depth == 0 => text.push(c),
            _ => {}
        }
    }
    text
}

/// `1-Jan-2024` in its three pieces.
fn dashed(word: &str) -> Option<(&str, &str, &str)> {
    let (day, rest) = word.split_once('-')?;
    let (month_name, year) = rest.split_once('-')?;
    month(month_name).map(|_| (day, month_name, year))
}

fn is_name(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'.')
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number of at most this.
fn number(digits: &str, max: i64) -> Option<i64> {
    let number = digits.parse().ok().filter(|_| is_number(digits))?;
    (number <= max).then_some(number)
}

/// 1 for January: the first three letters tell, in any case.
fn month(word: &str) -> Option<i64> {
    let start = word.get(..3).filter(|_| is_name(word))?;
    let at = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(start))?;
    Some(at as i64 + 1)
}

/// RFC 5322 4.3: two digits are of this century below 50, three count from 1900.
fn full_year(word: &str) -> Option<i64> {
    let year = number(word, 9999)?;
    match word.len() {
        2 if year < 50 => Some(2000 + year),
        2 | 3 => Some(1900 + year),
        4 => Some(year),
        _ => None,
    }
}

/// Days since 1970 of a day of the Gregorian calendar; `None` if there is no such day.
pub fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let n_days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    if !(1..=n_days).contains(&day) {
        return None;
    }
    // Years from March to February, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 0000-03-01 is 719,468 days before 1970.
    Some(year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468)
}

/// Seconds of the day, and the zone in minutes; a zone may follow the time without a space.
fn time_and_zone(clock: &str, zone: Option<&str>) -> (i64, i32) {
    let n_clock = clock.find(['+', '-']).unwrap_or(clock.len());
    let (clock, attached) = clock.split_at(n_clock);
    let zone = if attached.is_empty() { zone.unwrap_or_default() } else { attached };
    (seconds_of_day(clock).unwrap_or(0), zone_minutes(zone).unwrap_or(0))
}

/// `hh:mm` or `hh:mm:ss`, the parts of some senders with points between them.
fn seconds_of_day(clock: &str) -> Option<i64> {
    let mut parts = clock.split([':', '.']);
    let hours = number(parts.next()?, 23)?;
    let minutes = number(parts.next()?, 59)?;
    // RFC 5322 3.3: 60 is a leap second.
    let seconds = parts.next().map_or(Some(0), |part| number(part, 60))?;
    Some(hours * 3600 + minutes * 60 + seconds)
}

fn zone_minutes(zone: &str) -> Option<i32> {
    let named = ZONES.iter().find(|(name, _)| name.eq_ignore_ascii_case(zone));
    if let Some((_, hours)) = named {
        return Some(hours * 60);
    }
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let digits = digits.replace(':', "");
    let written = number(&digits, 9959).filter(|_| digits.len() == 4)? as i32;
    let minutes = written / 100 * 60 + written % 100;
    (written % 100 < 60 && minutes <= ZONE_MIN_MAX).then_some(sign * minutes)
}

#[cfg(test)]
mod tests {
    use super::{date, days_since_1970};

    /// 1 January 2024, 00:00:00 UTC.
    const START: i64 = 1_704_067_200;

    #[test]
    fn dates_of_all_sorts() {
        let tenth = START + 36_000;
        for (value, wanted) in [
            ("Mon, 1 Jan 2024 10:00:00 +0130", (tenth - 5400, 90)),
            ("1 Jan 24 10:00 -0800", (tenth + 8 * 3600, -480)),
            ("(c) Mon (d(e)), (f) 1 (g) JANUARY 2024\r\n 10:00:00 +0000 (UTC)", (tenth, 0)),
            ("Mon, 01-Jan-2024 10:00:00 GMT", (tenth, 0)),
            ("Mon Jan  1 10:00:00 2024", (tenth, 0)),
            ("Mon Jan  1 10:00:00 PST 2024", (tenth + 8 * 3600, -480)),
            ("Jan 1 10:00:00 2024", (tenth, 0)),
            ("Jan 1, 2024 10:00:00 -0800", (tenth + 8 * 3600, -480)),
            ("Mon, January 1 2024 10:00:00 +0000", (tenth, 0)),
            ("Jan 1, 2024", (START, 0)),
            ("1 Jan 2024 10:00 EST", (tenth + 5 * 3600, -300)),
            ("mar., 1 Jan 2024 10:00 EST", (tenth + 5 * 3600, -300)),
            ("Mon 1 Jan 2024 10:00:00+01:00", (tenth - 3600, 60)),
            ("Mon, 1 Jan 2024 10.00.00 \"GMT\"", (tenth, 0)),
            // RFC 5256 2.2: no zone, or none that is one.
            ("Mon, 1 Jan 2024 10:00:00", (tenth, 0)),
            ("Mon, 1 Jan 2024 10:00:00 CEST", (tenth, 0)),
            ("Mon, 1 Jan 2024 10:00:00 +9999", (tenth, 0)),
            ("Mon, 1 Jan 2024 10:00:00 +1", (tenth, 0)),
            // No time, or none that is one.
            ("Mon, 1 Jan 2024", (START, 0)),
            ("Mon, 1 Jan 2024 24:00:00 +0000", (START, 0)),
            ("Mon, 1 Jan 2024 10:60 +0000", (START, 0)),
            ("Sat, 31 Dec 2016 23:59:60 +0000", (1_483_228_800, 0)),
            ("29 Feb 2024 00:00 Z", (START + 59 * 86_400, 0)),
            ("1 Sept 2024 00:00 UT", (START + 244 * 86_400, 0)),
            ("1 Mar 2100 00:00 UT", (4_107_542_400, 0)),
            ("31 Dec 69 23:59:59 +0000", (-1, 0)),
            ("1 Jan 103 00:00 UT", (1_041_379_200, 0)),
            ("1 Jan 49 00:00 UT", (2_493_072_000, 0)),
            ("1 Jan 1600 00:00 UT", (-11_676_096_000, 0)),
        ] {
            assert_eq!(date(value.as_bytes()), Some(wanted), "{value}");
        }
    }

    #[test]
    fn there_are_twelve_months() {
        assert_eq!(days_since_1970(2024, 12, 31), Some(20_088));
        assert!([0, 13].iter().all(|month| days_since_1970(2024, *month, 1).is_none()));
    }

    #[test]
    fn what_is_no_date() {
        for value in [
            "",
            "yesterday",
            "Mon, 32 Jan 2024 10:00:00 +0000",
            "Thu, 29 Feb 2023 10:00:00 +0000",
            "31 Apr 2024 10:00:00 +0000",
            "0 Jan 2024 10:00:00 +0000",
            "1 Foo 2024 10:00:00 +0000",
            "1 Jan 12345 10:00:00 +0000",
            "2024-01-01T10:00:00Z",
            "Jan 1 10:00:00",
            "Jan 1, 10:00:00 +0000",
        ] {
            assert_eq!(date(value.as_bytes()), None, "{value}");
        }
    }
}
