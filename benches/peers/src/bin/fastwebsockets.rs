//! fastwebsockets on tokio's single-threaded runtime, after a handshake of our own (its `upgrade`
//! feature brings hyper, which would be measured with it).
//!
//! Tuned: `write_frame` hands every frame to the stream at once, so the stream gathers the replies
//! and writes them when the library asks for more bytes. It has no sessions, limits or timers. The
//! load bench starts it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use fastwebsockets::{FragmentCollector, Frame, OpCode, Role, WebSocket, WebSocketError};
use revolve_bench_peers::{Options, count_text, listen};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tungstenite::handshake::derive_accept_key;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let options = Options::from_arguments();
    let listener = TcpListener::from_std(listen()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A connection's error ends that connection: a dropped or closed peer is no news.
        tokio::spawn(async move { serve(stream, options.echo).await.ok() });
    }
}

async fn serve(mut stream: TcpStream, echo: bool) -> Result<(), WebSocketError> {
    handshake(&mut stream).await?;
    let gathered = Gathered(BufWriter::with_capacity(2048, stream));
    let mut socket = FragmentCollector::new(WebSocket::after_handshake(gathered, Role::Server));
    let mut count = 0;
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            // The echo of the close frame is written by the library, and sent by the flush.
            OpCode::Close => return Ok(socket.into_inner().0.flush().await?),
            OpCode::Text | OpCode::Binary if echo => socket.write_frame(frame).await?,
            OpCode::Text | OpCode::Binary => {
                count += 1;
                let text = count_text(count).into_bytes();
                socket.write_frame(Frame::text(text.into())).await?;
            }
            _ => {}
        }
    }
}

/// A stream that sends what was written to it before it reads again: one write an event.
struct Gathered(BufWriter<TcpStream>);

impl AsyncRead for Gathered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Reads exactly the request head: `peek` first, so that no byte of a frame behind it is taken.
async fn handshake(stream: &mut TcpStream) -> io::Result<()> {
    let (mut head, mut buffer) = (Vec::new(), [0; 2048]);
    let end = loop {
        let seen = stream.peek(&mut buffer).await?;
        let before = head.len();
        head.extend_from_slice(&buffer[..seen]);
        let end = head.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        if seen == 0 || head.len() > 8192 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let taken = end.unwrap_or(head.len()) - before;
        stream.read_exact(&mut buffer[..taken]).await?;
        if let Some(end) = end {
            break end;
        }
    };
    let text = std::str::from_utf8(&head[..end]).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut headers = text.lines().filter_map(|line| line.split_once(':'));
    let key = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let (_, key) = key.ok_or(io::ErrorKind::InvalidData)?;
    let accept = derive_accept_key(key.trim().as_bytes());
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(response.as_bytes()).await
}
