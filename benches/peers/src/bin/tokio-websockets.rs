//! tokio-websockets on tokio's single-threaded runtime.
//!
//! Tuned: while more messages are at hand the replies are gathered, because its stream flushes what
//! was fed before it reads on; then they are fed and flushed once. It has no sessions, limits or
//! timers. The load bench starts it.

use futures_util::{FutureExt, SinkExt, StreamExt};
use revolve_bench_peers::{Options, count_text, listen};
use tokio::net::{TcpListener, TcpStream};
use tokio_websockets::{Error, Message, ServerBuilder};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let options = Options::from_arguments();
    let listener = TcpListener::from_std(listen()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A connection's error ends that connection: a dropped or closed peer is no news.
        tokio::spawn(async move { serve(stream, options.echo).await.ok() });
    }
}

async fn serve(stream: TcpStream, echo: bool) -> Result<(), Error> {
    let (_, mut socket) = ServerBuilder::new().accept(stream).await?;
    let (mut count, mut replies) = (0, Vec::new());
    while let Some(first) = socket.next().await {
        let mut next = Some(first);
        while let Some(message) = next {
            let message = message?;
            if message.is_text() || message.is_binary() {
                count += 1;
                replies.push(if echo { message } else { Message::text(count_text(count)) });
            }
            // Polled once: a message that is not here yet is awaited above, after the flush.
            next = socket.next().now_or_never().flatten();
        }
        for reply in replies.drain(..) {
            socket.feed(reply).await?;
        }
        socket.flush().await?;
    }
    Ok(())
}
