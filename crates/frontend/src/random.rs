//! Random octets of the operating system.

/// A fresh identity or key.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random octets");
    bytes
}
