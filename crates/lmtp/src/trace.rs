//! The header fields put in front of each recipient's copy (RFC 5321 4.4).

use bytes::Bytes;
use mailbox::LogTime;
use mailbox::chunk::TRACE_BYTES_MAX;

use crate::LINE_BYTES_MAX;

// Sender, client and twice the recipient, each shorter than the line it came in; and our own words.
const _: () = assert!(5 * LINE_BYTES_MAX <= TRACE_BYTES_MAX);

/// What the fields tell.
pub(crate) struct Trace<'a> {
    /// The reverse path, empty for notifications.
    pub sender: &'a str,
    /// The recipient as the client wrote it.
    pub recipient: &'a str,
    /// What the client called itself.
    pub client: &'a str,
    /// Its address.
    pub peer: Option<&'a str>,
    /// What we call ourselves.
    pub hostname: &'a str,
    /// `LMTP` or `UTF8LMTP`.
    pub protocol: &'a str,
    /// Names the transaction in our logs.
    pub id: &'a str,
    /// When.
    pub time: LogTime,
}

impl Trace<'_> {
    /// Return-Path, Delivered-To and Received, whole lines.
    pub(crate) fn fields(&self) -> Bytes {
        let peer = self.peer.map(|peer| format!(" ({})", literal(peer))).unwrap_or_default();
        let date = date(self.time);
        let Self { sender, recipient, client, hostname, protocol, id, .. } = self;
        Bytes::from(format!(
            "Return-Path: <{sender}>\r\nDelivered-To: {recipient}\r\n\
             Received: from {client}{peer}\r\n\tby {hostname} with {protocol} id {id}\r\n\
             \tfor <{recipient}>; {date}\r\n"
        ))
    }
}

/// RFC 5321 4.1.3: an IPv6 address says what it is.
fn literal(address: &str) -> String {
    let tag = if address.contains(':') { "IPv6:" } else { "" };
    format!("[{tag}{address}]")
}

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// RFC 5322 3.3, in UTC.
fn date(time: LogTime) -> String {
    let seconds = time.0 / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // The civil calendar counted in eras of 400 years from 1 March of the year 0.
    let from_era_start = days + 719_468;
    let era = from_era_start / 146_097;
    let day_of_era = from_era_start % 146_097;
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    format!(
        "{}, {day} {} {year} {:02}:{:02}:{:02} +0000",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_s_address_is_a_literal_of_smtp() {
        let fields = |peer| {
            let trace = Trace {
                sender: "a@b",
                recipient: "jo@c",
                client: "mta",
                peer,
                hostname: "h",
                protocol: "LMTP",
                id: "s.1",
                time: LogTime(0),
            };
            String::from_utf8(trace.fields().to_vec()).unwrap()
        };
        assert!(fields(Some("192.0.2.7")).contains("from mta ([192.0.2.7])\r\n"));
        assert!(fields(Some("2001:db8::7")).contains("from mta ([IPv6:2001:db8::7])\r\n"));
        assert!(fields(None).contains("from mta\r\n"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds: u64| date(LogTime(seconds * 1000));
        assert_eq!(at(0), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(at(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(at(1_795_466_067), "Mon, 23 Nov 2026 20:34:27 +0000");
        assert_eq!(at(4_102_444_799), "Thu, 31 Dec 2099 23:59:59 +0000");
    }
}
