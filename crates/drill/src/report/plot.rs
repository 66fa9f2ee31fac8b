//! A scenario over time, as a picture in the page: what got done, what was done to the store, and who had
//! to wait.

use std::fmt::Write as _;

use super::ScenarioReport;
use super::html::escaped;

const WIDTH: f64 = 1000.0;
/// Room for the names of the rows.
const LEFT: f64 = 92.0;
const RIGHT: f64 = 12.0;
/// Height of the curve.
const CURVE: f64 = 90.0;
/// Room for the names of what was done to the store, above the curve.
const TOP: f64 = 34.0;
const ROW: f64 = 13.0;
/// Room for the axis.
const BOTTOM: f64 = 26.0;
/// A wait from here on is drawn as a long one.
const LONG_US: u64 = 1_000_000;

struct Scale {
    end_us: f64,
}

impl Scale {
    fn x(&self, us: u64) -> f64 {
        LEFT + (us as f64 / self.end_us).min(1.0) * (WIDTH - LEFT - RIGHT)
    }
}

/// Draws it.
pub(super) fn plot(report: &ScenarioReport, out: &mut String) {
    let scale = Scale { end_us: report.timeline.end_us.max(1_000_000) as f64 };
    let rows = TOP + CURVE + 14.0;
    let bottom = rows + ROW * report.clients.len() as f64;
    let height = bottom + BOTTOM;
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"timeline\" \
         font-family=\"system-ui,'DejaVu Sans',sans-serif\" font-size=\"10\" fill=\"#5b6b7b\">"
    );
    faults(report, &scale, bottom, out);
    curve(report, &scale, out);
    clients(report, &scale, rows, out);
    axis(&scale, bottom, out);
    *out += "</svg>";
}

/// Shaded from its begin to its end, with its name above.
fn faults(report: &ScenarioReport, scale: &Scale, bottom: f64, out: &mut String) {
    for (k, fault) in report.faults.iter().enumerate() {
        let (from, to) = (scale.x(fault.start_us), scale.x(fault.end_us));
        let width = (to - from).max(2.0);
        let y = TOP - 6.0 - 11.0 * (k % 2) as f64;
        let (x, anchor) = if from > WIDTH * 0.75 { (to, "end") } else { (from, "start") };
        let _ = write!(
            out,
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\" \
             fill=\"#b3261e\" opacity=\"0.10\"/><text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"#b3261e\" \
             text-anchor=\"{anchor}\">{}</text>",
            bottom - TOP,
            escaped(&fault.name)
        );
    }
    if let Some(ms) = report.redundancy_ms {
        let x = scale.x(report.fault_us + ms * 1000);
        let _ = write!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"#1a7f4b\" \
             stroke-dasharray=\"3 3\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"#1a7f4b\">all copies \
             back</text>",
            x + 3.0,
            TOP + 9.0
        );
    }
}

/// Acknowledged operations per second.
fn curve(report: &ScenarioReport, scale: &Scale, out: &mut String) {
    let timeline = &report.timeline;
    let per_second = 1e6 / timeline.bucket_us.max(1) as f64;
    let most = timeline.acknowledged.iter().copied().max().unwrap_or(0).max(1);
    let base = TOP + CURVE;
    let mut points = format!("{LEFT},{base} ");
    for (at, n) in timeline.acknowledged.iter().enumerate() {
        let x = scale.x((at as u64 * timeline.bucket_us) + timeline.bucket_us / 2);
        let y = base - f64::from(*n) / f64::from(most) * CURVE;
        let _ = write!(points, "{x:.1},{y:.1} ");
    }
    let last = scale.x(timeline.acknowledged.len() as u64 * timeline.bucket_us);
    let _ = write!(points, "{last:.1},{base}");
    let _ = write!(
        out,
        "<polygon points=\"{points}\" fill=\"#2f6fb2\" opacity=\"0.35\" stroke=\"#2f6fb2\" \
         stroke-width=\"0.8\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}/s</text>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">done</text>",
        LEFT - 8.0,
        TOP + 9.0,
        f64::from(most) * per_second,
        LEFT - 8.0,
        base
    );
}

/// A row for each: its long waits, and where it lost its connection.
fn clients(report: &ScenarioReport, scale: &Scale, top: f64, out: &mut String) {
    for (row, client) in report.clients.iter().enumerate() {
        let y = top + ROW * row as f64;
        let middle = y + ROW / 2.0;
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} {}</text>\
             <line x1=\"{LEFT}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" \
             stroke=\"#dde4ea\"/>",
            LEFT - 8.0,
            middle + 3.5,
            client.role.words(),
            client.id,
            WIDTH - RIGHT
        );
        for wait in report.timeline.waits.iter().filter(|wait| wait.client == client.id) {
            let (from, to) = (scale.x(wait.from_us), scale.x(wait.to_us));
            let us = wait.to_us - wait.from_us;
            let colour = if us >= LONG_US { "#b3261e" } else { "#d98a00" };
            let _ = write!(
                out,
                "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\" \
                 fill=\"{colour}\"><title>waited {} ms</title></rect>",
                y + 2.0,
                (to - from).max(1.5),
                ROW - 4.0,
                us / 1000
            );
        }
        for (_, at) in report.timeline.disconnects.iter().filter(|(who, _)| *who == client.id) {
            let x = scale.x(*at);
            let _ = write!(
                out,
                "<path d=\"M{:.1} {:.1}l7 7m0 -7l-7 7\" stroke=\"#1c2733\" stroke-width=\"1.6\">\
                 <title>connection lost</title></path>",
                x - 3.5,
                middle - 3.5
            );
        }
    }
}

fn axis(scale: &Scale, y: f64, out: &mut String) {
    let seconds = scale.end_us / 1e6;
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0];
    let step = steps.into_iter().find(|step| seconds / step <= 14.0).unwrap_or(600.0);
    let mut at = 0.0;
    while at <= seconds {
        let x = scale.x((at * 1e6) as u64);
        let _ = write!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#5b6b7b\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at:.0} s</text>",
            y + 4.0,
            y + 16.0
        );
        at += step;
    }
}
