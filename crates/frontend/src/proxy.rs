//! The PROXY protocol, version 2: a load balancer says whose connection it passes on.
//!
//! Promises: only who is trusted is listened to, and who is trusted has to say it: nobody else can
//! pretend to come from an address, and a limit by address never counts the balancer's own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ppp::v2::{Addresses, Command, Header};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Limit: how long the header may take; a balancer sends it first of all.
const HEADER_WITHIN: Duration = Duration::from_secs(5);

/// Limit: octets behind the fixed part. Addresses take 36 at most; the rest is for what balancers add.
const REST_BYTES_MAX: usize = 2048;

/// What every header has.
const FIXED_BYTES: usize = 16;

/// Addresses that share their first bits, `10.0.0.0/8`, or one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    n_bits: u8,
}

/// Why a text is no network.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is neither an address nor a network like 10.0.0.0/8")]
pub struct NotANetwork(String);

impl TryFrom<String> for Network {
    type Error = NotANetwork;

    fn try_from(text: String) -> Result<Self, NotANetwork> {
        let (address, n_bits) = match text.split_once('/') {
            Some((address, n_bits)) => (address, n_bits.parse().ok()),
            None => (text.as_str(), Some(u8::MAX)),
        };
        let address: Option<IpAddr> = address.parse().ok();
        match (address, n_bits) {
            (Some(address), Some(n_bits)) => {
                let most = if address.is_ipv4() { 32 } else { 128 };
                let is_alone = n_bits == u8::MAX;
                if is_alone || n_bits <= most {
                    return Ok(Self { address, n_bits: n_bits.min(most) });
                }
                Err(NotANetwork(text))
            }
            _ => Err(NotANetwork(text)),
        }
    }
}

impl Network {
    /// Whether the address lies in it.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
            IpAddr::V6(address) => u128::from(address),
        };
        let same_family = self.address.is_ipv4() == address.is_ipv4();
        let differing = bits(self.address) ^ bits(address);
        same_family && differing.leading_zeros() >= u32::from(self.n_bits)
    }
}

/// Reads the header and not an octet more. `None` when the balancer speaks for itself, to see whether
/// we live.
pub(crate) async fn client(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    timeout(HEADER_WITHIN, read(stream)).await?
}

async fn read(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut header = vec![0; FIXED_BYTES];
    stream.read_exact(&mut header).await?;
    let n_rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if !header.starts_with(ppp::v2::PROTOCOL_PREFIX) || n_rest > REST_BYTES_MAX {
        return Err(wrong("no PROXY header of version 2".into()));
    }
    header.resize(FIXED_BYTES + n_rest, 0);
    stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    let header = Header::try_from(header.as_slice()).map_err(|error| wrong(error.to_string()))?;
    match (header.command, header.addresses) {
        (Command::Local, _) => Ok(None),
        (Command::Proxy, Addresses::IPv4(ip)) => {
            Ok(Some((ip.source_address, ip.source_port).into()))
        }
        (Command::Proxy, Addresses::IPv6(ip)) => {
            Ok(Some((ip.source_address, ip.source_port).into()))
        }
        _ => Err(wrong("PROXY header without an address".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_contain_what_shares_their_bits() {
        let contains = |network: &str, address: &str| {
            let network = Network::try_from(network.to_owned()).unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::1"));
        assert!(contains("0.0.0.0/0", "1.2.3.4"));
        assert!(!contains("0.0.0.0/0", "::1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "x/8", "::/129", "10.0.0.0/-1"] {
            assert!(Network::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
