//! Passwords come from standard input, never from arguments, which every user of a machine can see. What is
//! typed at a terminal is not shown there, and therefore typed twice.

use std::io::{self, BufRead, IsTerminal as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result, bail};

/// Limit: octets of a password; longer ones only cost time to hash.
const PASSWORD_BYTES_MAX: usize = 1024;
/// What Linux has in the place of a terminal's character that is not used (termios(3), `_POSIX_VDISABLE`).
const SWITCHED_OFF: u8 = 0;
/// Limit: octets that are read of one; there are its line end, and one that says that it is too long.
const LINE_BYTES_MAX: usize = PASSWORD_BYTES_MAX + 2;

/// The first line of standard input without its line end.
pub fn read() -> Result<Vec<u8>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return line(&mut stdin.lock(), None);
    }
    type_twice(stdin.as_fd(), &mut stdin.lock(), |prompt| eprint!("{prompt}"))
}

/// Asks for it twice, unseen.
fn type_twice(
    terminal: BorrowedFd<'_>,
    input: &mut impl BufRead,
    mut ask: impl FnMut(&str),
) -> Result<Vec<u8>> {
    let unseen = Unseen::begin(terminal).context("hide password")?;
    ask("password: ");
    let first = line(input, unseen.interrupt());
    ask("\n");
    let first = first?;
    ask("once more: ");
    let second = line(input, unseen.interrupt());
    ask("\n");
    drop(unseen);
    if second? != first {
        bail!("not the same twice");
    }
    Ok(first)
}

/// A line; an error if this octet stands in it.
fn line(input: &mut impl BufRead, interrupt: Option<u8>) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let some = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            some => some.context("read password")?,
        };
        let n_taken = some.iter().position(|octet| *octet == b'\n').map_or(some.len(), |at| at + 1);
        line.extend_from_slice(&some[..n_taken]);
        input.consume(n_taken);
        if interrupt.is_some_and(|interrupt| line.contains(&interrupt)) {
            bail!("interrupted");
        }
        if n_taken == 0 || line.ends_with(b"\n") || line.len() > LINE_BYTES_MAX {
            break;
        }
    }
    let password = line.strip_suffix(b"\n").unwrap_or(&line);
    let password = password.strip_suffix(b"\r").unwrap_or(password);
    match password.len() {
        0 => bail!("no password on standard input"),
        1..=PASSWORD_BYTES_MAX => Ok(password.to_vec()),
        _ => bail!("a password has at most {PASSWORD_BYTES_MAX} octets"),
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct Unseen<'t> {
    terminal: BorrowedFd<'t>,
    before: libc::termios,
}

impl<'t> Unseen<'t> {
    fn begin(terminal: BorrowedFd<'t>) -> io::Result<Self> {
        let mut before = MaybeUninit::uninit();
        // SAFETY: the descriptor is open; the call fills what it is given, or says that it did not.
        let done = unsafe { libc::tcgetattr(terminal.as_raw_fd(), before.as_mut_ptr()) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was filled.
        let before = unsafe { before.assume_init() };
        let mut unseen = before;
        // Why no signals: one would end the process and leave the terminal as it is now. The octet ends the
        // line in its place, so that it is read at once.
        unseen.c_lflag &= !(libc::ECHO | libc::ISIG);
        unseen.c_cc[libc::VEOL] = before.c_cc[libc::VINTR];
        set(terminal, &unseen)?;
        Ok(Self { terminal, before })
    }

    /// What ends it all, mostly Ctrl-C.
    fn interrupt(&self) -> Option<u8> {
        let octet = self.before.c_cc[libc::VINTR];
        (octet != SWITCHED_OFF).then_some(octet)
    }
}

impl Drop for Unseen<'_> {
    fn drop(&mut self) {
        // Why the result is dropped: a terminal that is gone shows nothing.
        drop(set(self.terminal, &self.before));
    }
}

fn set(terminal: BorrowedFd<'_>, to: &libc::termios) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the settings are a terminal's.
    match unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, to) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufReader, Read as _, Write as _};
    use std::os::fd::{FromRawFd as _, OwnedFd};

    use super::*;

    /// Both ends of a terminal: who sits at it, and who it belongs to.
    fn terminal() -> (File, File) {
        let (mut person, mut program) = (-1, -1);
        let null = std::ptr::null_mut();
        // SAFETY: the call fills two descriptors; nothing else is asked for.
        let done =
            unsafe { libc::openpty(&mut person, &mut program, null, null.cast(), null.cast()) };
        assert_eq!(done, 0);
        // SAFETY: they were opened for us just now.
        unsafe { (OwnedFd::from_raw_fd(person).into(), OwnedFd::from_raw_fd(program).into()) }
    }

    /// What comes of these lines, and what was seen of them.
    fn typed<const N: usize>(lines: [&str; N]) -> (Result<Vec<u8>>, String) {
        let (mut person, program) = terminal();
        let mut lines = lines.iter();
        let mut input = BufReader::new(program.try_clone().unwrap());
        let read = type_twice(program.as_fd(), &mut input, |prompt| {
            if prompt.ends_with(": ") {
                person.write_all(lines.next().unwrap().as_bytes()).unwrap();
            }
        });
        writeln!(person, "seen").unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"seen\r\n") {
            let mut some = [0; 64];
            let n = person.read(&mut some).unwrap();
            seen.extend_from_slice(&some[..n]);
        }
        (read, String::from_utf8(seen).unwrap())
    }

    #[test]
    fn a_password_is_not_seen_and_typed_twice() {
        let (read, seen) = typed(["secret\n", "secret\n"]);
        assert_eq!((read.unwrap().as_slice(), seen.as_str()), (&b"secret"[..], "seen\r\n"));
        let (read, seen) = typed(["secret\n", "secert\n"]);
        let said = read.unwrap_err().to_string();
        assert_eq!((said.as_str(), seen.as_str()), ("not the same twice", "seen\r\n"));
    }

    #[test]
    fn who_interrupts_it_sees_again_what_is_typed() {
        let (read, seen) = typed(["sec\x03"]);
        assert_eq!(
            (read.unwrap_err().to_string().as_str(), seen.as_str()),
            ("interrupted", "seen\r\n")
        );
        let (read, seen) = typed(["secret\n", "\x03"]);
        assert_eq!(
            (read.unwrap_err().to_string().as_str(), seen.as_str()),
            ("interrupted", "seen\r\n")
        );
    }
}
