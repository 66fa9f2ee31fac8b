//! Dates as IMAP writes them (RFC 9051 9: `date`, `date-time`).

use mailbox::command::InternalDate;
use mime::days_since_1970;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Limit: octets of a zone that is not `+hhmm` and is taken for UTC, with one to spare. node-imap writes
/// `--500` and `+.530` for zones behind UTC or of half hours; refused, the message would be lost.
const ZONE_BYTES_MAX: usize = 6;

/// Days from 1 March of the year 0, where the count of [`civil`] begins, to 1970.
const DAYS_TO_1970: i64 = 719_468;
const DAYS_OF_YEAR: i64 = 365;
/// Leap days counted: of four years, of a hundred, of four hundred.
const DAYS_OF_4: i64 = 4 * DAYS_OF_YEAR + 1;
const DAYS_OF_100: i64 = 25 * DAYS_OF_4 - 1;
const DAYS_OF_400: i64 = 4 * DAYS_OF_100 + 1;
/// Five months from March on have as many, and so have the next five.
const DAYS_OF_5_MONTHS: i64 = 153;

/// Year, month and day of a day since 1970. Years begin in March, so that a leap day is their last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + DAYS_TO_1970;
    let era = shifted.div_euclid(DAYS_OF_400);
    let day_of_era = shifted.rem_euclid(DAYS_OF_400);
    let n_leap_days =
        day_of_era / (DAYS_OF_4 - 1) - day_of_era / DAYS_OF_100 + day_of_era / (DAYS_OF_400 - 1);
    let year_of_era = (day_of_era - n_leap_days) / DAYS_OF_YEAR;
    let day_of_year =
        day_of_era - (DAYS_OF_YEAR * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / DAYS_OF_5_MONTHS;
    let day = day_of_year - (DAYS_OF_5_MONTHS * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// `17-Jul-1996` or `7-Jul-1996` as days since 1970.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || day.is_empty() || day.len() > 2 || year.len() != 4 {
        return None;
    }
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? as i64 + 1;
    days_since_1970(digits(year)?, month, digits(day)?)
}

/// `17-Jul-1996 02:44:25 -0700`; a day of one digit may have a space in front (RFC 9051 9), and goes without
/// where Horde and node-imap write it.
pub(crate) fn parse_date_time(text: &str) -> Option<InternalDate> {
    let mut words = text.strip_prefix(' ').unwrap_or(text).splitn(3, ' ');
    let (day, time, zone) = (parse_date(words.next()?)?, words.next()?, words.next()?);
    let mut parts = time.split(':').map(two_digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let is_a_time = parts.next().is_none() && hour <= 23 && minute <= 59 && second <= 60;
    if !is_a_time || zone.len() > ZONE_BYTES_MAX {
        return None;
    }
    let zone = parse_zone(zone).unwrap_or(0);
    let local = day * 86_400 + hour * 3600 + minute * 60 + second;
    Some(InternalDate { unix_s: local - zone * 60, zone_minutes: zone as i16 })
}

/// `+hhmm` or `-hhmm` in minutes.
fn parse_zone(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = (two_digits(text.get(1..3)?)?, two_digits(text.get(3..)?)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

fn two_digits(text: &str) -> Option<i64> {
    digits(text).filter(|_| text.len() == 2)
}

fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `" 7-Jul-1996 02:44:25 -0700"` without the quotes.
pub(crate) fn format_date_time(date: InternalDate) -> String {
    // A zone of a day or more cannot be written; it is shown as UTC.
    let zone = Some(i64::from(date.zone_minutes)).filter(|zone| zone.abs() < 1440).unwrap_or(0);
    // IMAP's year has four digits.
    let (earliest, latest) = (-62_167_132_800, 253_402_214_400);
    let local = (date.unix_s.clamp(earliest, latest)) + zone * 60;
    let (year, month, day) = civil(local.div_euclid(86_400));
    let second = local.rem_euclid(86_400);
    let sign = if zone < 0 { '-' } else { '+' };
    format!(
        "{day:2}-{}-{year:04} {:02}:{:02}:{:02} {sign}{:02}{:02}",
        MONTHS[(month - 1) as usize],
        second / 3600,
        second / 60 % 60,
        second % 60,
        zone.abs() / 60,
        zone.abs() % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days() {
        assert_eq!(parse_date("1-Jan-1970"), Some(0));
        assert_eq!(parse_date("29-Feb-2024"), Some(19_782));
        assert_eq!(parse_date("29-Feb-2023"), None);
        assert_eq!(parse_date("1-Jan-70"), None);
        let date = parse_date_time("17-Jul-1996 02:44:25 -0700").unwrap();
        assert_eq!(date, InternalDate { unix_s: 837_596_665, zone_minutes: -420 });
        assert_eq!(format_date_time(date), "17-Jul-1996 02:44:25 -0700");
    }

    #[test]
    fn dates_and_times_as_clients_write_them() {
        let at = |unix_s, zone_minutes| Some(InternalDate { unix_s, zone_minutes });
        for text in [
            " 5-Jan-2024 10:00:00 +0100",
            "5-Jan-2024 10:00:00 +0100",
            "05-Jan-2024 10:00:00 +0100",
        ] {
            assert_eq!(parse_date_time(text), at(1_704_445_200, 60), "{text}");
        }
        // What cannot be read as a zone is UTC.
        for zone in ["--500", "+.530", "-.530", "GMT", "+2400", "+0160", "+01:00", ""] {
            let text = format!("5-Jan-2024 10:00:00 {zone}");
            assert_eq!(parse_date_time(&text), at(1_704_448_800, 0), "{text}");
        }
        for text in [
            "5-Jan-2024",
            "5-Jan-2024 10:00:00",
            "5-Jan-2024 10:00 +0100",
            "5-Jan-2024 1:00:00 +0100",
            "5-Jan-2024 10:00:00:00 +0100",
            "5-Jan-2024 24:00:00 +0100",
            "5-Jan-2024 10:00:00 +010000",
            "  5-Jan-2024 10:00:00 +0100",
            "005-Jan-2024 10:00:00 +0100",
            "32-Jan-2024 10:00:00 +0100",
        ] {
            assert_eq!(parse_date_time(text), None, "{text}");
        }
    }

    #[test]
    fn zones_that_cannot_be_written_are_utc() {
        for zone_minutes in [i16::MIN, -1440, 1440, i16::MAX] {
            let date = InternalDate { unix_s: 837_596_665, zone_minutes };
            assert_eq!(format_date_time(date), "17-Jul-1996 09:44:25 +0000");
        }
    }

    proptest! {
        #[test]
        fn every_instant_comes_back(
            unix_s in -62_000_000_000i64..253_000_000_000,
            zone in -1439i16..1440,
        ) {
            let date = InternalDate { unix_s, zone_minutes: zone };
            prop_assert_eq!(parse_date_time(&format_date_time(date)), Some(date));
        }

        #[test]
        fn no_date_panics(unix_s: i64, zone_minutes: i16, text in ".{0,30}") {
            prop_assert_eq!(format_date_time(InternalDate { unix_s, zone_minutes }).len(), 26);
            let _ = (parse_date(&text), parse_date_time(&text));
        }
    }
}
