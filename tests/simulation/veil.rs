//! A client's TLS: rustls's own client, between what a client says and what goes on its wire.
//!
//! Decides nothing: how much of it is sent at once, and when, is the client's to say. In a build without TLS there
//! is none.

#[cfg(not(feature = "tls"))]
#[allow(unused_imports, reason = "of the fuzz targets only that for TLS needs a server of it")]
pub use absent::{Veil, server};
#[cfg(feature = "tls")]
pub use present::{Veil, server};

#[cfg(feature = "tls")]
mod present {
    use std::cell::RefCell;
    use std::fmt;
    use std::io::{Read, Write};
    use std::sync::Arc;

    use revolve::config::TlsFiles;
    use revolve::transport::tls::TlsAcceptor;
    use rustls::client::Resumption;
    use rustls::crypto::ring;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, version};

    /// Of the product's crate, or of the fuzzer's within it.
    fn path(name: &str) -> String {
        let root = env!("CARGO_MANIFEST_DIR").trim_end_matches("/fuzz");
        format!("{root}/tests/tls/certificates/{name}")
    }

    /// The server's side: all keys and signatures of Ed25519 are of one length, so the lengths of what is sent depend on
    /// the seed alone.
    pub fn server() -> Option<Arc<TlsAcceptor>> {
        let files = TlsFiles {
            certfiles: vec![path("ed25519.pem").into()],
            keyfiles: vec![path("ed25519.key").into()],
            ..TlsFiles::default()
        };
        // A world begins: who resumed in the one before must not change it.
        CONFIGS.with(|configs| *configs.borrow_mut() = fresh());
        Some(Arc::new(TlsAcceptor::load(&files).expect("the files of the tests are in order")))
    }

    /// One connection's.
    pub struct Veil {
        tls: ClientConnection,
        /// Ciphertext that is not on the wire yet.
        unsent: Vec<u8>,
        has_heard_goodbye: bool,
        has_left: bool,
    }

    impl fmt::Debug for Veil {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let state = (self.tls.is_handshaking(), self.unsent.len(), self.has_heard_goodbye);
            f.debug_tuple("Veil").field(&state).finish()
        }
    }

    /// Of TLS 1.3 and 1.2.
    type Configs = [Arc<ClientConfig>; 2];

    thread_local! {
        /// The clients of a world have one store of tickets: some of them resume.
        static CONFIGS: RefCell<Configs> = RefCell::new(fresh());
    }

    fn fresh() -> Configs {
        [&version::TLS13, &version::TLS12].map(|version| {
            let mut roots = RootCertStore::empty();
            let authority = CertificateDer::from_pem_file(path("ca.pem")).expect("an authority");
            roots.add(authority).expect("an authority");
            let mut config =
                ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                    .with_protocol_versions(&[version])
                    .expect("a version of TLS")
                    .with_root_certificates(roots)
                    .with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            config.resumption = Resumption::in_memory_sessions(8);
            Arc::new(config)
        })
    }

    impl Veil {
        /// Of TLS 1.2 or 1.3, and of a client that resumes, if it can, or not.
        pub fn new(is_old: bool, resumes: bool) -> Option<Veil> {
            let config = CONFIGS.with(|configs| configs.borrow()[usize::from(is_old)].clone());
            let config = match resumes {
                true => config,
                false => {
                    let mut fresh = ClientConfig::clone(&config);
                    fresh.resumption = Resumption::disabled();
                    Arc::new(fresh)
                }
            };
            let name = "localhost".try_into().expect("a name");
            let mut tls = ClientConnection::new(config, name).expect("a client");
            tls.set_buffer_limit(None);
            let mut veil =
                Veil { tls, unsent: Vec::new(), has_heard_goodbye: false, has_left: false };
            veil.collect();
            Some(veil)
        }

        /// Says something, as one record or a few; before the handshake is over it waits for that.
        pub fn say(&mut self, plain: &[u8]) {
            self.tls.writer().write_all(plain).expect("there is room");
            self.collect();
        }

        /// Says close_notify.
        pub fn say_goodbye(&mut self) {
            self.has_left = self.tls.is_handshaking();
            self.tls.send_close_notify();
            self.collect();
        }

        /// How much of what it has said is to be sent.
        pub fn unsent(&self) -> usize {
            self.unsent.len()
        }

        /// Takes out some of that.
        pub fn take(&mut self, most: usize) -> Vec<u8> {
            let most = most.min(self.unsent.len());
            self.unsent.drain(..most).collect()
        }

        /// What it makes of something that came.
        pub fn hear(&mut self, mut cipher: &[u8]) -> Vec<u8> {
            let mut plain = Vec::new();
            while !cipher.is_empty() {
                self.tls.read_tls(&mut cipher).expect("there is room");
                let state = match self.tls.process_new_packets() {
                    // Who leaves in the middle of a handshake is told that this is against the rules.
                    Err(_) if self.has_left => return plain,
                    state => state.expect("the server keeps to the rules"),
                };
                self.has_heard_goodbye |= state.peer_has_closed();
                let mut piece = vec![0; state.plaintext_bytes_to_read()];
                self.tls.reader().read_exact(&mut piece).expect("it is there");
                plain.extend(piece);
            }
            self.collect();
            plain
        }

        pub fn is_shaking_hands(&self) -> bool {
            self.tls.is_handshaking()
        }

        pub fn has_heard_goodbye(&self) -> bool {
            self.has_heard_goodbye
        }

        fn collect(&mut self) {
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.unsent).expect("a vector takes all");
            }
        }
    }
}

#[cfg(not(feature = "tls"))]
mod absent {
    use std::sync::Arc;

    use revolve::transport::tls::TlsAcceptor;

    /// There is none.
    #[derive(Debug)]
    pub enum Veil {}

    /// There is none.
    pub fn server() -> Option<Arc<TlsAcceptor>> {
        None
    }

    impl Veil {
        pub fn new(_is_old: bool, _resumes: bool) -> Option<Veil> {
            None
        }

        pub fn say(&mut self, _plain: &[u8]) {
            match *self {}
        }

        pub fn say_goodbye(&mut self) {
            match *self {}
        }

        pub fn unsent(&self) -> usize {
            match *self {}
        }

        pub fn take(&mut self, _most: usize) -> Vec<u8> {
            match *self {}
        }

        pub fn hear(&mut self, _cipher: &[u8]) -> Vec<u8> {
            match *self {}
        }

        pub fn is_shaking_hands(&self) -> bool {
            match *self {}
        }

        pub fn has_heard_goodbye(&self) -> bool {
            match *self {}
        }
    }
}
