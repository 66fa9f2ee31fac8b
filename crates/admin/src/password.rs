//! Passwords come from standard input, never from arguments, which every user of a machine can see.

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context as _, Result, bail};

/// Limit: octets of a password; longer ones only cost time to hash.
const PASSWORD_BYTES_MAX: usize = 1024;

/// The first line of standard input without its line end.
pub fn read() -> Result<Vec<u8>> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        eprint!("password: ");
    }
    let mut line = Vec::new();
    stdin.read_until(b'\n', &mut line).context("read password")?;
    let password = line.strip_suffix(b"\n").unwrap_or(&line);
    let password = password.strip_suffix(b"\r").unwrap_or(password);
    match password.len() {
        0 => bail!("no password on standard input"),
        1..=PASSWORD_BYTES_MAX => Ok(password.to_vec()),
        _ => bail!("a password has at most {PASSWORD_BYTES_MAX} octets"),
    }
}
