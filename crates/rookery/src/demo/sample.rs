//! Sample mail: enough shapes to see that a client shows them.

use super::layout::DOMAIN;

/// How many there are.
pub const N_SAMPLES: usize = 20;

/// The n-th sample, counted from 0.
pub fn message(n: usize) -> String {
    let day = n % 28 + 1;
    let head = format!(
        "From: Rookery <rookery@{DOMAIN}>\r\nTo: u0001@{DOMAIN}\r\nSubject: {}\r\n\
         Date: Mon, {day} Jun 2026 09:{:02}:00 +0000\r\nMessage-ID: <sample-{n}@{DOMAIN}>\r\n\
         MIME-Version: 1.0\r\n",
        subject(n),
        n
    );
    let body = match n % 4 {
        0 => plain(n),
        1 => alternative(n),
        2 => attachment(n),
        _ => reply(n),
    };
    head + &body
}

fn subject(n: usize) -> String {
    match n % 4 {
        0 => format!("Message {n} on three disks"),
        1 => format!("=?utf-8?q?Gr=C3=BC=C3=9Fe_Nr._{n}?="),
        2 => format!("Report {n} with an attachment"),
        _ => format!("Re: Message {} on three disks", n - 3),
    }
}

fn plain(n: usize) -> String {
    let lines = "Every copy of this line was synced to a disk before it was acknowledged.\r\n";
    format!("Content-Type: text/plain; charset=us-ascii\r\n\r\n{}", lines.repeat(n + 1))
}

fn alternative(n: usize) -> String {
    format!(
        "Content-Type: multipart/alternative; boundary=\"b{n}\"\r\n\r\n\
         --b{n}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße aus dem Krähennest.\r\n\
         --b{n}\r\nContent-Type: text/html; charset=utf-8\r\n\r\n\
         <p>Grüße aus dem <b>Krähennest</b>.</p>\r\n--b{n}--\r\n"
    )
}

fn attachment(n: usize) -> String {
    let line = "Um9va2VyeSBrZWVwcyB0aHJlZSBjb3BpZXMgb2YgdGhpcyBsaW5lLgo=\r\n";
    format!(
        "Content-Type: multipart/mixed; boundary=\"m{n}\"\r\n\r\n\
         --m{n}\r\nContent-Type: text/plain\r\n\r\nThe report is attached.\r\n\
         --m{n}\r\nContent-Type: application/octet-stream; name=report-{n}.txt\r\n\
         Content-Disposition: attachment; filename=report-{n}.txt\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}--m{n}--\r\n",
        line.repeat(200)
    )
}

fn reply(n: usize) -> String {
    let parent = n - 3;
    format!(
        "In-Reply-To: <sample-{parent}@{DOMAIN}>\r\nReferences: <sample-{parent}@{DOMAIN}>\r\n\
         Content-Type: text/plain\r\n\r\n> Every copy of this line was synced.\r\n\r\nThank you.\r\n"
    )
}
