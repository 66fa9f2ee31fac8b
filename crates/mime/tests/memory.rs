//! A scanner holds little, whatever streams past it. One test, since it counts the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use mime::{Metadata, Scanner};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZE: usize = 20 * 1024 * 1024;

/// Feeds `head`, then `repeated` up to 20 MiB; gives the most memory that was in use meanwhile.
fn peak_of(head: &str, repeated: &str) -> (usize, Metadata) {
    let piece = repeated.repeat(65_536 / repeated.len());
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut scanner = Scanner::new();
    scanner.feed(head.as_bytes());
    for _ in 0..SIZE / piece.len() {
        scanner.feed(piece.as_bytes());
    }
    let metadata = scanner.finish();
    (PEAK.load(Ordering::Relaxed) - before, metadata)
}

#[test]
fn large_messages_pass_in_little_memory() {
    let multipart = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n";
    let small = 256 * 1024;
    // A frontend may spend 16 MiB on a message: the rest is for the buffers around this one.
    let hostile = 10 * 1024 * 1024;
    let single_fields = "From: a\r\nSubject: d\r\nReferences: <e>\r\n".repeat(3);
    for (what, head, repeated, limit) in [
        ("body", "Subject: x\r\n\r\n", "some words in a line\r\n", small),
        ("part", &format!("{multipart}\r\n"), "QUFBQUFB\r\n", small),
        ("a body of one line", &format!("{multipart}\r\n"), "--------", small),
        ("header lines", "Subject: x\r\n", "X-Long: a line of a header\r\n", small),
        ("parts", multipart, "\r\n--b\r\n", hostile),
        ("parts with fields", multipart, "Content-Id: <a>\r\n\r\n--b\r\n", hostile),
        ("addresses", "From: ", "a,", hostile),
        ("folded addresses", "From: a,\r\n", " b,\r\n", hostile),
        ("references", "References: ", "<a>", hostile),
        ("parameters", "Content-Type: a/b", ";a=b", hostile),
        ("subject", "Subject: ", "=?utf-8?q?x?=", hostile),
        ("messages", "", "Content-Type: message/rfc822\r\n\r\n", hostile),
        ("fields again and again", "", &single_fields, small),
        ("destinations again and again", "", "To: a\r\nCc: b\r\nBcc: c\r\n", hostile),
    ] {
        let (peak, metadata) = peak_of(head, repeated);
        println!("{what}: {} KiB at most for {} octets", peak / 1024, metadata.size);
        assert!(peak < limit, "{what}: {peak} octets");
    }
}
