//! A connection to a server: commands go out together, and their replies come back in order.
//!
//! Blocking, for a thread that may wait. Who we are (AUTH), where (SELECT) and under what name (CLIENT SETNAME) is said
//! when it is made, and PING asks whether the server serves at all. One that has failed is of no use any more, because
//! whose the next reply is would not be known; the caller makes another one, when it thinks fit. Called by the threads
//! of a store; `subscriber` stands on it.
//!
//! Invariant: the nth reply that is returned belongs to the nth command.
//!
//! Next: `subscriber`: a connection that listens.

use std::io;
use std::time::{Duration, Instant};

use super::address::ServerAddress;
use super::decoder::Decoder;
use super::error::ConnectionError;
use super::pipeline::{Parts, Pipeline};
use super::reply::{ErrorKind, Reply};
use super::script::{Calling, Script};
use super::socket::Socket;

/// Bytes that one read may take: the replies of a batch, most of the time.
const READ_BYTES: usize = 16 << 10;

/// How long a wait is, between two looks at what else there is to do.
const SLICE: Duration = Duration::from_millis(100);

/// How a connection is made, and what it bears.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// For how long it may be made: until the server has said that it serves.
    pub connect_timeout: Duration,
    /// For how long a pipeline may take, from its first byte to its last reply.
    pub reply_timeout: Duration,
    /// What CLIENT LIST shows: printable ASCII without spaces, as the server wants it.
    pub client_name: String,
    /// Memory that one reply may take.
    pub reply_bytes_most: usize,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    decoder: Decoder,
    room: Vec<u8>,
    reply_timeout: Duration,
    has_failed: bool,
}

impl Connection {
    /// Connects, says who we are, and asks whether the server serves.
    ///
    /// # Errors
    ///
    /// If there is no connection, or the server refuses one of these.
    pub fn connect(
        address: &ServerAddress,
        options: &ConnectOptions,
    ) -> Result<Connection, ConnectionError> {
        let deadline = Instant::now() + options.connect_timeout;
        let socket = Socket::connect(address.place(), deadline).map_err(|error| {
            let is_late = error.kind() == io::ErrorKind::TimedOut;
            if is_late { ConnectionError::TimedOut } else { ConnectionError::Connect(error) }
        })?;
        let mut connection = Connection {
            socket,
            decoder: Decoder::new(options.reply_bytes_most),
            room: vec![0; READ_BYTES],
            reply_timeout: options.reply_timeout,
            has_failed: false,
        };
        connection.introduce(address, &options.client_name, deadline)?;
        Ok(connection)
    }

    fn introduce(
        &mut self,
        address: &ServerAddress,
        client_name: &str,
        deadline: Instant,
    ) -> Result<(), ConnectionError> {
        let mut pipeline = Pipeline::new();
        let mut names = Vec::new();
        match address.credentials() {
            // As servers before Redis 6 want it.
            Some(("", password)) => {
                names.push("AUTH");
                pipeline.push(["AUTH", password]);
            }
            Some((user, password)) => {
                names.push("AUTH");
                pipeline.push(["AUTH", user, password]);
            }
            None => {}
        }
        if address.database() != 0 {
            names.push("SELECT");
            pipeline.push(["SELECT", &address.database().to_string()]);
        }
        // Behind what it depends on: not authenticated, loading, a replica without its primary.
        names.push("PING");
        pipeline.push(["PING"]);
        pipeline.push(["CLIENT", "SETNAME", client_name]);
        let replies = self.exchange_until(&pipeline, deadline)?;
        // The last one may be refused: the name is for people.
        for (command, reply) in names.into_iter().zip(replies) {
            if let Reply::Error(error) = reply {
                self.fail();
                let is_secret = command == "AUTH";
                let error = if is_secret { error.without_quotes() } else { error };
                return Err(ConnectionError::Refused { command, error });
            }
        }
        Ok(())
    }

    /// Sends commands and waits for all their replies. An error that the server answers to one of them is its reply.
    ///
    /// # Errors
    ///
    /// If the connection fails: then nobody knows which of the commands have been done, or will be.
    pub fn exchange(&mut self, pipeline: &Pipeline) -> Result<Vec<Reply>, ConnectionError> {
        self.exchange_until(pipeline, Instant::now() + self.reply_timeout)
    }

    /// Calls a script by its name; with its text, if the server does not know it.
    ///
    /// # Errors
    ///
    /// If the connection fails. What the script or the server refuses is the reply.
    pub fn run(
        &mut self,
        script: &Script,
        keys: usize,
        write: impl Fn(&mut Parts),
    ) -> Result<Reply, ConnectionError> {
        let reply = self.call(script, Calling::ByName, keys, &write)?;
        // It has not been run then, so it is not run twice.
        if !reply.is_error(ErrorKind::NoScript) {
            return Ok(reply);
        }
        self.call(script, Calling::WithText, keys, &write)
    }

    fn call(
        &mut self,
        script: &Script,
        calling: Calling,
        keys: usize,
        write: impl Fn(&mut Parts),
    ) -> Result<Reply, ConnectionError> {
        let mut pipeline = Pipeline::new();
        pipeline.push_script(script, calling, keys, write);
        self.exchange(&pipeline)?.pop().ok_or(ConnectionError::Unexpected)
    }

    /// Makes scripts known to the server, so that pipelines can call them by name.
    ///
    /// # Errors
    ///
    /// If the connection fails, or the server refuses one: it does not compile, or the user may not load any.
    pub fn load(&mut self, scripts: &[&Script]) -> Result<(), ConnectionError> {
        let mut pipeline = Pipeline::new();
        scripts.iter().for_each(|script| pipeline.push_load(script));
        for (reply, script) in self.exchange(&pipeline)?.into_iter().zip(scripts) {
            match reply {
                Reply::Error(error) => {
                    return Err(ConnectionError::Refused { command: "SCRIPT LOAD", error });
                }
                reply if reply.bytes() == Some(script.name().as_bytes()) => {}
                _ => return self.failed(ConnectionError::Unexpected),
            }
        }
        Ok(())
    }

    fn exchange_until(
        &mut self,
        pipeline: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Reply>, ConnectionError> {
        self.exchange_while(pipeline, deadline, || {})
    }

    /// As [`Self::exchange`], until this moment; while it waits, `meanwhile` runs some ten times a second.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn exchange_while(
        &mut self,
        pipeline: &Pipeline,
        deadline: Instant,
        mut meanwhile: impl FnMut(),
    ) -> Result<Vec<Reply>, ConnectionError> {
        self.send(pipeline, deadline)?;
        let mut replies = Vec::with_capacity(pipeline.len());
        while replies.len() < pipeline.len() {
            let slice = deadline.min(Instant::now() + SLICE);
            match self.receive(slice)? {
                Some(reply) => replies.push(reply),
                None if slice == deadline => return self.failed(ConnectionError::TimedOut),
                None => meanwhile(),
            }
        }
        if self.decoder.is_between_replies() {
            Ok(replies)
        } else {
            self.failed(ConnectionError::Unexpected)
        }
    }

    /// Sends commands, and leaves their replies to [`Self::receive`].
    pub(super) fn send(
        &mut self,
        pipeline: &Pipeline,
        deadline: Instant,
    ) -> Result<(), ConnectionError> {
        if self.has_failed {
            return Err(ConnectionError::Unusable);
        }
        match self.socket.write_all(pipeline.as_bytes(), deadline) {
            Ok(()) => Ok(()),
            Err(error) => self.failed(of_io(error)),
        }
    }

    /// The next reply; `None` if there is none until then. Half of one is kept for the next call.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<Option<Reply>, ConnectionError> {
        if self.has_failed {
            return Err(ConnectionError::Unusable);
        }
        loop {
            match self.decoder.next_reply() {
                Ok(Some(reply)) => return Ok(Some(reply)),
                Ok(None) => {}
                Err(malformed) => return self.failed(ConnectionError::Malformed(malformed)),
            }
            match self.socket.read(&mut self.room, deadline) {
                Ok(0) => return self.failed(ConnectionError::Closed),
                Ok(count) => self.decoder.feed(&self.room[..count]),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
                Err(error) => return self.failed(of_io(error)),
            }
        }
    }

    /// What it consists of; whatever was asked is answered.
    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// For how long a pipeline may take.
    pub(super) fn reply_timeout(&self) -> Duration {
        self.reply_timeout
    }

    /// Gives the connection up, for this reason.
    pub(super) fn failed<T>(&mut self, error: ConnectionError) -> Result<T, ConnectionError> {
        self.fail();
        Err(error)
    }

    fn fail(&mut self) {
        self.has_failed = true;
        self.socket.shut_down();
    }
}

pub(super) fn of_io(error: io::Error) -> ConnectionError {
    match error.kind() {
        io::ErrorKind::TimedOut => ConnectionError::TimedOut,
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ConnectionError::Closed,
        _ => ConnectionError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread::{self, JoinHandle};

    /// What a server that is ready says to PING and CLIENT SETNAME.
    const READY: &str = "+PONG\r\n+OK\r\n";

    fn options() -> ConnectOptions {
        // Long enough for any machine; the tests about time have their own.
        let timeout = Duration::from_secs(60);
        ConnectOptions {
            connect_timeout: timeout,
            reply_timeout: timeout,
            client_name: "test".to_owned(),
            reply_bytes_most: 1 << 20,
        }
    }

    /// A server for one connection: its address behind `prefix`, and what it does with it.
    fn server<T: Send + 'static>(
        prefix: &str,
        serve: impl FnOnce(TcpStream) -> T + Send + 'static,
    ) -> (ServerAddress, JoinHandle<T>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("redis://{prefix}{}", listener.local_addr().unwrap());
        let thread = thread::spawn(move || serve(listener.accept().unwrap().0));
        (ServerAddress::parse(&address).unwrap(), thread)
    }

    /// Reads until this many commands have come; they are arrays of strings. All bytes of them.
    fn commands(stream: &mut TcpStream, count: usize) -> String {
        let mut decoder = Decoder::new(1 << 20);
        let (mut seen, mut text, mut room) = (0, Vec::new(), [0; 1000]);
        while seen < count {
            let read = stream.read(&mut room).unwrap();
            assert!(read > 0, "it has closed");
            text.extend_from_slice(&room[..read]);
            decoder.feed(&room[..read]);
            while decoder.next_reply().unwrap().is_some() {
                seen += 1;
            }
        }
        String::from_utf8(text).unwrap()
    }

    /// What becomes of one PING at a server that answers with these pieces, and then ends.
    fn answered(
        pieces: &'static [&'static str],
    ) -> (Result<Vec<Reply>, ConnectionError>, Connection) {
        let (address, thread) = server("", move |mut stream| {
            commands(&mut stream, 2);
            stream.write_all(READY.as_bytes()).unwrap();
            commands(&mut stream, 1);
            for piece in pieces {
                stream.write_all(piece.as_bytes()).unwrap();
            }
        });
        let mut connection = Connection::connect(&address, &options()).unwrap();
        let mut pipeline = Pipeline::new();
        pipeline.push(["PING"]);
        let result = connection.exchange(&pipeline);
        thread.join().unwrap();
        (result, connection)
    }

    fn is_unusable(connection: &mut Connection) -> bool {
        let mut pipeline = Pipeline::new();
        pipeline.push(["PING"]);
        matches!(connection.exchange(&pipeline), Err(ConnectionError::Unusable))
    }

    #[test]
    fn it_says_who_we_are_before_anything_else() {
        let (address, thread) = server("me:pw@", |mut stream| {
            let text = commands(&mut stream, 3);
            stream.write_all(b"+OK\r\n+PONG\r\n-NOPERM no\r\n").unwrap();
            text
        });
        // That the name is refused harms nobody.
        assert!(Connection::connect(&address, &options()).is_ok());
        let mut expected = Pipeline::new();
        expected.push(["AUTH", "me", "pw"]);
        expected.push(["PING"]);
        expected.push(["CLIENT", "SETNAME", "test"]);
        assert_eq!(thread.join().unwrap().as_bytes(), expected.as_bytes());
    }

    #[test]
    fn what_a_server_refuses_at_first_is_told_without_a_secret() {
        let refusals = [
            ("-WRONGPASS no\r\n-NOAUTH x\r\n-NOAUTH x\r\n", "AUTH is refused: WRONGPASS no (check"),
            ("-ERR unknown, args: 'pw'\r\n+PONG\r\n+OK\r\n", "AUTH is refused: ERR unknown, args"),
            ("+OK\r\n-LOADING x\r\n+OK\r\n", "PING is refused: LOADING x (it has just"),
        ];
        for (answer, said) in refusals {
            let (address, thread) = server(":pw@", move |mut stream| {
                commands(&mut stream, 3);
                stream.write_all(answer.as_bytes()).unwrap();
            });
            let error = Connection::connect(&address, &options()).unwrap_err().to_string();
            assert!(error.starts_with(said) && !error.contains("pw"), "{error}");
            thread.join().unwrap();
        }
    }

    #[test]
    fn replies_are_those_of_the_commands_in_any_pieces() {
        let (result, mut connection) = answered(&["+PO", "NG\r", "\n"]);
        assert_eq!(result.unwrap(), [Reply::Simple(b"PONG".to_vec())]);
        // The server has gone; that shows when it is asked.
        let mut pipeline = Pipeline::new();
        pipeline.push(["PING"]);
        assert!(matches!(
            connection.exchange(&pipeline),
            Err(ConnectionError::Closed | ConnectionError::Io(_))
        ));
        assert!(is_unusable(&mut connection));
    }

    #[test]
    fn a_connection_that_has_failed_is_not_used_again() {
        for (pieces, is_expected) in [
            (&[][..], (|error| matches!(error, ConnectionError::Closed)) as fn(_) -> bool),
            (&["$100\r\nab"], |error| matches!(error, ConnectionError::Closed)),
            (&["HTTP/1.1 400 Bad Request\r\n\r\n"], |error| {
                matches!(error, ConnectionError::Malformed(_))
            }),
            // More than was asked for: the next command would get it as its reply.
            (&["+PONG\r\n+PONG\r\n"], |error| matches!(error, ConnectionError::Unexpected)),
            (&["+PONG\r\n+P"], |error| matches!(error, ConnectionError::Unexpected)),
        ] {
            let (result, mut connection) = answered(pieces);
            let error = result.unwrap_err();
            let text = format!("{pieces:?}: {error:?}");
            assert!(is_expected(error), "{text}");
            assert!(is_unusable(&mut connection), "{text}");
        }
    }

    #[test]
    fn an_error_is_a_reply_and_no_failure() {
        let (result, _) = answered(&["-OOM full\r\n"]);
        assert!(result.unwrap()[0].is_error(ErrorKind::OutOfMemory));
    }

    #[test]
    fn a_server_that_says_a_byte_now_and_then_does_not_prolong_it() {
        let (address, thread) = server("", move |mut stream| {
            commands(&mut stream, 2);
            stream.write_all(READY.as_bytes()).unwrap();
            commands(&mut stream, 1);
            stream.write_all(b"$1000\r\n").unwrap();
            // Many times as long as the client waits; it would be a reply in the end.
            for byte in [b'a'; 1000].into_iter().chain(*b"\r\n") {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        let options = ConnectOptions { reply_timeout: Duration::from_millis(100), ..options() };
        let mut connection = Connection::connect(&address, &options).unwrap();
        let mut pipeline = Pipeline::new();
        pipeline.push(["PING"]);
        assert!(matches!(connection.exchange(&pipeline), Err(ConnectionError::TimedOut)));
        assert!(is_unusable(&mut connection));
        thread.join().unwrap();
    }

    #[test]
    fn a_server_that_takes_nothing_and_one_that_is_not_there_are_told() {
        let (address, thread) = server("", |stream| stream);
        let soon = ConnectOptions { connect_timeout: Duration::from_millis(50), ..options() };
        let silent = Connection::connect(&address, &soon);
        assert!(matches!(silent, Err(ConnectionError::TimedOut)));
        drop(thread.join().unwrap());
        // Nobody listens there any more.
        let gone = Connection::connect(&address, &options());
        assert!(matches!(gone, Err(ConnectionError::Connect(_))));
        let nowhere = ServerAddress::parse("unix:/nowhere/at/all").unwrap();
        let nowhere = Connection::connect(&nowhere, &options());
        assert!(matches!(nowhere, Err(ConnectionError::Connect(_))));
    }
}
