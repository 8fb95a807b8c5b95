//! Where a server is, and who we are there: the address that a setting names.
//!
//! `redis://[user:password@]host[:port][/database]`, as everybody writes it, or a Unix socket: `unix:/path`, with
//! `unix://user:password@/path?db=1` in full. What has a meaning there is percent-encoded in user and password. Resolves
//! and connects nothing; `socket` does.
//!
//! Invariant: neither an address that is shown, nor what is said of a wrong one, has the password, or any part of one.
//!
//! Next: `socket`: the stream to it.

use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::net;
use std::path::{Path, PathBuf};

use crate::protocol::target::percent_decoded;

/// The port of Redis.
const PORT: u16 = 6379;

/// A server, and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerAddress {
    place: Place,
    /// Empty: the server's default user.
    user: String,
    password: Option<String>,
    database: u32,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A name or an address, and a port.
    Tcp {
        /// Without the brackets of an IPv6 address.
        host: String,
        /// As it is.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Why a text is no address of a server. It says what to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// It begins with something else.
    Scheme,
    /// It asks for TLS.
    Tls,
    /// There is no host, or none that can be one.
    Host,
    /// The port is none.
    Port,
    /// What stands behind the host is no number.
    Database,
    /// Something stands before the `@` that is not a user, a colon and a password.
    Credentials,
    /// A percent sign without two digits behind it, or bytes that are no UTF-8.
    Encoding,
    /// The path is none that a Unix socket can have.
    Path,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressError::Scheme => {
                "an address begins with redis:// (redis://host:6379/0) or unix: (unix:/run/redis.sock)"
            }
            AddressError::Tls => {
                "TLS to the server is not supported: write redis:// and connect through a tunnel \
                 (stunnel, say), or use unix:"
            }
            AddressError::Host => {
                "there is no host behind redis://; write redis://host:6379/0, an IPv6 address in \
                 brackets, and in user and password / as %2F, @ as %40"
            }
            AddressError::Port => {
                "the port is no number from 1 to 65535; in user and password write / as %2F, : as %3A"
            }
            AddressError::Database => {
                "behind host and port stands nothing but / and the number of the database; with \
                 unix:, ?db= and the number stand behind the path"
            }
            AddressError::Credentials => {
                "before the @ stand user:password, or :password for the default user; write : in the \
                 user as %3A"
            }
            AddressError::Encoding => {
                "in user and password a % is written %25, and other characters as % and the two \
                 hexadecimal digits of each byte in UTF-8"
            }
            AddressError::Path => "behind unix: stands the path of a socket, of at most 107 bytes",
        })
    }
}

impl std::error::Error for AddressError {}

impl ServerAddress {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<ServerAddress, AddressError> {
        if let Some(rest) = text.strip_prefix("redis://") {
            let (authority, database) = rest.split_once('/').unwrap_or((rest, "0"));
            // The last one: a password may have an @ that nobody encoded.
            let (credentials, host) = authority.rsplit_once('@').unzip();
            let place = host_and_port(host.unwrap_or(authority))?;
            let database = if database.is_empty() { "0" } else { database };
            ServerAddress::assembled(place, credentials, database)
        } else if let Some(rest) = text.strip_prefix("unix:") {
            let (credentials, rest) = unix_authority(rest)?;
            let (path, database) = rest.rsplit_once("?db=").unwrap_or((rest, "0"));
            ServerAddress::assembled(Place::Unix(unix_path(path)?), credentials, database)
        } else if text.starts_with("rediss:") {
            Err(AddressError::Tls)
        } else {
            Err(AddressError::Scheme)
        }
    }

    fn assembled(
        place: Place,
        credentials: Option<&str>,
        database: &str,
    ) -> Result<ServerAddress, AddressError> {
        let is_number = !database.is_empty() && database.bytes().all(|byte| byte.is_ascii_digit());
        let number = database.parse().ok().filter(|_| is_number);
        let database = number.ok_or(AddressError::Database)?;
        let Some(credentials) = credentials else {
            return Ok(ServerAddress { place, user: String::new(), password: None, database });
        };
        let (user, password) = credentials.split_once(':').ok_or(AddressError::Credentials)?;
        let (user, password) = (decoded(user)?, decoded(password)?);
        if password.is_empty() {
            return Err(AddressError::Credentials);
        }
        Ok(ServerAddress { place, user, password: Some(password), database })
    }

    /// Where it listens.
    #[must_use]
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The user and the password, if there is one; an empty user is the server's default one.
    #[must_use]
    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.password.as_deref().map(|password| (self.user.as_str(), password))
    }

    /// The number of the database.
    #[must_use]
    pub(crate) fn database(&self) -> u32 {
        self.database
    }
}

impl fmt::Display for ServerAddress {
    /// Without the password. What would break a line is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.escape_debug();
        let at = if self.user.is_empty() { "" } else { "@" };
        match &self.place {
            Place::Tcp { host, port } if host.contains(':') => {
                write!(f, "redis://{user}{at}[{host}]:{port}/{}", self.database)
            }
            Place::Tcp { host, port } => {
                write!(f, "redis://{user}{at}{host}:{port}/{}", self.database)
            }
            Place::Unix(path) => {
                let path = path.to_string_lossy();
                // So that it is read as what it is.
                let is_full = !self.user.is_empty() || path.starts_with("//");
                let slashes = if is_full { "//" } else { "" };
                write!(f, "unix:{slashes}{user}{at}{}", path.escape_debug())?;
                let is_told = self.database != 0 || path.contains("?db=");
                if is_told { write!(f, "?db={}", self.database) } else { Ok(()) }
            }
        }
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerAddress({self})")
    }
}

fn host_and_port(text: &str) -> Result<Place, AddressError> {
    let (host, rest, is_host) = match text.strip_prefix('[') {
        Some(literal) => {
            let (host, rest) = literal.split_once(']').ok_or(AddressError::Host)?;
            (host, rest, is_ipv6(host))
        }
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (host, rest, is_name(host))
        }
    };
    if !is_host {
        return Err(AddressError::Host);
    }
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|&port| port > 0).ok_or(AddressError::Port)?,
        None if rest.is_empty() => PORT,
        None => return Err(AddressError::Port),
    };
    Ok(Place::Tcp { host: host.to_owned(), port })
}

/// Whether a text can be a host's name, an IPv4 address or the zone of an IPv6 address.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c))
}

/// Whether a text is an IPv6 address, perhaps with the zone of a link-local one (RFC 4007, 11.2).
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unzip();
    address.unwrap_or(text).parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_name)
}

/// What stands between `unix://` and the path, if it is written in full, and the rest.
fn unix_authority(rest: &str) -> Result<(Option<&str>, &str), AddressError> {
    let Some(full) = rest.strip_prefix("//") else { return Ok((None, rest)) };
    let (authority, path) = full.split_at(full.find('/').ok_or(AddressError::Path)?);
    match authority.strip_suffix('@') {
        None if !authority.is_empty() => Err(AddressError::Credentials),
        credentials => Ok((credentials, path)),
    }
}

fn decoded(text: &str) -> Result<String, AddressError> {
    let bytes: Option<Vec<u8>> = percent_decoded(text).collect();
    String::from_utf8(bytes.ok_or(AddressError::Encoding)?).map_err(|_| AddressError::Encoding)
}

fn unix_path(path: &str) -> Result<PathBuf, AddressError> {
    let path = Path::new(path);
    let fits = net::SocketAddr::from_pathname(path).is_ok();
    if path.as_os_str().is_empty() || !fits { Err(AddressError::Path) } else { Ok(path.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> ServerAddress {
        ServerAddress::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn each_form_is_read_and_shown_without_the_password() {
        for (text, credentials, database, shown) in [
            ("redis://a", None, 0, "redis://a:6379/0"),
            ("redis://a/", None, 0, "redis://a:6379/0"),
            ("redis://a.b-c:1/15", None, 15, "redis://a.b-c:1/15"),
            ("redis://127.0.0.1:65535/0", None, 0, "redis://127.0.0.1:65535/0"),
            ("redis://[::1]", None, 0, "redis://[::1]:6379/0"),
            ("redis://[fe80::1%eth0]:7/2", None, 2, "redis://[fe80::1%eth0]:7/2"),
            ("redis://:pw@a", Some(("", "pw")), 0, "redis://a:6379/0"),
            ("redis://me:pw@a:7/1", Some(("me", "pw")), 1, "redis://me@a:7/1"),
            ("redis://me:p:w@x@a", Some(("me", "p:w@x")), 0, "redis://me@a:6379/0"),
            ("redis://m%3ae:%2F%40%25%c3%a9@a", Some(("m:e", "/@%é")), 0, "redis://m:e@a:6379/0"),
            ("redis://m%0ae:pw@a", Some(("m\ne", "pw")), 0, "redis://m\\ne@a:6379/0"),
            ("unix:/run/r.sock", None, 0, "unix:/run/r.sock"),
            ("unix:///run/r.sock", None, 0, "unix:/run/r.sock"),
            ("unix:////run/r.sock", None, 0, "unix:////run/r.sock"),
            ("unix:r.sock?db=3", None, 3, "unix:r.sock?db=3"),
            ("unix:r?db=3?db=0", None, 0, "unix:r?db=3?db=0"),
            ("unix:/run/a?b@c?db=3", None, 3, "unix:/run/a?b@c?db=3"),
            ("unix://:pw@/r", Some(("", "pw")), 0, "unix:/r"),
            ("unix://me:pw@/r?db=1", Some(("me", "pw")), 1, "unix://me@/r?db=1"),
        ] {
            let address = parsed(text);
            assert_eq!(address.credentials(), credentials, "{text}");
            assert_eq!((address.database(), address.to_string().as_str()), (database, shown));
            assert_eq!(format!("{address:?}"), format!("ServerAddress({shown})"));
        }
        let tcp = |host: &str, port| Place::Tcp { host: host.to_owned(), port };
        assert_eq!(parsed("redis://[::1]:7").place(), &tcp("::1", 7));
        assert_eq!(parsed("redis://:p@a.b").place(), &tcp("a.b", 6379));
        assert_eq!(parsed("unix://:p@/r/s?db=1").place(), &Place::Unix("/r/s".into()));
    }

    #[test]
    fn what_is_none_says_what_to_change_and_tells_no_secret() {
        use AddressError::*;
        for (text, error) in [
            ("", Scheme),
            ("a:6379", Scheme),
            ("Redis://a", Scheme),
            ("redis:a", Scheme),
            ("rediss://:secret@a", Tls),
            ("redis://", Host),
            ("redis:///0", Host),
            ("redis://:6379", Host),
            ("redis://a b", Host),
            ("redis://a?db=1", Host),
            ("redis://[]", Host),
            ("redis://[a/b]", Host),
            ("redis://[a]", Host),
            ("redis://[127.0.0.1]", Host),
            ("redis://[~~%%Dd%%]", Host),
            ("redis://[::1%]", Host),
            ("redis://[fe80::1%a%b]", Host),
            ("redis://[::1", Host),
            ("redis://[:::]", Host),
            ("redis://::1", Host),
            ("redis://:secret/1@a", Host),
            ("redis://a:", Port),
            ("redis://a:0", Port),
            ("redis://a:65536", Port),
            ("redis://a:-1", Port),
            ("redis://me:secret/1@a:1", Port),
            ("redis://[::1]1", Port),
            ("redis://a/x", Database),
            ("redis://a/-1", Database),
            ("redis://a/+1", Database),
            ("redis://a/0/", Database),
            ("redis://a/0?x", Database),
            ("redis://a/99999999999", Database),
            ("redis://secret@a", Credentials),
            ("redis://me:@a", Credentials),
            ("redis://:secret%@a", Encoding),
            ("redis://:secret%zz@a", Encoding),
            ("redis://:secret%ff@a", Encoding),
            ("unix:", Path),
            ("unix://", Path),
            ("unix:a\0b", Path),
            ("unix://secret@/r", Credentials),
            ("unix://me:secret/r", Credentials),
            ("unix:/r?db=", Database),
            ("unix:/r?db=x", Database),
        ] {
            let found = ServerAddress::parse(text).err();
            assert_eq!(found, Some(error), "{text}");
            let said = error.to_string();
            assert!(said.len() > 40 && !said.contains("secret") && !said.contains('\n'), "{said}");
        }
        assert_eq!(
            ServerAddress::parse(&format!("unix:/{}", "a".repeat(200))).err(),
            Some(AddressError::Path)
        );
    }
}
