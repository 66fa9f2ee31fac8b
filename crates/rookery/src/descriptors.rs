//! How many files and connections the process may have open at a time.

use tracing::{info, warn};

/// Besides connections of clients: segments, the index, connections within the cluster.
const OF_OUR_OWN: u64 = 1024;

/// Raises the soft limit as far as the hard one allows, and says so when that is too few.
pub fn raise(n_connections: u64) {
    let wanted = n_connections + OF_OUR_OWN;
    match raised() {
        Ok(limit) if limit >= wanted => info!(limit, "file descriptors"),
        Ok(limit) => warn!(
            limit,
            wanted,
            "too few file descriptors: raise the hard limit (LimitNOFILE, ulimit -Hn) or lower \
             connections_max"
        ),
        Err(error) => warn!(%error, "the limit of file descriptors is not known"),
    }
}

fn raised() -> std::io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one rlimit, setrlimit(2) reads one; both are ours.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
            limit = raised;
        }
    }
    Ok(limit.rlim_cur)
}
