//! One connection's TLS: ciphertext in, plaintext out, and the other way round. It has no socket and no clock.
//!
//! It stands on rustls's unbuffered API, which owns no buffers: what is read is decrypted in the reactor's storage
//! ([`super::TlsScratch`]), and an idle session has none of its own. The buffered `ServerConnection` would keep 4 KiB
//! for input alone. What is left over, a record of which the end has not come, or plaintext for which there was no room,
//! is kept here. Made by `acceptor`; called by [`crate::transport::Transport`].
//!
//! Invariant: plaintext waits here only if the room that was given is full; and whoever reads next gets it first.
//!
//! Next: `acceptor`, where sessions come from.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{HandshakeKind, ServerConfig};

use super::certificate::Certificate;
use super::{Outgoing, PARTIAL_MOST, Phase, READ_LEAST, RECORD_MOST, TlsScratch};

/// What a record, an alert or a key update takes beside its plaintext, with room to spare.
const OVERHEAD: usize = 64;

/// The longest plaintext of a record (RFC 8446 5.1).
const FRAGMENT: usize = 1 << 14;

/// One connection's TLS.
pub struct TlsSession(Box<State>);

impl fmt::Debug for TlsSession {
    /// Without its keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsSession").field(&self.0.phase).finish()
    }
}

struct State {
    connection: UnbufferedServerConnection,
    phase: Phase,
    /// Ciphertext that is not taken, because the end of it has not come.
    partial: Vec<u8>,
    /// Nobody has looked at that yet.
    is_unheard: bool,
    /// Something of the handshake has come.
    has_begun: bool,
    /// Plaintext for which there was no room; it begins at `waiting_from`.
    waiting: Vec<u8>,
    waiting_from: usize,
    /// The peer has said close_notify.
    has_ended: bool,
    /// The subject of the client's certificate, which was verified.
    client_subject: Option<Box<str>>,
}

/// How many steps of handshakes a turn has taken.
#[derive(Debug, Default)]
pub struct Handshakes(usize);

impl Handshakes {
    /// None yet.
    pub fn begin_turn(&mut self) {
        self.0 = 0;
    }

    /// Takes one more, if that is within the limit.
    pub fn take(&mut self, limit: usize) -> bool {
        let may = self.0 < limit;
        self.0 += usize::from(may);
        may
    }
}

/// A certificate of a client, which was verified.
#[derive(Debug, Clone, Copy)]
pub struct ClientCertificate<'a>(&'a str);

impl<'a> ClientCertificate<'a> {
    /// Whose it is, as text (RFC 4514).
    #[must_use]
    pub fn subject(self) -> &'a str {
        self.0
    }
}

/// Where decrypted bytes go.
struct Room<'a> {
    bytes: &'a mut [u8],
    len: usize,
    /// What does not fit.
    rest: &'a mut Vec<u8>,
}

impl Room<'_> {
    fn take(&mut self, payload: &[u8]) -> io::Result<()> {
        let (fits, rest) = payload.split_at(payload.len().min(self.bytes.len() - self.len));
        self.bytes[self.len..self.len + fits.len()].copy_from_slice(fits);
        self.len += fits.len();
        self.rest.try_reserve_exact(rest.len())?;
        self.rest.extend_from_slice(rest);
        Ok(())
    }
}

/// How a look at the records ended.
enum Looked {
    /// Something was done; there may be more.
    GoesOn,
    /// There is no further whole record.
    AllTaken,
}

impl TlsSession {
    /// A session that awaits its client's first bytes.
    ///
    /// # Errors
    ///
    /// What rustls says.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<TlsSession, rustls::Error> {
        Ok(TlsSession(Box::new(State {
            connection: UnbufferedServerConnection::new(config)?,
            phase: Phase::ShakingHands,
            partial: Vec::new(),
            is_unheard: false,
            has_begun: false,
            waiting: Vec::new(),
            waiting_from: 0,
            has_ended: false,
            client_subject: None,
        })))
    }

    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// Before TLS comes something that is not encrypted: until [`Self::begin`] all is passed through.
    pub fn await_preface(&mut self) {
        self.0.phase = Phase::Preface;
    }

    /// The preface is over, and this stands behind it.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn begin(&mut self, behind: &[u8]) -> io::Result<()> {
        self.0.phase = Phase::ShakingHands;
        self.0.is_unheard = !behind.is_empty();
        self.0.keep(behind)
    }

    /// Whether the client has resumed an earlier session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.0.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificate that the client has shown, if it was asked for one and has one.
    #[must_use]
    pub fn client_certificate(&self) -> Option<ClientCertificate<'_>> {
        self.0.client_subject.as_deref().map(ClientCertificate)
    }

    /// Whether a read finds something without the socket.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.0.waiting.is_empty() || self.0.is_unheard
    }

    /// Whether the peer has said that no more plaintext comes.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.has_ended
    }

    /// Whether a part of a record has come, and its end has not.
    #[must_use]
    pub fn is_amid_record(&self) -> bool {
        !self.0.partial.is_empty()
    }

    /// Whether close_notify is to be said yet.
    #[must_use]
    pub fn owes_goodbye(&self) -> bool {
        self.0.phase == Phase::Established
    }

    /// Bytes of storage that it holds beside rustls's state.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.0.partial.capacity() + self.0.waiting.capacity() + size_of::<State>()
    }

    /// Takes out plaintext that has waited.
    pub fn take_waiting(&mut self, room: &mut [u8]) -> usize {
        let state = &mut *self.0;
        let waiting = &state.waiting[state.waiting_from..];
        let count = waiting.len().min(room.len());
        room[..count].copy_from_slice(&waiting[..count]);
        state.waiting_from += count;
        if state.waiting_from == state.waiting.len() {
            // Not cleared: an idle session owns no storage.
            (state.waiting, state.waiting_from) = (Vec::new(), 0);
        }
        count
    }

    /// Puts what was kept to the front of the storage for a read, and makes room behind it: as much as the plaintext
    /// has, or a record needs. Returns where the read begins and ends.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn prepare_read(
        &self,
        room: usize,
        scratch: &mut TlsScratch,
    ) -> io::Result<(usize, usize)> {
        let kept = self.0.partial.len();
        let end = room.max(RECORD_MOST).max(kept + READ_LEAST);
        scratch.make_room(end)?;
        scratch.incoming[..kept].copy_from_slice(&self.0.partial);
        Ok((kept, end))
    }

    /// Takes what was read, with what was kept in front of it ([`Self::prepare_read`]): the first `end` bytes of
    /// `scratch.incoming`. Plaintext goes to `room`, and what is to be answered to `scratch.outgoing`. Returns how many
    /// bytes of plaintext there are.
    ///
    /// # Errors
    ///
    /// When the peer breaks a rule, or more has come than is kept. The alert that tells the peer is in
    /// `scratch.outgoing` all the same.
    pub fn receive(
        &mut self,
        end: usize,
        room: &mut [u8],
        scratch: &mut TlsScratch,
    ) -> io::Result<usize> {
        let state = &mut *self.0;
        let TlsScratch { incoming, outgoing } = scratch;
        let input = &mut incoming[..end];
        state.partial = Vec::new();
        state.is_unheard = false;
        let mut waiting = std::mem::take(&mut state.waiting);
        let mut room = Room { bytes: room, len: 0, rest: &mut waiting };
        let taken = state.take_records(input, &mut room, outgoing);
        let len = room.len;
        state.waiting = waiting;
        let taken = taken.inspect_err(|_| state.phase = Phase::Failed)?;
        if !state.has_ended {
            state.keep(&input[taken..]).inspect_err(|_| state.phase = Phase::Failed)?;
        }
        Ok(len)
    }

    /// Encrypts, behind what stands in `out`.
    ///
    /// # Errors
    ///
    /// `NotConnected` before the handshake is over: nothing can be said then.
    pub fn seal(&mut self, plain: &[u8], out: &mut Outgoing) -> io::Result<()> {
        match self.0.phase {
            Phase::Preface | Phase::PlainText => return Ok(out.push(plain)?),
            Phase::ShakingHands => return Err(io::ErrorKind::NotConnected.into()),
            Phase::Failed | Phase::Ended => return Err(io::ErrorKind::BrokenPipe.into()),
            Phase::Established => {}
        }
        if plain.is_empty() {
            return Ok(());
        }
        self.0.write(out, |traffic, out| {
            let records = plain.len().div_ceil(FRAGMENT);
            out.reserve(plain.len() + (records + 1) * OVERHEAD)?;
            put(out, |free| traffic.encrypt(plain, free).map_err(needs))
        })
    }

    /// Nothing more is said, close_notify neither.
    pub fn abandon(&mut self) {
        self.0.phase = Phase::Ended;
    }

    /// Says close_notify, once: behind it nothing more is said (RFC 8446 6.1).
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn say_goodbye(&mut self, out: &mut Outgoing) -> io::Result<()> {
        if !self.owes_goodbye() {
            return Ok(());
        }
        self.0.phase = Phase::Ended;
        self.0.write(out, |traffic, out| {
            out.reserve(2 * OVERHEAD)?;
            put(out, |free| traffic.queue_close_notify(free).map_err(needs))
        })
    }
}

type Traffic<'a> = rustls::unbuffered::WriteTraffic<'a, rustls::server::ServerConnectionData>;

impl State {
    /// Keeps what is not whole.
    fn keep(&mut self, rest: &[u8]) -> io::Result<()> {
        if rest.len() > PARTIAL_MOST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a handshake message is too long",
            ));
        }
        self.partial.try_reserve_exact(rest.len())?;
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Takes all whole records of `input`, and returns how many of its bytes those are.
    fn take_records(
        &mut self,
        input: &mut [u8],
        room: &mut Room<'_>,
        out: &mut Outgoing,
    ) -> io::Result<usize> {
        // Every record of a handshake begins with 22 (RFC 8446 5.1), every request of HTTP with a letter.
        if self.phase == Phase::ShakingHands && !self.has_begun && !input.is_empty() {
            self.has_begun = true;
            if input[0].is_ascii_alphabetic() {
                self.phase = Phase::PlainText;
            }
        }
        if !matches!(self.phase, Phase::ShakingHands | Phase::Established) {
            room.take(input)?;
            return Ok(input.len());
        }
        let mut at = 0;
        loop {
            match self.look(&mut input[at..], &mut at, room, out) {
                Ok(Looked::GoesOn) => {}
                Ok(Looked::AllTaken) => break,
                Err(error) => {
                    self.write_alert(&mut input[at..], out)?;
                    return Err(error);
                }
            }
        }
        if self.phase == Phase::ShakingHands && !self.connection.is_handshaking() {
            self.phase = Phase::Established;
            let chain = self.connection.peer_certificates();
            let certificate = chain.and_then(|chain| Certificate::read(chain.first()?));
            self.client_subject = certificate.map(|certificate| certificate.subject.into());
        }
        Ok(at)
    }

    /// Takes the next thing that rustls makes of the input.
    fn look(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        room: &mut Room<'_>,
        out: &mut Outgoing,
    ) -> io::Result<Looked> {
        let UnbufferedStatus { discard, state } = self.connection.process_tls_records(input);
        *at += discard;
        match state.map_err(broken)? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(broken)?;
                    *at += record.discard;
                    room.take(record.payload)?;
                }
                Ok(Looked::GoesOn)
            }
            ConnectionState::EncodeTlsData(mut data) => {
                put(out, |free| data.encode(free).map_err(needs_encoding))?;
                Ok(Looked::GoesOn)
            }
            ConnectionState::TransmitTlsData(sent) => {
                sent.done();
                Ok(Looked::GoesOn)
            }
            ConnectionState::PeerClosed => {
                self.has_ended = true;
                Ok(Looked::GoesOn)
            }
            ConnectionState::BlockedHandshake
            | ConnectionState::WriteTraffic(_)
            | ConnectionState::Closed => Ok(Looked::AllTaken),
            // Early data is off, and this rustls has no other state.
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown state of TLS")),
        }
    }

    /// Behind an error rustls has an alert for the peer.
    fn write_alert(&mut self, input: &mut [u8], out: &mut Outgoing) -> io::Result<()> {
        // It is asked for no more than that: it would look at the input again.
        while self.connection.wants_write() {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(input);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { break };
            put(out, |free| data.encode(free).map_err(needs_encoding))?;
        }
        Ok(())
    }

    /// Writes by way of rustls, behind what that has to say itself.
    fn write(
        &mut self,
        out: &mut Outgoing,
        say: impl FnOnce(&mut Traffic<'_>, &mut Outgoing) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            // rustls may have counted what is kept of a message of several records: it sees that each time.
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut self.partial);
            debug_assert_eq!(discard, 0, "whole records are taken when they come");
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => return say(&mut traffic, out),
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    put(out, |free| data.encode(free).map_err(needs_encoding))?;
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::PeerClosed) => self.has_ended = true,
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }
}

/// Why something was not written: room for so many bytes is needed, if that is why.
struct NotWritten(Option<usize>);

fn needs(error: EncryptError) -> NotWritten {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
            NotWritten(Some(required_size))
        }
        // After 2^24 records with TLS 1.2 and AES: the key is used up (RFC 8446 5.5).
        EncryptError::EncryptExhausted => NotWritten(None),
    }
}

fn needs_encoding(error: EncodeError) -> NotWritten {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
            NotWritten(Some(required_size))
        }
        EncodeError::AlreadyEncoded => NotWritten(None),
    }
}

/// Writes behind what stands in `out`; a second time, if there was too little room.
fn put(
    out: &mut Outgoing,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, NotWritten>,
) -> io::Result<()> {
    let written = match write(out.free()) {
        Err(NotWritten(Some(needed))) => {
            out.reserve(needed)?;
            write(out.free())
        }
        written => written,
    };
    match written {
        Ok(count) => {
            out.wrote(count);
            Ok(())
        }
        Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::super::TlsAcceptor;
    use super::*;
    use crate::config::TlsFiles;
    use rustls::crypto::ring;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version,
    };
    use std::io::{Read, Write};

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

    fn path(name: &str) -> String {
        format!("{}/tests/tls/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    fn acceptor() -> TlsAcceptor {
        let certfiles = vec![path("ed25519.pem").into()];
        let keyfiles = vec![path("ed25519.key").into()];
        TlsAcceptor::load(&TlsFiles { certfiles, keyfiles, ..TlsFiles::default() }).unwrap()
    }

    fn client(version: &'static SupportedProtocolVersion) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(path("ca.pem")).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
    }

    /// A session, its client, and what has come out of both.
    struct Pair {
        session: TlsSession,
        client: ClientConnection,
        scratch: TlsScratch,
        /// Plaintext that the session gave.
        heard: Vec<u8>,
        /// Plaintext that the client got.
        told: Vec<u8>,
        room: usize,
    }

    impl Pair {
        fn new(
            acceptor: &TlsAcceptor,
            version: &'static SupportedProtocolVersion,
            room: usize,
        ) -> Pair {
            let (session, client) = (acceptor.session().unwrap(), client(version));
            let (heard, told) = (Vec::new(), Vec::new());
            Pair { session, client, scratch: TlsScratch::default(), heard, told, room }
        }

        fn take_waiting(&mut self) {
            let mut room = vec![0; self.room];
            while self.session.has_waiting() {
                let count = self.session.take_waiting(&mut room);
                self.heard.extend_from_slice(&room[..count]);
            }
        }

        /// What a transport does with bytes that the socket gave.
        fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
            let (begin, end) = self.session.prepare_read(self.room, &mut self.scratch)?;
            assert!(bytes.len() <= end - begin, "more than there is room for");
            self.scratch.incoming[begin..begin + bytes.len()].copy_from_slice(bytes);
            let mut room = vec![0; self.room];
            let received = self.session.receive(begin + bytes.len(), &mut room, &mut self.scratch);
            if let Ok(count) = &received {
                self.heard.extend_from_slice(&room[..*count]);
                self.take_waiting();
            }
            self.answer();
            received.map(drop)
        }

        fn answer(&mut self) {
            let mut bytes = self.scratch.outgoing.bytes();
            while !bytes.is_empty() {
                self.client.read_tls(&mut bytes).unwrap();
                // An alert is an error to it.
                let _ = self.client.process_new_packets();
                let _ = self.client.reader().read_to_end(&mut self.told);
            }
            self.scratch.outgoing.clear();
        }

        fn unsent(&mut self) -> Vec<u8> {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            bytes
        }

        /// Delivers all that the client has to say, in pieces that `cut` takes off.
        fn deliver(&mut self, mut cut: impl FnMut(usize) -> usize) {
            loop {
                let unsent = self.unsent();
                let mut rest = &unsent[..];
                if rest.is_empty() {
                    return;
                }
                while !rest.is_empty() {
                    let (piece, behind) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
                    self.receive(piece).unwrap();
                    rest = behind;
                }
            }
        }
    }

    #[test]
    fn whatever_is_cut_wherever_the_same_is_heard() {
        let acceptor = acceptor();
        for version in VERSIONS {
            let whole = {
                let mut pair = Pair::new(&acceptor, version, 64 << 10);
                let mut bytes = 0;
                pair.deliver(|rest| {
                    bytes += rest;
                    rest
                });
                bytes
            };
            // The handshake is cut once at each of its bytes, and what follows with it.
            for at in 1..whole + 60 {
                let mut pair = Pair::new(&acceptor, version, [1, 7, 64 << 10][at % 3]);
                let mut left = at;
                pair.client.writer().write_all(b"early").unwrap();
                let mut cut = |rest: usize| {
                    let piece = if left < rest && left > 0 { left } else { rest };
                    left = left.saturating_sub(rest);
                    piece
                };
                pair.deliver(&mut cut);
                pair.client.writer().write_all(b" and late").unwrap();
                pair.deliver(&mut cut);
                assert_eq!(pair.session.phase(), Phase::Established, "{at}");
                assert_eq!(pair.heard, b"early and late", "{at}");
                assert!(!pair.session.is_amid_record(), "{at}");
            }
        }
    }

    #[test]
    fn what_has_no_room_waits_and_an_idle_session_owns_nothing() {
        let acceptor = acceptor();
        for (version, room) in
            VERSIONS.into_iter().flat_map(|version| [(version, 1), (version, 100)])
        {
            let mut pair = Pair::new(&acceptor, version, room);
            pair.deliver(|_| 1);
            let message = [7; 40_000];
            pair.client.writer().write_all(&message).unwrap();
            pair.deliver(|_| READ_LEAST);
            assert_eq!(pair.heard, message);
            let state = &pair.session.0;
            assert_eq!((state.partial.capacity(), state.waiting.capacity()), (0, 0));
            for length in [0, 1, FRAGMENT - 1, FRAGMENT, FRAGMENT + 1, 200_000] {
                let message = vec![9; length];
                pair.session.seal(&message, &mut pair.scratch.outgoing).unwrap();
                pair.answer();
                assert_eq!(std::mem::take(&mut pair.told), message, "{length}");
            }
        }
    }

    #[test]
    fn both_ends_say_close_notify_and_nothing_behind_it() {
        let acceptor = acceptor();
        for version in VERSIONS {
            let mut pair = Pair::new(&acceptor, version, 1000);
            assert!(!pair.session.owes_goodbye(), "nothing can be said yet");
            let early = pair.session.seal(b"early", &mut pair.scratch.outgoing).unwrap_err();
            assert_eq!(early.kind(), io::ErrorKind::NotConnected);
            pair.deliver(|rest| rest);
            pair.client.writer().write_all(b"last").unwrap();
            pair.client.send_close_notify();
            pair.deliver(|rest| rest);
            assert!(pair.session.has_ended() && pair.heard == b"last");
            // The other direction goes on.
            pair.session.seal(b"reply", &mut pair.scratch.outgoing).unwrap();
            pair.session.say_goodbye(&mut pair.scratch.outgoing).unwrap();
            let length = pair.scratch.outgoing.bytes().len();
            pair.session.say_goodbye(&mut pair.scratch.outgoing).unwrap();
            assert_eq!(pair.scratch.outgoing.bytes().len(), length, "once");
            assert!(pair.session.seal(b"more", &mut pair.scratch.outgoing).is_err());
            pair.answer();
            assert_eq!(pair.told, b"reply");
            // Ok: it is no truncation.
            assert_eq!(pair.client.reader().read(&mut [0; 1]).unwrap(), 0);
        }
    }

    #[test]
    fn who_breaks_a_rule_is_told_by_an_alert_and_heard_no_more() {
        let acceptor = acceptor();
        for version in VERSIONS {
            let mut pair = Pair::new(&acceptor, version, 1000);
            pair.deliver(|rest| rest);
            pair.client.writer().write_all(b"damaged on its way").unwrap();
            let mut record = pair.unsent();
            *record.last_mut().unwrap() ^= 1;
            pair.receive(&record).unwrap_err();
            assert_eq!(pair.session.phase(), Phase::Failed);
            assert!(matches!(
                pair.client.process_new_packets(),
                Err(rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac))
            ));
            pair.receive(b"what it still says").unwrap();
            assert_eq!(
                pair.heard, b"what it still says",
                "for the counting of what is thrown away"
            );
        }
        let mut pair = Pair::new(&acceptor, &version::TLS13, 1000);
        pair.receive(&[22, 3, 1, 0, 4, 9, 0, 0, 0]).unwrap_err();
        assert_eq!(pair.session.phase(), Phase::Failed, "no ClientHello");
    }

    #[test]
    fn a_handshake_message_without_end_is_cut_off() {
        let acceptor = acceptor();
        let mut pair = Pair::new(&acceptor, &version::TLS13, 1000);
        // A ClientHello of 60,000 bytes, in records of 16,000.
        let mut sent = 0;
        let mut first = vec![22, 3, 1, 0x3e, 0x80, 1, 0, 0xea, 0x60];
        first.resize(5 + 16_000, 0);
        let next = [&[22, 3, 1, 0x3e, 0x80][..], &[0; 16_000]].concat();
        let failed = [first, next.clone(), next.clone(), next].iter().any(|record| {
            sent += record.len();
            record.chunks(4000).any(|piece| pair.receive(piece).is_err())
        });
        assert!(failed && sent < PARTIAL_MOST + 2 * RECORD_MOST, "{sent}");
    }

    #[test]
    fn text_is_passed_through_and_so_is_a_preface() {
        let acceptor = acceptor();
        let mut pair = Pair::new(&acceptor, &version::TLS13, 8);
        pair.receive(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(pair.session.phase(), Phase::PlainText);
        assert_eq!(pair.heard, b"GET / HTTP/1.1\r\n\r\n");
        pair.session.seal(b"HTTP/1.1 400", &mut pair.scratch.outgoing).unwrap();
        assert_eq!(pair.scratch.outgoing.bytes(), b"HTTP/1.1 400");

        let mut pair = Pair::new(&acceptor, &version::TLS13, 64);
        pair.session.await_preface();
        let hello = pair.unsent();
        let both = [b"PROXY UNKNOWN\r\n", &hello[..]].concat();
        pair.receive(&both).unwrap();
        assert_eq!(pair.heard, both);
        pair.session.begin(&hello).unwrap();
        assert!(pair.session.has_waiting());
        pair.heard.clear();
        pair.receive(b"").unwrap();
        pair.deliver(|rest| rest);
        assert_eq!(pair.session.phase(), Phase::Established);
    }
}
