//! Disks asked side by side, each on a thread of its own: one that hangs keeps no other from being used.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// What a disk was asked for.
pub(super) struct Asked<T>(Receiver<T>);

impl<T: Send + 'static> Asked<T> {
    /// Asks.
    pub fn begin(ask: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (answer, answered) = channel();
        // Why the result is dropped: nobody may wait any more.
        let ask = move || drop(answer.send(ask()));
        std::thread::Builder::new().name("ask disk".into()).spawn(ask)?;
        Ok(Self(answered))
    }

    /// The answer; `None` if there is none by then.
    pub fn by(&self, deadline: Option<Instant>) -> Option<T> {
        let Some(deadline) = deadline else { return self.0.recv().ok() };
        self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_does_not_answer_keeps_nobody_waiting_for_others() {
        let (_kept, never) = channel::<()>();
        let hangs = Asked::begin(move || never.recv().is_ok()).unwrap();
        let answers = Asked::begin(|| 7).unwrap();
        let soon = Some(Instant::now() + Duration::from_millis(10));
        assert_eq!(hangs.by(soon), None);
        assert_eq!(answers.by(Some(Instant::now() + Duration::from_secs(30))), Some(7));
        assert_eq!(Asked::begin(|| 8).unwrap().by(None), Some(8));
    }
}
