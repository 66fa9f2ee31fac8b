//! One self-contained page for people who were not there: no script, no picture, nothing to load.

use std::fmt::Write as _;

use super::plot::plot;
use super::{Report, ScenarioReport, Spread, lost, ms};

/// Everything the page needs to look like something.
const STYLE: &str = "\
:root{--ink:#1c2733;--soft:#5b6b7b;--line:#dde4ea;--good:#1a7f4b;--bad:#b3261e;--wait:#d98a00}\
body{font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;\
color:var(--ink);background:#f4f6f8;margin:0}\
main{max-width:1080px;margin:0 auto;padding:28px 24px 60px}\
h1{font-size:26px;margin:0 0 2px}h2{font-size:18px;margin:0 0 2px}\
p{margin:4px 0 10px}.soft{color:var(--soft)}\
.verdict{border-radius:10px;color:#fff;padding:18px 22px;margin:18px 0;font-size:19px}\
.good{background:var(--good)}.bad{background:var(--bad)}\
.cards{display:flex;gap:14px;flex-wrap:wrap;margin:0 0 18px}\
.card{background:#fff;border:1px solid var(--line);border-radius:10px;padding:12px 16px;flex:1 1 180px}\
.card b{display:block;font-size:24px;line-height:1.25}\
section{background:#fff;border:1px solid var(--line);border-radius:10px;padding:16px 18px;\
margin:0 0 16px;break-inside:avoid}\
table{border-collapse:collapse;width:100%;font-size:14px}\
th{text-align:left;color:var(--soft);font-weight:600}\
th,td{padding:5px 8px;border-bottom:1px solid var(--line)}td.n,th.n{text-align:right;\
font-variant-numeric:tabular-nums}tr:last-child td{border-bottom:0}\
.pass{color:var(--good);font-weight:600}.fail{color:var(--bad);font-weight:600}\
ul.wrong{color:var(--bad);margin:6px 0}svg{width:100%;height:auto;display:block}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;margin:0}\
dt{font-weight:600}dd{margin:0}code{font-size:13px}";

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let mut out = String::with_capacity(64 * 1024);
    out += "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
            <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
            <title>Rookery failover drill</title><style>";
    out += STYLE;
    out += "</style></head><body><main>\n<h1>Failover drill</h1>\
            <p class=\"soft\">Real mail clients used this mail store while it was damaged on purpose. \
            Everything they were promised was checked afterwards.</p>\n";
    verdict(report, &mut out);
    cards(report, &mut out);
    table(report, &mut out);
    for rounds in report.by_scenario() {
        scenario(&rounds, &mut out);
    }
    words(&mut out);
    let _ = writeln!(
        out,
        "<p class=\"soft\">rookery {}, seed {}. Every operation of every client is in the histories; \
         <code>rookery drill check</code> judges them again.</p></main></body></html>",
        report.version, report.seed
    );
    out
}

fn total(report: &Report, of: impl Fn(&ScenarioReport) -> usize) -> usize {
    report.scenarios.iter().map(of).sum()
}

fn verdict(report: &Report, out: &mut String) {
    let n = report.scenarios.len();
    let n_failed = report.scenarios.iter().filter(|one| !one.passed()).count();
    let n_acknowledged = grouped(total(report, |one| one.n_acknowledged));
    let n_lost = total(report, |one| one.n_lost);
    let (class, words) = match (n_failed == 0, n_lost) {
        (true, _) if report.broken_off.is_some() => {
            ("bad", format!("<b>Not finished.</b> {n} rehearsed failures went as promised."))
        }
        (true, _) => (
            "good",
            format!(
                "<b>Passed.</b> {n} rehearsed failures, {n_acknowledged} acknowledged operations, \
                 not one lost, doubled, altered or back from the dead."
            ),
        ),
        (false, 0) => {
            let lost = match report.is_read() {
                true => format!("None of {n_acknowledged} acknowledged operations was lost."),
                false => {
                    "Not all mail could be read in the end: what was lost is not known.".into()
                }
            };
            (
                "bad",
                format!(
                    "<b>Failed.</b> {n_failed} of {n} rehearsed failures did not go as promised. \
                     {lost}"
                ),
            )
        }
        (false, n_lost) => (
            "bad",
            format!(
                "<b>Failed.</b> {n_lost} of {n_acknowledged} acknowledged operations were lost."
            ),
        ),
    };
    let _ = writeln!(out, "<div class=\"verdict {class}\">{words}</div>");
    if let Some(why) = &report.broken_off {
        let why = escaped(why);
        let _ = writeln!(out, "<div class=\"verdict bad\"><b>Broken off</b> in {why}</div>");
    }
}

fn cards(report: &Report, out: &mut String) {
    let longest = report.scenarios.iter().map(|one| one.unavailable.max_us).max().unwrap_or(0);
    let n_clients = report.scenarios.iter().map(|one| one.clients.len()).max().unwrap_or(0);
    let cards = [
        (
            "acknowledged changes lost (RPO)",
            lost(total(report, |one| one.n_lost), report.is_read()),
        ),
        ("longest wait of any client (RTO)", ms(longest)),
        ("connections lost", total(report, |one| one.n_disconnects).to_string()),
        ("mail clients at work", n_clients.to_string()),
    ];
    *out += "<div class=\"cards\">";
    for (words, number) in cards {
        let _ = write!(
            out,
            "<div class=\"card\"><b>{number}</b><span class=\"soft\">{words}</span></div>"
        );
    }
    *out += "</div>\n";
}

fn table(report: &Report, out: &mut String) {
    *out += "<section><table><tr><th>what was rehearsed</th><th>verdict</th>\
             <th class=\"n\">times</th><th class=\"n\">operations</th><th class=\"n\">lost</th>\
             <th class=\"n\">wait, half of the clients</th><th class=\"n\">99 of 100</th>\
             <th class=\"n\">longest</th><th class=\"n\">connections lost</th>\
             <th class=\"n\">all copies back</th><th class=\"n\">copies verified</th></tr>";
    for rounds in report.by_scenario() {
        let first = rounds[0];
        let waits = waits_of(&rounds);
        let (class, verdict) = match rounds.iter().all(|one| one.passed()) {
            true => ("pass", "passed"),
            false => ("fail", "failed"),
        };
        let whole = rounds.iter().map(|one| one.redundancy_ms).collect::<Option<Vec<_>>>();
        let whole = whole.and_then(|all| all.into_iter().max());
        let whole = whole.map_or("never".into(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
        let n =
            |of: fn(&ScenarioReport) -> usize| -> usize { rounds.iter().map(|one| of(one)).sum() };
        let _ = write!(
            out,
            "<tr><td>{}<br><span class=\"soft\">{}</span></td><td class=\"{class}\">{verdict}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{whole}</td><td class=\"n\">{}</td></tr>",
            first.scenario.name(),
            escaped(first.scenario.sentence()),
            rounds.len(),
            grouped(n(|one| one.n_acknowledged)),
            lost(n(|one| one.n_lost), rounds.iter().all(|one| one.is_read)),
            ms(waits.p50_us),
            ms(waits.p99_us),
            ms(waits.max_us),
            n(|one| one.n_disconnects),
            grouped(n(|one| one.n_copies)),
        );
    }
    *out += "</table></section>\n";
}

fn waits_of(rounds: &[&ScenarioReport]) -> Spread {
    Spread::of(rounds.iter().flat_map(|one| one.clients.iter().map(|client| client.longest_us)))
}

/// The round that went worst, and what went wrong in any.
fn scenario(rounds: &[&ScenarioReport], out: &mut String) {
    let worst = rounds.iter().max_by_key(|one| (!one.passed(), one.unavailable.max_us));
    let Some(worst) = worst else { return };
    let of = if rounds.len() > 1 {
        format!(", round {} of {}", worst.round, rounds.len())
    } else {
        String::new()
    };
    let _ = write!(
        out,
        "<section><h2>{}</h2><p class=\"soft\">{} Shown: the longest wait{of}.</p>",
        worst.scenario.name(),
        escaped(worst.scenario.sentence())
    );
    for one in rounds.iter().filter(|one| !one.passed()) {
        let _ = write!(out, "<ul class=\"wrong\"><li>round {}:<ul>", one.round);
        for trouble in &one.trouble {
            let _ = write!(out, "<li>{}</li>", escaped(trouble));
        }
        for violation in one.violations.iter().take(super::TOLD_MAX) {
            let _ = write!(out, "<li>{}</li>", escaped(&violation.to_string()));
        }
        *out += "</ul></li></ul>";
    }
    plot(worst, out);
    *out += "</section>\n";
}

fn words(out: &mut String) {
    *out += "<section><h2>What the words mean</h2><dl>\
        <dt>acknowledged operation</dt><dd>A message, flag, move or deletion the store said yes \
        to, or a look at them. From then on it must never get lost, whatever breaks.</dd>\
        <dt>lost (RPO)</dt><dd>Acknowledged changes that were not there in the end: how much work a \
        failure costs. The promise is none.</dd>\
        <dt>wait (RTO)</dt><dd>From a client's first attempt until the store did what it asked, \
        attempts that failed included: how long a failure is felt. Each client counts with its longest \
        wait.</dd>\
        <dt>connection lost</dt><dd>A mail program was thrown out and had to connect again.</dd>\
        <dt>all copies back</dt><dd>Time from the failure until every message was again on as many disks \
        as it should be.</dd></dl></section>\n";
}

/// 12345 as 12,345.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Text that cannot be taken for markup.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Promise, Violation};
    use crate::history::History;
    use crate::scenario::Scenario;

    fn report(violations: Vec<Violation>) -> Report {
        let mut report = Report::new(7, "/histories".into());
        let history = History::default();
        let mut one = ScenarioReport::of(Scenario::LeaderCrash, 1, &history, &[]);
        one.judged(violations, std::collections::BTreeSet::new());
        report.scenarios.push(one);
        report
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page(&report(Vec::new()));
        assert!(page.contains("<b>Passed.</b> 1 rehearsed failures"));
        for word in ["src=", "href=", "@import", "url(", "<script"] {
            assert!(!page.contains(word), "the page says {word}");
        }
    }

    #[test]
    fn a_lost_message_is_told_at_the_top_and_cannot_be_markup() {
        let sentence = "<b>token</b> is not there at the end".to_owned();
        let lost = Violation { promise: Promise::NothingLost, sentence };
        let page = page(&report(vec![lost]));
        assert!(page.contains("<b>Failed.</b> 1 of 0 acknowledged operations were lost."));
        assert!(page.contains("&lt;b&gt;token&lt;/b&gt; is not there"));
    }

    #[test]
    fn what_nobody_looked_for_is_not_said_to_be_there() {
        let mut report = report(Vec::new());
        report.scenarios[0].judged(Vec::new(), ["anna"].into());
        let table = report.table();
        for words in [page(&report), table] {
            assert!(
                words.contains("unknown") && words.contains("nobody looked into anna"),
                "{words}"
            );
            assert!(!words.contains("None of"), "{words}");
        }
        assert_eq!(report.verdict(), "FAILED");
    }

    #[test]
    fn a_drill_that_was_broken_off_tells_what_it_has() {
        let mut report = report(Vec::new());
        report.broken_off = Some("bit-rot round 1: <why>".into());
        assert!(!report.passed());
        assert_eq!(report.verdict(), "BROKEN OFF in bit-rot round 1: <why>");
        let page = page(&report);
        assert!(page.contains("<b>Broken off</b> in bit-rot round 1: &lt;why&gt;"), "{page}");
        assert!(!page.contains("Passed."), "{page}");
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
