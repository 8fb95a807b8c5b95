//! tokio-rustls under tokio-tungstenite, on tokio's single-threaded runtime: an echo over TLS.
//!
//! Tuned as `tokio-tungstenite.rs`. It has no sessions, limits or timers. `cargo bench --bench tls` starts it, with the files of
//! a certificate and its key.

use std::sync::Arc;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let [_, certfile, keyfile] = &std::env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: tls-tokio CERTFILE KEYFILE".into());
    };
    let chain = CertificateDer::pem_file_iter(certfile)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(keyfile)?)?;
    config.ticketer = ring::Ticketer::new()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move { serve(stream, acceptor).await.ok() });
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor) -> Result<(), Failed> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let mut socket = accept_async_with_config(stream, Some(config)).await?;
    while let Some(first) = socket.next().await {
        let mut next = Some(first);
        while let Some(message) = next {
            let message = message?;
            if message.is_text() || message.is_binary() {
                socket.feed(message).await?;
            }
            // Polled once: a message that is not here yet is awaited above, after the flush.
            next = socket.next().now_or_never().flatten();
        }
        socket.flush().await?;
    }
    Ok(())
}
