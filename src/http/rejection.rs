//! The reasons for which this server itself refuses a request: one table, a row each.
//!
//! The modules above find out what is wrong with a head, a handshake, a session's id or an extension, or
//! that a limit is reached, and each of them has a small error of its own. Here each of those errors
//! becomes a [`Rejection`], which knows what the client is told, and whether the log tells of it at its
//! default level. An application's own refusal is no rejection: it brings its answer with it. Writes
//! nothing; [`super::refuse`] does. Called by the steps of a turn that answer a request.
//!
//! Invariant: each reason has one row and one metric label, and no text of a request becomes a label.
//!
//! Next: [`crate::environment`]: what a shard asks of its surroundings.

use super::WEBSOCKET_METHODS;
use crate::observe::page::NotAdmitted;
use crate::protocol::deflate::MalformedOffer;
use crate::protocol::handshake::HandshakeError;
use crate::protocol::head::HeadError;
use crate::session::rate::TooManySessions;
use crate::session::{BadSessionId, NotAttached};
use crate::transport::connection_limiter::LimitReached;

/// What is said and done for a reason.
struct Row {
    /// The metric label.
    label: &'static str,
    /// Status code and reason phrase, as they stand in the status line.
    status: &'static str,
    /// One line for the person at the other end: what to change.
    advice: &'static str,
    /// The fields of the answer that are the same for every request.
    fields: &'static str,
    /// `Some` if the log tells it at its default level, behind the advice: what an operator can do,
    /// or nothing, where the advice says it.
    remedy: Option<&'static str>,
}

impl Row {
    const fn new(label: &'static str, status: &'static str, advice: &'static str) -> Row {
        Row { label, status, advice, fields: "Connection: close\r\n", remedy: None }
    }

    /// Tells the client when to come back (RFC 9110 15.6.4, RFC 6585 4).
    const fn retried(self) -> Row {
        Row { fields: "Connection: close\r\nRetry-After: 1\r\n", ..self }
    }

    /// Tells the client what to upgrade to (RFC 9110 15.5.22), and in which version (RFC 6455 4.4).
    const fn upgradable(self) -> Row {
        let fields = "Connection: close, Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Version: 13\r\n";
        Row { fields, ..self }
    }

    /// Is told at the log's default level: it usually comes from a setting, a proxy or a client's
    /// library that somebody has to change.
    const fn told(self, remedy: &'static str) -> Row {
        Row { remedy: Some(remedy), ..self }
    }
}

/// Makes the enum, its rows, and each reason's place in them, of one table.
macro_rules! rejections {
    ($($(#[$meta:meta])* $name:ident $(($detail:ty))? => $row:expr;)*) => {
        /// Why a request is refused. The connection closes after the answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Rejection {
            $($(#[$meta])* $name $(($detail))?,)*
        }

        static ROWS: [Row; Rejection::COUNT] = [$($row),*];

        impl Rejection {
            /// How many reasons there are.
            pub const COUNT: usize = [$(stringify!($name)),*].len();

            /// Its place among all reasons, for a table of counters.
            #[must_use]
            pub fn index(self) -> usize {
                enum Place { $($name),* }
                let place = match self {
                    $(Rejection::$name { .. } => Place::$name,)*
                };
                place as usize
            }

            #[cfg(test)]
            fn one_of_each() -> [Rejection; Rejection::COUNT] {
                [$(Rejection::$name $((<$detail>::default()))?),*]
            }
        }
    };
}

const BAD_REQUEST: &str = "400 Bad Request";
const FORBIDDEN: &str = "403 Forbidden";
const UPGRADE_REQUIRED: &str = "426 Upgrade Required";
const TOO_MANY_REQUESTS: &str = "429 Too Many Requests";
const FIELDS_TOO_LARGE: &str = "431 Request Header Fields Too Large";
const UNAVAILABLE: &str = "503 Service Unavailable";

rejections! {
    /// The head is not HTTP: grammar, a bare LF, a control byte, a byte above ASCII outside of a
    /// field value (RFC 9112 2.2, 3, 5).
    MalformedHead => Row::new(
        "malformed_head", BAD_REQUEST, "the request head is not valid HTTP/1.1");

    /// No Host, more than one, or one that is no host (RFC 9112 3.2).
    BadHost => Row::new(
        "bad_host", BAD_REQUEST, "exactly one valid Host field is needed")
        .told("");

    /// The request has content, which no request to this server itself has, or framing that does not parse
    /// (RFC 9112 6.3).
    UnexpectedBody => Row::new(
        "unexpected_body", BAD_REQUEST, "a request to this server has no content");

    /// An upgrade to a WebSocket whose `Connection` field does not say so (RFC 6455 4.2.1).
    BadUpgrade => Row::new(
        "bad_upgrade", BAD_REQUEST, "needed: Upgrade: websocket and Connection: Upgrade")
        .told("; a proxy in front has to pass both fields on");

    /// `Sec-WebSocket-Key` missing, repeated, or not 16 bytes of base64 (RFC 6455 4.2.1).
    BadKey => Row::new(
        "bad_key", BAD_REQUEST, "needed: one Sec-WebSocket-Key of 16 bytes in base64")
        .told("");

    /// `session_id` has other characters than `A–Z a–z 0–9 - . _ ~`, or more than 128.
    BadSessionId => Row::new(
        "bad_session_id", BAD_REQUEST,
        "session_id takes 1 to 128 characters of A-Z a-z 0-9 - . _ ~");

    /// No such path.
    NotFound => Row::new(
        "not_found", "404 Not Found", "no such path");

    /// The path exists, but not for this method; the text is the value of the `Allow` field.
    MethodNotAllowed(&'static str) => Row::new(
        "method_not_allowed", "405 Method Not Allowed", "this path does not answer that method");

    /// The head did not arrive in time.
    HeadTimeout => Row::new(
        "head_timeout", "408 Request Timeout", "the request head took too long");

    /// The request target is longer than the limit.
    TargetTooLong => Row::new(
        "target_too_long", "414 URI Too Long", "the request target is too long");

    /// A request for the WebSocket path that asks for no WebSocket.
    UpgradeRequired => Row::new(
        "upgrade_required", UPGRADE_REQUIRED, "this path speaks WebSocket: connect with ws://")
        .upgradable();

    /// A WebSocket version other than 13 (RFC 6455 4.4).
    VersionNotOffered => Row::new(
        "version_not_offered", UPGRADE_REQUIRED, "WebSocket version 13 is spoken here")
        .upgradable();

    /// The head is larger than the limit.
    HeadTooLarge => Row::new(
        "head_too_large", FIELDS_TOO_LARGE, "the request head is too large");

    /// More fields than [`crate::protocol::head::MAX_HEADERS`].
    TooManyHeaders => Row::new(
        "too_many_headers", FIELDS_TOO_LARGE, "the request has too many header fields");

    /// Not a version that is answered: a WebSocket needs HTTP/1.1, a plain request that or HTTP/1.0.
    HttpVersion => Row::new(
        "http_version", "505 HTTP Version Not Supported", "HTTP/1.1 is spoken here");

    /// `--limit-concurrency` is reached.
    LimitConcurrency => Row::new(
        "limit_concurrency", UNAVAILABLE, "too many connections: try again later")
        .retried();

    /// No fresh session id can be made: the system has no randomness.
    NoSessionId => Row::new(
        "no_session_id", UNAVAILABLE, "no session can be made now: try again later")
        .retried();

    /// The server is going away.
    Draining => Row::new(
        "draining", UNAVAILABLE, "the server is going away: connect anew")
        .retried();

    /// The client had ended its stream before it got to its session, which exists already: a newer
    /// connection may have the session, or may have been told its count.
    Superseded => Row::new(
        "superseded", "409 Conflict", "this connection had ended before it got to its session");

    /// A browser's page of an origin that `--allowed-origins` does not name (RFC 6455 10.2).
    OriginNotAllowed => Row::new(
        "origin_not_allowed", FORBIDDEN, "pages of this origin may not connect")
        .told("; --allowed-origins names those that may");

    /// `--limit-per-ip` is reached by the client's address.
    LimitPerIp => Row::new(
        "limit_per_ip", TOO_MANY_REQUESTS, "too many connections from this address: close some")
        .retried();

    /// The page and its figures are for this machine alone, and the peer is not on it.
    NotForPeer => Row::new(
        "not_for_peer", FORBIDDEN,
        "only for this machine: revolve --page-for any opens it to all")
        .told("");

    /// The page or its figures were asked for by a page of another origin, or under a name that may
    /// be another machine's.
    ForeignOrigin => Row::new(
        "foreign_origin", FORBIDDEN,
        "not for other sites, nor under a name other than localhost or an IP address")
        .told("");

    /// As many connections watch on this reactor as are allowed.
    TooManyWatchers => Row::new(
        "too_many_watchers", UNAVAILABLE, "too many watch already: try again later")
        .retried();

    /// `Sec-WebSocket-Extensions` breaks the grammar (RFC 6455 9.1).
    BadExtensions => Row::new(
        "bad_extensions", BAD_REQUEST,
        "Sec-WebSocket-Extensions does not follow RFC 6455, section 9.1");

    /// The reactor that owns the session did not take the connection in time: its mailbox was full.
    OwnerBusy => Row::new(
        "owner_busy", UNAVAILABLE, "the event loop that has this session is busy: try again later")
        .retried();

    /// `--limit-sessions-per-ip` is reached by the client's address. The number is the seconds until
    /// that address may make the next session.
    LimitSessionsPerIp(u64) => Row::new(
        "limit_sessions_per_ip", TOO_MANY_REQUESTS,
        "too many new sessions from this address: resume one, or try again later");

    /// The application answers upgrades later, and so many wait already, or its answer took too long.
    AdmissionBusy => Row::new(
        "admission_busy", UNAVAILABLE, "this cannot be decided now: try again later")
        .retried();

    /// The application panicked over the state of a new session or over a request, or had a response that
    /// could not be made.
    InternalError => Row::new(
        "internal_error", "500 Internal Server Error", "internal error");

    /// While its answer was awaited, a newer connection got the session that this one asks for.
    Overtaken => Row::new(
        "overtaken", "409 Conflict", "a newer connection has this session");

    /// As many connections share the session as may.
    LimitPerSession => Row::new(
        "limit_per_session", TOO_MANY_REQUESTS, "too many connections of this session: close some")
        .retried();

    /// The content of a request for the application is larger than the limit (RFC 9110 15.5.14).
    BodyTooLarge => Row::new(
        "body_too_large", "413 Content Too Large", "the request body is too large");

    /// The content of a request for the application has a transfer coding, and so no length
    /// (RFC 9112 6.3).
    LengthRequired => Row::new(
        "length_required", "411 Length Required",
        "a request body needs a Content-Length, and no Transfer-Encoding");

    /// A proxy that is to say for whom it speaks does not begin with a header of the PROXY protocol.
    BadProxyHeader => Row::new(
        "bad_proxy_header", BAD_REQUEST, "needed first: a PROXY protocol header")
        .told("; --proxy-protocol is set, and --forwarded-allow-ips has this peer");

    /// The server has just started, and reads from its store which sessions there are.
    Recovering => Row::new(
        "recovering", UNAVAILABLE, "the sessions are being recovered: try again in a moment")
        .retried();

    /// The store that this server shares with others does not answer: without it nobody knows whose a session is.
    StoreAway => Row::new(
        "store_away", UNAVAILABLE, "sessions cannot be stored now: try again later")
        .retried();

    /// The content of a request for the application did not arrive in time.
    BodyTimeout => Row::new(
        "body_timeout", "408 Request Timeout", "the request body took too long");

    /// A request that is not encrypted, at an address that speaks TLS.
    PlainOnTls => Row::new(
        "plain_on_tls", BAD_REQUEST, "this port speaks TLS: use https:// or wss://")
        .told("");

    /// A TLS handshake, at an address that does not speak TLS.
    TlsOnPlain => Row::new(
        "tls_on_plain", BAD_REQUEST, "this port does not speak TLS: use http:// or ws://")
        .told("; --ssl-certfile turns TLS on");
}

impl Rejection {
    /// The metric labels, in the order of [`Self::index`].
    pub const LABELS: &'static [&'static str] = &{
        let mut labels = [""; Rejection::COUNT];
        let mut at = 0;
        while at < labels.len() {
            labels[at] = ROWS[at].label;
            at += 1;
        }
        labels
    };

    fn row(self) -> &'static Row {
        &ROWS[self.index()]
    }

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// Status code and reason phrase, as they stand in the status line.
    #[must_use]
    pub fn status(self) -> &'static str {
        self.row().status
    }

    /// One line for the person at the other end: what to change.
    #[must_use]
    pub fn advice(self) -> &'static str {
        self.row().advice
    }

    /// `Some` if the log tells it at its default level, behind the advice: what an operator can do, or
    /// nothing, where the advice says it.
    #[must_use]
    pub fn remedy(self) -> Option<&'static str> {
        self.row().remedy
    }

    /// The fields of the answer that depend on the reason, as whole lines.
    pub(super) fn fields(self) -> String {
        let fields = self.row().fields;
        match self {
            // RFC 9110 15.5.6: a 405 names the methods that there are.
            Rejection::MethodNotAllowed(methods) => format!("{fields}Allow: {methods}\r\n"),
            // RFC 6585 4: when to come back.
            Rejection::LimitSessionsPerIp(seconds) => format!("{fields}Retry-After: {seconds}\r\n"),
            _ => fields.to_owned(),
        }
    }
}

impl From<HeadError> for Rejection {
    fn from(error: HeadError) -> Rejection {
        match error {
            HeadError::Malformed => Rejection::MalformedHead,
            HeadError::BadHost => Rejection::BadHost,
            HeadError::BadFraming => Rejection::UnexpectedBody,
            HeadError::TargetTooLong => Rejection::TargetTooLong,
            HeadError::TooLarge => Rejection::HeadTooLarge,
            HeadError::TooManyHeaders => Rejection::TooManyHeaders,
            HeadError::HttpVersion => Rejection::HttpVersion,
        }
    }
}

impl From<HandshakeError> for Rejection {
    fn from(error: HandshakeError) -> Rejection {
        match error {
            HandshakeError::NotGet => Rejection::MethodNotAllowed(WEBSOCKET_METHODS),
            HandshakeError::NoUpgrade => Rejection::UpgradeRequired,
            HandshakeError::HttpVersion => Rejection::HttpVersion,
            HandshakeError::BadConnection => Rejection::BadUpgrade,
            HandshakeError::UnexpectedBody => Rejection::UnexpectedBody,
            HandshakeError::NoHost => Rejection::BadHost,
            HandshakeError::BadVersion => Rejection::VersionNotOffered,
            HandshakeError::BadKey => Rejection::BadKey,
        }
    }
}

impl From<MalformedOffer> for Rejection {
    fn from(_: MalformedOffer) -> Rejection {
        Rejection::BadExtensions
    }
}

impl From<BadSessionId> for Rejection {
    fn from(_: BadSessionId) -> Rejection {
        Rejection::BadSessionId
    }
}

impl From<NotAttached> for Rejection {
    fn from(error: NotAttached) -> Rejection {
        match error {
            NotAttached::NoId => Rejection::NoSessionId,
            NotAttached::Panicked => Rejection::InternalError,
        }
    }
}

impl From<TooManySessions> for Rejection {
    fn from(TooManySessions { retry_after }: TooManySessions) -> Rejection {
        Rejection::LimitSessionsPerIp(retry_after)
    }
}

impl From<LimitReached> for Rejection {
    fn from(limit: LimitReached) -> Rejection {
        match limit {
            LimitReached::Concurrency => Rejection::LimitConcurrency,
            LimitReached::PerIp => Rejection::LimitPerIp,
        }
    }
}

impl From<NotAdmitted> for Rejection {
    fn from(error: NotAdmitted) -> Rejection {
        match error {
            NotAdmitted::NoPage => Rejection::NotFound,
            NotAdmitted::NotForPeer => Rejection::NotForPeer,
            NotAdmitted::ForeignOrigin => Rejection::ForeignOrigin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bad_host` for `BadHost`, `limit_sessions_per_ip` for `LimitSessionsPerIp(0)`.
    fn in_snake_case(rejection: Rejection) -> String {
        let name = format!("{rejection:?}");
        let mut label = String::new();
        for c in name.chars().take_while(|c| c.is_ascii_alphanumeric()) {
            if c.is_ascii_uppercase() && !label.is_empty() {
                label.push('_');
            }
            label.push(c.to_ascii_lowercase());
        }
        label
    }

    #[test]
    fn each_reason_has_its_row_and_its_label() {
        for (at, rejection) in Rejection::one_of_each().into_iter().enumerate() {
            assert_eq!(rejection.index(), at, "{rejection:?}");
            assert_eq!(rejection.label(), in_snake_case(rejection));
            assert_eq!(Rejection::LABELS[at], rejection.label());
        }
    }

    #[test]
    fn an_answer_that_promises_something_has_the_field_for_it() {
        for rejection in Rejection::one_of_each() {
            let (status, fields) = (rejection.status(), rejection.fields());
            assert_eq!(fields.contains("\r\nAllow: "), status.starts_with("405"), "{rejection:?}");
            assert_eq!(
                fields.contains("\r\nUpgrade: "),
                status.starts_with("426"),
                "{rejection:?}"
            );
            let is_for_now = status.starts_with("503") || status.starts_with("429");
            assert_eq!(fields.contains("\r\nRetry-After: "), is_for_now, "{rejection:?}");
            assert!(fields.starts_with("Connection: close") && fields.ends_with("\r\n"));
        }
        let wait = Rejection::LimitSessionsPerIp(17).fields();
        assert_eq!(wait, "Connection: close\r\nRetry-After: 17\r\n");
    }

    #[test]
    fn what_somebody_has_to_change_is_told() {
        let all = Rejection::one_of_each().into_iter();
        let told: Vec<Rejection> = all.filter(|reason| reason.remedy().is_some()).collect();
        let expected = [
            Rejection::BadHost,
            Rejection::BadUpgrade,
            Rejection::BadKey,
            Rejection::OriginNotAllowed,
            Rejection::NotForPeer,
            Rejection::ForeignOrigin,
            Rejection::BadProxyHeader,
            Rejection::PlainOnTls,
            Rejection::TlsOnPlain,
        ];
        assert_eq!(told, expected);
    }
}
