//! An application that holds its reactor for as long as a test wants.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::client::{PATIENCE, Raw, Running};
use revolve::{Application, Config, Context, Message};

/// Holds its reactor at the word "wait" until the test lets it go on; has "job" done elsewhere.
pub(crate) struct Gate {
    entered: Sender<()>,
    release: Arc<Mutex<Receiver<()>>>,
}

/// The test's end of it.
pub(crate) struct Key {
    has_entered: Receiver<()>,
    let_go: Sender<()>,
}

impl Gate {
    pub(crate) fn serve(config: Config) -> (Running, Key) {
        let (entered, has_entered) = channel();
        let (let_go, release) = channel();
        let release = Arc::new(Mutex::new(release));
        let server = Running::new(config, move |_| Gate {
            entered: entered.clone(),
            release: release.clone(),
        });
        (server, Key { has_entered, let_go })
    }
}

impl Key {
    /// Has the reactor of this client hold.
    pub(crate) fn hold(&self, client: &mut Raw) {
        client.say("wait");
        self.has_entered.recv_timeout(PATIENCE).unwrap();
    }

    /// Lets it go on.
    pub(crate) fn let_go(&self) {
        self.let_go.send(()).unwrap();
    }
}

impl Application for Gate {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        match message {
            Message::Text("wait") => {
                self.entered.send(()).unwrap();
                self.release.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            Message::Text("job") => {
                cx.offload(|| "done", |_, cx, answer| cx.send_text(answer)).unwrap();
                return;
            }
            _ => {}
        }
        cx.count_message();
        cx.send_text("heard");
    }
}
