//! Servers between the sidecar and an upstream: a forwarded port, TLS in front of a stand-in, an HTTP proxy.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::support::standins::journal::lock;

/// The authority that signed the certificate of [`Relay::tls`], in PEM, as `DEEPSEEK_CA_FILE` takes it.
pub(crate) const AUTHORITY: &str = include_str!("tls/ca.pem");
/// For localhost and 127.0.0.1, until 2120.
const CERTIFICATE: &[u8] = include_bytes!("tls/localhost.pem");
/// Public, for tests only.
const KEY: &[u8] = include_bytes!("tls/key.pem");

/// A server of raw connections. Dropping it ends its connections.
pub(crate) struct Relay {
    address: SocketAddr,
    waker: TcpListener,
    open: Arc<Mutex<Vec<TcpStream>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Relay {
    /// Runs `serve` on a thread for each connection; an error ends the connection.
    pub(crate) fn start(serve: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), serve)
    }

    /// The same at a given address.
    pub(crate) fn at(
        address: SocketAddr,
        serve: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("the address of a bound listener");
        let waker = listener.try_clone().expect("a second handle");
        let open = Arc::<Mutex<Vec<TcpStream>>>::default();
        let own = Arc::clone(&open);
        let serve = Arc::new(serve);
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (serve, Ok(handle)) = (Arc::clone(&serve), stream.try_clone()) else { return };
                lock(&own).push(handle);
                thread::spawn(move || {
                    let _ = serve(&stream);
                    // The other handle would keep it open.
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, waker, open, accepting: Some(accepting) }
    }

    /// Forwards to `target`.
    pub(crate) fn forward(address: SocketAddr, target: SocketAddr) -> Self {
        Self::at(address, move |client| tunnel(client, &TcpStream::connect(target)?))
    }

    /// TLS in front of `target`, with a certificate signed by [`AUTHORITY`] only.
    pub(crate) fn tls(target: SocketAddr) -> Self {
        Self::tls_with(target, |_| Ok(()))
    }

    /// The same, but in place of the answer it sends bytes that are not TLS, and closes.
    pub(crate) fn tls_that_breaks(target: SocketAddr) -> Self {
        Self::tls_with(target, |mut client| {
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            Err(io::ErrorKind::ConnectionAborted.into())
        })
    }

    /// Runs `before` ahead of each piece of an answer; its error ends the connection.
    fn tls_with(target: SocketAddr, before: fn(&TcpStream) -> io::Result<()>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(CERTIFICATE).expect("a certificate")],
                PrivateKeyDer::from_pem_slice(KEY).expect("a key"),
            )
            .expect("a certificate and its key");
        let config = Arc::new(config);
        Self::start(move |client| {
            let tls = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            encrypted(client, tls, &TcpStream::connect(target)?, before)
        })
    }

    /// An HTTP proxy that connects every request to `target`, and the list of its request lines.
    pub(crate) fn proxy(target: SocketAddr) -> (Self, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let own = Arc::clone(&asked);
        let relay = Self::start(move |mut client| {
            let line = read_head(client)?.lines().next().unwrap_or_default().to_owned();
            lock(&own).push(line);
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            tunnel(client, &TcpStream::connect(target)?)
        });
        (relay, asked)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Ok(listener) = self.waker.try_clone() {
            // shutdown(2) on the listener wakes a blocked accept.
            let _ = TcpStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for stream in lock(&self.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Everything up to the first empty line.
pub(crate) fn read_head(mut stream: &TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Copies both ways until one side ends.
fn tunnel(client: &TcpStream, target: &TcpStream) -> io::Result<()> {
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(target, client));
        copy(client, target);
    });
    Ok(())
}

/// Decrypts what the client sends for the target, and encrypts its answers.
fn encrypted(
    mut client: &TcpStream,
    mut tls: ServerConnection,
    mut target: &TcpStream,
    before: fn(&TcpStream) -> io::Result<()>,
) -> io::Result<()> {
    /// Read timeout of each side, since one thread serves both.
    const POLL: Duration = Duration::from_millis(5);
    while tls.is_handshaking() {
        tls.complete_io(&mut client)?;
    }
    client.set_read_timeout(Some(POLL))?;
    target.set_read_timeout(Some(POLL))?;
    let is_quiet = |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    let mut piece = vec![0; 16 * 1024];
    loop {
        // The first request may have come with the end of the handshake.
        let waiting = tls.process_new_packets().map_err(io::Error::other)?.plaintext_bytes_to_read();
        let mut plain = vec![0; waiting];
        tls.reader().read_exact(&mut plain)?;
        target.write_all(&plain)?;
        match tls.read_tls(&mut client) {
            Ok(0) => return Ok(()),
            Ok(_) => continue,
            Err(error) if is_quiet(&error) => {}
            Err(error) => return Err(error),
        }
        match target.read(&mut piece) {
            Ok(0) => {
                tls.send_close_notify();
                while tls.wants_write() {
                    tls.write_tls(&mut client)?;
                }
                return Ok(());
            }
            Ok(bytes) => {
                before(client)?;
                tls.writer().write_all(piece.get(..bytes).unwrap_or_default())?;
            }
            Err(error) if is_quiet(&error) => {}
            Err(error) => return Err(error),
        }
        while tls.wants_write() {
            tls.write_tls(&mut client)?;
        }
    }
}
