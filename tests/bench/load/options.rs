//! What is to be done, from `key=value` words.

use anyhow::{Context as _, Result, bail, ensure};

/// See the fields.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which operation.
    pub operation: String,
    /// `host:port` of each server; clients are spread over them.
    pub lmtp: Vec<String>,
    pub imap: Vec<String>,
    pub pop3: Vec<String>,
    /// Accounts `u0001@DOMAIN` from the first to the last number.
    pub users: (u32, u32),
    pub domain: String,
    pub password: String,
    pub clients: u32,
    pub seconds: f64,
    /// Octets of a message; 0 is a mix as real mail has it.
    pub size: usize,
    /// Each client stops after so many steps.
    pub steps: u64,
}

impl Options {
    /// Reads the words after the program's name.
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            operation: words.next().context("which operation?")?,
            lmtp: Vec::new(),
            imap: Vec::new(),
            pop3: Vec::new(),
            users: (1, 1),
            domain: "example.test".into(),
            password: "secret".into(),
            clients: 1,
            seconds: 5.0,
            size: 20_000,
            steps: u64::MAX,
        };
        for word in words {
            let (key, value) = word.split_once('=').with_context(|| format!("{word}: no ="))?;
            let list = || value.split(',').map(str::to_owned).collect();
            match key {
                "lmtp" => options.lmtp = list(),
                "imap" => options.imap = list(),
                "pop3" => options.pop3 = list(),
                "users" => {
                    let (first, last) = value.split_once('-').context("users=FIRST-LAST")?;
                    options.users = (first.parse()?, last.parse()?);
                }
                "domain" => options.domain = value.into(),
                "password" => options.password = value.into(),
                "clients" => options.clients = value.parse()?,
                "seconds" => options.seconds = value.parse()?,
                "size" => options.size = value.parse()?,
                "steps" => options.steps = value.parse()?,
                _ => bail!("{key}: no such option"),
            }
        }
        ensure!(options.users.0 <= options.users.1, "users: the first after the last");
        Ok(options)
    }

    /// The address of the n-th account, beginning anew after the last.
    pub fn user(&self, n: u64) -> String {
        let n_users = u64::from(self.users.1 - self.users.0) + 1;
        format!("u{:04}@{}", u64::from(self.users.0) + n % n_users, self.domain)
    }
}

/// One of these for the n-th client.
pub fn pick(addresses: &[String], n: u32) -> Result<&str> {
    ensure!(!addresses.is_empty(), "no address for this protocol");
    Ok(&addresses[n as usize % addresses.len()])
}
