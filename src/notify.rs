//! Tells systemd how the service is, as `sd_notify(3)` does: <https://www.freedesktop.org/software/systemd/man/sd_notify.html>.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service serves.
pub const READY: &str = "READY=1";
/// The service drains.
pub const STOPPING: &str = "STOPPING=1";

/// Sends a state to the socket that `NOTIFY_SOCKET` names; without that variable there is nobody to tell.
///
/// # Errors
/// The socket cannot be reached. The caller logs it; the service goes on, and systemd decides.
pub fn tell(notify_socket: Option<&str>, state: &str) -> std::io::Result<()> {
    let Some(path) = notify_socket.filter(|path| !path.is_empty()) else { return Ok(()) };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reaches_a_named_and_an_abstract_socket() {
        let path = std::env::temp_dir().join(format!("notify-{}", std::process::id()));
        let name = format!("notify-{}", std::process::id());
        let named = UnixDatagram::bind(&path).unwrap();
        let nameless = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(named, path.to_str().unwrap().to_owned()), (nameless, format!("@{name}"))] {
            tell(Some(&address), READY).unwrap();
            let mut state = [0; 16];
            let length = socket.recv(&mut state).unwrap();
            assert_eq!(state.get(..length).unwrap(), READY.as_bytes());
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn without_systemd_nobody_is_told() {
        tell(None, READY).unwrap();
    }
}
