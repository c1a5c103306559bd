//! Name resolution with a deadline: ureq's own starts a thread for every call that has one.
//!
//! A looked-up name is kept for [`FRESH`]; a lookup runs on a thread of its own, at most one a name, and whoever needs
//! it waits for it no longer than its own call may take. When the name servers fail, the last known addresses serve on.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver as UreqResolver};
use ureq::unversioned::transport::NextTimeout;

/// How long looked-up addresses are used without asking again: short enough to follow a failover, long enough that a
/// storm of alerts asks once.
const FRESH: Duration = Duration::from_secs(60);
/// The longest wait for a lookup: resolv.conf's default is two tries of 5 s.
const LOOKUP: Duration = Duration::from_secs(10);
/// Stack of a lookup's thread, in bytes: glibc's getaddrinfo keeps its buffers there.
const LOOKUP_STACK: usize = 256 * 1024;
/// Addresses used of one answer: ureq's own bound.
const MAX_ADDRESSES: usize = 16;

/// Resolves the names of one upstream and its proxy. Clones share what is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<HashMap<String, Name>>,
    looked_up: Condvar,
}

/// What is known of one `host:port`.
#[derive(Debug, Default)]
struct Name {
    addresses: Vec<SocketAddr>,
    fresh_until: Option<Instant>,
    lookup: Lookup,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Lookup {
    #[default]
    Idle,
    Running,
    /// The last one found nothing. It is tried again by the next call.
    Failed,
}

impl Resolver {
    /// The addresses of `host`, with this port. An IPv6 address may stand in brackets.
    ///
    /// # Errors
    /// `HostNotFound` when nothing is known and nothing is found; `Timeout` when no answer came in time. The call then
    /// fails as any transient failure.
    pub(crate) fn addresses(&self, host: &str, port: u16, until: Instant) -> Result<Vec<SocketAddr>, ureq::Error> {
        if let Some(ip) = literal(host) {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let host_and_port = format!("{host}:{port}");
        let mut names = self.0.lock();
        let name = names.entry(host_and_port.clone()).or_default();
        if name.fresh_until.is_some_and(|fresh_until| Instant::now() < fresh_until) {
            return Ok(name.addresses.clone());
        }
        if name.lookup != Lookup::Running {
            name.lookup = Lookup::Running;
            if self.start_lookup(&host_and_port).is_err() {
                name.lookup = Lookup::Failed;
            }
        }
        loop {
            let name = names.entry(host_and_port.clone()).or_default();
            let left = until.saturating_duration_since(Instant::now());
            if name.lookup != Lookup::Running || left.is_zero() {
                // What was known last is better than nothing while the name servers are away.
                return match (name.addresses.is_empty(), &name.lookup) {
                    (false, _) => Ok(name.addresses.clone()),
                    (true, Lookup::Running) => Err(ureq::Error::Timeout(ureq::Timeout::Resolve)),
                    (true, Lookup::Idle | Lookup::Failed) => Err(ureq::Error::HostNotFound),
                };
            }
            names = self.0.looked_up.wait_timeout(names, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn start_lookup(&self, host_and_port: &str) -> std::io::Result<()> {
        let (shared, host_and_port) = (Arc::clone(&self.0), host_and_port.to_owned());
        let lookup = move || {
            let found: Vec<_> =
                host_and_port.to_socket_addrs().map(|found| found.take(MAX_ADDRESSES).collect()).unwrap_or_default();
            let mut names = shared.lock();
            let name = names.entry(host_and_port).or_default();
            if found.is_empty() {
                name.lookup = Lookup::Failed;
            } else {
                *name = Name { addresses: found, fresh_until: Some(Instant::now() + FRESH), lookup: Lookup::Idle };
            }
            drop(names);
            shared.looked_up.notify_all();
        };
        std::thread::Builder::new().name("dns".into()).stack_size(LOOKUP_STACK).spawn(lookup).map(drop)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `127.0.0.1` and `[::1]` need no lookup.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whom an address is of, an IPv6 one in brackets, and the port there.
pub(crate) fn host_and_port(uri: &Uri) -> (&str, u16) {
    let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(default_port))
}

impl UreqResolver for Resolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let (host, port) = host_and_port(uri);
        let mut resolved = self.empty();
        for address in self.addresses(host, port, Instant::now() + LOOKUP.min(*timeout.after))? {
            resolved.push(address);
        }
        Ok(resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn an_address_needs_no_lookup() {
        let resolver = Resolver::default();
        assert_eq!(resolver.addresses("127.0.0.1", 80, soon()).unwrap(), ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(resolver.addresses("[::1]", 443, soon()).unwrap(), ["[::1]:443".parse().unwrap()]);
        assert!(resolver.0.lock().is_empty());
    }

    #[test]
    fn a_name_is_looked_up_once_and_then_known() {
        let resolver = Resolver::default();
        assert!(!resolver.addresses("localhost", 80, soon()).unwrap().is_empty());
        assert!(resolver.0.lock()["localhost:80"].fresh_until.is_some());
    }

    #[test]
    fn the_last_known_addresses_serve_while_names_cannot_be_resolved() {
        let resolver = Resolver::default();
        let known: SocketAddr = "192.0.2.7:443".parse().unwrap();
        let name = Name { addresses: vec![known], fresh_until: Some(Instant::now()), lookup: Lookup::Idle };
        resolver.0.lock().insert("no-such-name.invalid:443".into(), name);
        assert_eq!(resolver.addresses("no-such-name.invalid", 443, soon()).unwrap(), [known]);
    }

    #[test]
    fn an_unknown_name_fails_within_the_deadline() {
        let resolver = Resolver::default();
        assert!(resolver.addresses("no-such-name.invalid", 443, soon()).is_err());
        // Already over: nobody waits for the lookup.
        let error = resolver.addresses("no-such-name-2.invalid", 443, Instant::now()).unwrap_err();
        assert!(matches!(error, ureq::Error::Timeout(_) | ureq::Error::HostNotFound), "{error}");
    }
}
