//! For whom a proxy speaks: the header before its first request, and the fields of each request.
//!
//! Who is believed is the configuration's. With neither setting none of this is reached. Called by
//! `requests`, and by `upgrade` when a client's address is known to stay.
//!
//! Invariant: a peer that is not in the list is who it is, whatever it sends.
//!
//! Next: `upgrade`: how connections become WebSockets.

use super::parts::Parts;
use super::turn::Turn;
use crate::application::Application;
use crate::config::Config;
use crate::environment::Environment;
use crate::http::Rejection;
use crate::protocol::forwarded::ProxyHeaders;
use crate::protocol::head::Request;
use crate::protocol::proxy_header;
use crate::token::{Entrance, LocalId, Peer, Visitor};

/// What became of the input where a header is expected.
pub(super) enum Preface {
    /// It is not whole.
    NeedMore,
    /// It is read, and a request is next; or it was refused.
    Done,
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Whether a connection has to begin with a header of the PROXY protocol, which has not come.
    pub(super) fn awaits_proxy_header(&self, id: LocalId) -> bool {
        let entrance = self.connections.get(id).map(|connection| connection.entrance);
        entrance == Some(Entrance::BehindProxy)
    }

    /// Reads the header of the PROXY protocol that a connection has to begin with. `at` is where it
    /// begins in the input.
    pub(super) fn read_proxy_header(
        &mut self,
        id: LocalId,
        input: &[u8],
        at: &mut usize,
        turn: &mut Turn<'_>,
    ) -> Preface {
        let config = &turn.setup.config;
        let rejection = match proxy_header::parse(&input[*at..], config.limits.head_bytes) {
            Ok(None) => return Preface::NeedMore,
            Ok(Some(header)) => {
                *at += header.length;
                let Some(connection) = self.connections.get_mut(id) else { return Preface::Done };
                connection.entrance = Entrance::Public;
                if connection.transport.tls().is_some() {
                    // What follows is a handshake.
                    if let Err(error) = connection.transport.begin_tls(&input[*at..]) {
                        self.lose_to(id, &error, turn);
                        return Preface::Done;
                    }
                    *at = input.len();
                }
                if let Some(mut source) = header.source {
                    source.set_ip(source.ip().to_canonical());
                    connection.peer = source.into();
                }
                if config.speaks_for_others(connection.peer.ip()) {
                    return Preface::Done;
                }
                match self.count_address(id, turn) {
                    Ok(()) => return Preface::Done,
                    Err(rejection) => rejection,
                }
            }
            Err(_) => Rejection::BadProxyHeader,
        };
        self.refuse_request(id, rejection, &input[*at..], turn);
        Preface::Done
    }

    /// Counts a connection against its client's address, which was not known when it was accepted.
    ///
    /// # Errors
    ///
    /// The address has as many as it may.
    pub(super) fn count_address(&mut self, id: LocalId, turn: &Turn<'_>) -> Result<(), Rejection> {
        let setup = turn.setup;
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let limiter = setup.status.connection_limiter();
        Ok(limiter.count_address(&mut connection.permit, connection.peer, &setup.config)?)
    }
}

/// Who sends a request that has come by this visitor's connection.
#[inline]
pub(super) fn client_of(request: &Request<'_, '_>, visitor: Visitor, config: &Config) -> Peer {
    if config.proxy_headers == ProxyHeaders::Off || visitor.entrance != Entrance::Public {
        return visitor.peer;
    }
    let proxies = &config.forwarded_allow_ips;
    if !proxies.contain(visitor.peer.ip()) {
        return visitor.peer;
    }
    let is_trusted = |ip| proxies.contain(Some(ip));
    let client = config.proxy_headers.client(request.headers, is_trusted);
    client.map_or(visitor.peer, Peer::from)
}
