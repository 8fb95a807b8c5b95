//! Where the daemon listens: from what the options say, and what was passed, to the addresses of the server.
//!
//! Asks the system what a name stands for; binds nothing. Called by `main.rs`, once.
//!
//! Invariant: no address stands in the list twice.
//!
//! Next: `inherited`: what else a process is given when it starts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use revolve::config::Address;

use crate::daemon::arguments::{Host, Passing, Settings};
use crate::daemon::passed::Passed;

/// The addresses of the server, and those without TLS beside them.
///
/// # Errors
///
/// The line that says which of them cannot be had.
pub(crate) fn addresses(
    settings: &Settings,
    passed: &mut Passed,
) -> Result<(Vec<Address>, Vec<Address>), String> {
    // First: who names no socket for the others gets all that are left.
    let mut plain = taken(&settings.passed_plain, passed)?;
    if let Some(port) = settings.plain_port {
        plain.extend(hosts(settings)?.into_iter().map(|host| SocketAddr::new(host, port).into()));
    }
    Ok((public(settings, passed)?, plain))
}

/// In the order of the options: the sockets that `--fd` names; else the path of `--uds`; else the hosts. Where none of the
/// three is given, all sockets that were passed, if any were.
fn public(settings: &Settings, passed: &mut Passed) -> Result<Vec<Address>, String> {
    if !settings.passed.is_empty() {
        return taken(&settings.passed, passed);
    }
    if let Some(path) = &settings.uds {
        return Ok(vec![path.clone().into()]);
    }
    if settings.hosts.is_empty() {
        let taken = passed.take_all()?;
        if !taken.is_empty() {
            return Ok(taken);
        }
    }
    Ok(hosts(settings)?
        .into_iter()
        .map(|host| SocketAddr::new(host, settings.port).into())
        .collect())
}

fn taken(named: &[Passing], passed: &mut Passed) -> Result<Vec<Address>, String> {
    let mut taken = Vec::new();
    for which in named {
        taken.extend(passed.take(which)?);
    }
    Ok(taken)
}

/// What the hosts stand for, each once.
fn hosts(settings: &Settings) -> Result<Vec<IpAddr>, String> {
    let mut hosts = Vec::new();
    for host in &settings.hosts {
        for address in addresses_of(host, has_ipv6)? {
            if !hosts.contains(&address) {
                hosts.push(address);
            }
        }
    }
    if hosts.is_empty() {
        hosts.push(Ipv4Addr::LOCALHOST.into());
    }
    Ok(hosts)
}

/// What a host stands for. RFC 6761 6.3: `localhost` is the loopback addresses, and no server is asked.
fn addresses_of(host: &Host, has_ipv6: impl Fn() -> bool) -> Result<Vec<IpAddr>, String> {
    let name = match host {
        Host::Address(address) => return Ok(vec![*address]),
        Host::Name(name) => name,
    };
    if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        let v6 = has_ipv6().then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
        return Ok([IpAddr::V4(Ipv4Addr::LOCALHOST)].into_iter().chain(v6).collect());
    }
    let unknown = |error: io::Error| {
        format!(
            "cannot listen on {name}: no address is known for it ({error}); choose another --host"
        )
    };
    let found: Vec<_> = (name.as_str(), 0).to_socket_addrs().map_err(unknown)?.collect();
    if found.is_empty() {
        return Err(unknown(io::ErrorKind::NotFound.into()));
    }
    Ok(found.into_iter().map(|address| address.ip()).collect())
}

/// Whether this machine has the IPv6 loopback address; containers often have none.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(hosts: &[&str]) -> Vec<String> {
        let hosts = hosts.iter().map(|host| match host.parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name((*host).to_owned()),
        });
        let settings = Settings { hosts: hosts.collect(), port: 7, ..Settings::default() };
        addresses(&settings, &mut Passed::from_environment().unwrap())
            .unwrap()
            .0
            .iter()
            .map(Address::to_string)
            .collect()
    }

    #[test]
    fn addresses_are_taken_once_and_in_their_order() {
        assert_eq!(listed(&[]), ["127.0.0.1:7"]);
        assert_eq!(listed(&["::", "192.0.2.1", "::"]), ["[::]:7", "192.0.2.1:7"]);
        let found = listed(&["127.0.0.1", "localhost"]);
        assert_eq!(found[0], "127.0.0.1:7");
        assert!(found.len() == 1 || found[1..] == ["[::1]:7"], "{found:?}");
    }

    #[test]
    fn localhost_is_the_loopback_addresses_that_this_machine_has() {
        for name in ["localhost", "LocalHost", "localhost."] {
            let host = Host::Name(name.to_owned());
            let shown = |has_ipv6: bool| {
                let found = addresses_of(&host, || has_ipv6).unwrap();
                found.iter().map(IpAddr::to_string).collect::<Vec<_>>()
            };
            assert_eq!(shown(true), ["127.0.0.1", "::1"]);
            assert_eq!(shown(false), ["127.0.0.1"]);
        }
    }

    #[test]
    fn a_name_without_an_address_is_one_line() {
        // RFC 6761 6.4: no server knows a name under `invalid`.
        let host = Host::Name("no-such-host.invalid".to_owned());
        let line = addresses_of(&host, || true).unwrap_err();
        assert!(line.starts_with("cannot listen on no-such-host.invalid: no address is known"));
        assert!(line.ends_with("; choose another --host") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn a_path_replaces_them() {
        let uds = Some(std::path::PathBuf::from("s").into());
        let settings =
            Settings { uds, hosts: vec![Host::Name("x".to_owned())], ..Settings::default() };
        assert_eq!(
            addresses(&settings, &mut Passed::from_environment().unwrap()).unwrap().0,
            [Address::from(std::path::PathBuf::from("s"))]
        );
    }

    #[test]
    fn a_port_without_tls_is_of_the_same_hosts() {
        let hosts = ["192.0.2.1", "::1"].map(|host| Host::Address(host.parse().unwrap()));
        let settings = Settings {
            hosts: hosts.to_vec(),
            port: 443,
            plain_port: Some(80),
            ..Settings::default()
        };
        let shown = |settings: &Settings| {
            let passed = &mut Passed::from_environment().unwrap();
            let (public, plain) = addresses(settings, passed).unwrap();
            [public, plain].map(|all| all.iter().map(Address::to_string).collect::<Vec<_>>())
        };
        let expected = [["192.0.2.1:443", "[::1]:443"], ["192.0.2.1:80", "[::1]:80"]];
        assert_eq!(shown(&settings), expected);
        let settings = Settings { uds: Some(std::path::PathBuf::from("s").into()), ..settings };
        let plain = vec!["192.0.2.1:80".to_owned(), "[::1]:80".to_owned()];
        assert_eq!(shown(&settings), [vec!["unix:s".to_owned()], plain]);
    }
}
