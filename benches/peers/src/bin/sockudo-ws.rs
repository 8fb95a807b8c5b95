//! sockudo-ws's sans-IO `Protocol` on mio: what one gets by using the published codec for a server of
//! one's own.
//!
//! Tuned: its ready-made streams (tokio) hold a receive buffer of 64 KiB and a cork for each
//! connection. Here all connections share one of each, the replies to all messages of a read leave in
//! one write, and a large echo leaves by reference (its `CorkBuffer`). A connection keeps a buffer only
//! while a long message is not whole. It has no sessions, limits or timers. The load bench starts it.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use bytes::{Buf, BytesMut};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use revolve_bench_peers::{Options, accept_all, listen, push_count};
use slab::Slab;
use sockudo_ws::cork::{CorkBuffer, ZERO_COPY_MIN};
use sockudo_ws::frame::{encode_frame, encode_frame_header};
use sockudo_ws::handshake::{build_response, generate_accept_key, parse_request};
use sockudo_ws::protocol::Protocol;
use sockudo_ws::{Config, Error, Message, OpCode, Role};

/// One receive: more than a socket holds of small messages, and still in the second-level cache.
const BUFFER: usize = 256 * 1024;
/// An input buffer holds a message of 1 MiB and what comes behind it.
const ROOM: usize = 1024 * 1024 + BUFFER;
/// A read that leaves this much unfinished is in the middle of a long message: the connection keeps
/// the buffer until it is whole. Less is copied.
const LONG: usize = 16 * 1024;
/// Buffers of long messages that are kept for the next ones.
const SPARE: usize = 4;
const LISTENER: Token = Token(usize::MAX);

/// What the connections share, because only one of them is served at a time.
struct Shared {
    echo: bool,
    config: Config,
    /// A socket reads into memory that holds something; `Protocol` takes a `BytesMut`. Without unsafe
    /// code these are two, and what is received is copied once: less than clearing the other first.
    received: Vec<u8>,
    input: BytesMut,
    spare: Vec<BytesMut>,
    messages: Vec<Message>,
    cork: CorkBuffer,
    text: String,
}

struct Connection {
    stream: TcpStream,
    /// None until the upgrade.
    protocol: Option<Protocol>,
    count: u64,
    /// The beginning of a request or of a frame, when a read ended inside of it.
    rest: BytesMut,
    /// What the socket did not take; nothing is read until it is gone.
    unsent: Option<Box<CorkBuffer>>,
    closed: bool,
}

fn main() -> io::Result<()> {
    let mut shared = Shared {
        echo: Options::from_arguments().echo,
        config: Config::default(),
        received: vec![0; BUFFER],
        input: BytesMut::with_capacity(ROOM),
        spare: Vec::new(),
        messages: Vec::new(),
        cork: CorkBuffer::new(),
        text: String::new(),
    };
    let mut listener = TcpListener::from_std(listen()?);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Slab<Connection> = Slab::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            let token = event.token();
            if token == LISTENER {
                accept_all(&listener, &poll, &mut connections, Connection::new)?;
            } else if let Some(connection) = connections.get_mut(token.0)
                && (event.is_readable() || connection.unsent.is_some())
                && connection.visit(&mut shared).is_err()
            {
                // A connection's error ends that connection: a dropped or closed peer is no news.
                connections.remove(token.0);
            }
        }
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Connection {
            stream,
            protocol: None,
            count: 0,
            rest: BytesMut::new(),
            unsent: None,
            closed: false,
        }
    }

    /// Everything that one event asks for; an error ends the connection.
    fn visit(&mut self, shared: &mut Shared) -> Result<(), Error> {
        loop {
            if let Some(unsent) = &mut self.unsent {
                if !flush(&mut self.stream, unsent)? {
                    return Ok(());
                }
                self.unsent = None;
            }
            if self.closed {
                return Err(Error::ConnectionClosed);
            }
            let length = match self.stream.read(&mut shared.received) {
                Ok(0) => return Err(Error::ConnectionClosed),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let answered = self.take(length, shared);
            // What was answered before an error still leaves.
            if !flush(&mut self.stream, &mut shared.cork)? {
                self.unsent = Some(Box::new(std::mem::take(&mut shared.cork)));
            }
            answered?;
            // A short read is a drained socket: the next edge brings us back.
            if length < BUFFER && self.unsent.is_none() && !self.closed {
                return Ok(());
            }
        }
    }

    /// Answers what is complete of what was received, and keeps the rest.
    fn take(&mut self, length: usize, shared: &mut Shared) -> Result<(), Error> {
        let mut input = if self.rest.len() >= LONG {
            std::mem::take(&mut self.rest)
        } else {
            let mut input = std::mem::take(&mut shared.input);
            // Empty and nobody else's: its room begins at its beginning again, without a copy.
            input.reserve(ROOM);
            input.extend_from_slice(&self.rest);
            self.rest = BytesMut::new();
            input
        };
        input.extend_from_slice(&shared.received[..length]);
        let answered = self.answer(&mut input, shared);
        if input.len() >= LONG {
            self.rest = input;
            if shared.input.capacity() == 0 {
                let spare = shared.spare.pop();
                shared.input = spare.unwrap_or_else(|| BytesMut::with_capacity(ROOM));
            }
            return answered;
        }
        if !input.is_empty() {
            self.rest = BytesMut::from(&input[..]);
            input.clear();
        }
        if shared.input.capacity() == 0 {
            shared.input = input;
        } else if shared.spare.len() < SPARE {
            shared.spare.push(input);
        }
        answered
    }

    /// Answers the complete messages of `input` into the cork.
    fn answer(&mut self, input: &mut BytesMut, shared: &mut Shared) -> Result<(), Error> {
        let Shared { echo, config, messages, cork, text, .. } = shared;
        if self.protocol.is_none() {
            let Some((request, length)) = parse_request(input)? else { return Ok(()) };
            cork.write(&build_response(&generate_accept_key(request.key), None, None));
            input.advance(length);
            let (frame, message) = (config.max_frame_size, config.max_message_size);
            self.protocol = Some(Protocol::new(Role::Server, frame, message));
        }
        let Some(protocol) = &mut self.protocol else { return Ok(()) };
        let processed = protocol.process_into(input, messages);
        for message in messages.drain(..) {
            match message {
                Message::Text(_) | Message::Binary(_) if *echo => echo_into(cork, message),
                Message::Text(_) | Message::Binary(_) => {
                    self.count += 1;
                    text.clear();
                    push_count(text, self.count);
                    encode_frame(cork.buffer_mut(), OpCode::Text, text.as_bytes(), true, None);
                }
                Message::Ping(payload) => protocol.encode_pong(&payload, cork.buffer_mut()),
                Message::Pong(_) => {}
                Message::Close(_) => {
                    protocol.encode_close_response(cork.buffer_mut());
                    self.closed = true;
                }
            }
        }
        processed
    }
}

fn echo_into(cork: &mut CorkBuffer, message: Message) {
    let opcode = if message.is_text() { OpCode::Text } else { OpCode::Binary };
    let payload = message.into_bytes();
    if payload.len() < ZERO_COPY_MIN {
        encode_frame(cork.buffer_mut(), opcode, &payload, true, None);
    } else {
        encode_frame_header(cork.buffer_mut(), opcode, payload.len(), true, None);
        cork.write_bytes(payload);
    }
}

/// True once nothing is left to write.
fn flush(stream: &mut TcpStream, cork: &mut CorkBuffer) -> io::Result<bool> {
    while cork.has_data() {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = cork.fill_write_slices(&mut slices);
        let sent = match &slices[..filled] {
            [one] => stream.write(one),
            several => stream.write_vectored(several),
        };
        match sent {
            Ok(sent) => cork.consume(sent),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
