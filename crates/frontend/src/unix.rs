//! A listener at a path of the file system, for an MTA on the same machine.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::net::UnixListener;

/// Where it is and who may connect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixSocket {
    /// Its directory exists.
    pub path: PathBuf,
    /// Connecting takes the right to write.
    #[serde(default)]
    pub mode: FileMode,
}

/// Rights in octal, `"0660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FileMode(u32);

/// Why a text is no file mode.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no file mode: write it as in \"0660\"")]
pub struct NotAMode(String);

impl Default for FileMode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl TryFrom<String> for FileMode {
    type Error = NotAMode;

    fn try_from(text: String) -> Result<Self, NotAMode> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(NotAMode(text)),
        }
    }
}

/// The file of a listener; goes with it.
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put its own there meanwhile.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // A file that stays is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Listens there. A socket that nobody listens at is replaced; any other file is left alone.
pub(crate) fn listen(socket: &UnixSocket) -> io::Result<(UnixListener, SocketFile)> {
    let path = socket.path.as_path();
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            let words = "there is a file that is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, words));
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) => return Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(socket.mode.0))?;
    Ok((listener, file))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
