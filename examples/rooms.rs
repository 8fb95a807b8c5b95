//! Rooms with presence: all in a room are told who is there, whichever reactor serves them.
//!
//! ```text
//! cargo run --example rooms              # or with a port: cargo run --example rooms -- 9010
//! websocat "ws://127.0.0.1:9010/rooms/kitchen?name=Ann"   # once for each who takes part
//! ```
//!
//! A room lives on one reactor, which its name decides. What happens in it is posted there, so all hear the
//! same in the same order, and nothing is locked. The server runs until you press Enter, or stdin closes.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::collections::HashMap;

use revolve::{
    Acceptance, Application, CloseReason, Config, ConnectionId, Context, Message, ReactorContext,
    Refusal, Server, Upgrade, owner_of,
};

/// The rooms that live on this reactor, and the names of those in them.
#[derive(Default)]
pub(crate) struct Rooms(HashMap<String, HashMap<ConnectionId, String>>);

#[derive(Clone, Default)]
pub(crate) struct Place {
    room: String,
    name: String,
}

type Here<'a> = ReactorContext<'a, Rooms>;

impl Rooms {
    /// Somebody comes or goes: all in the room are told who is there now.
    fn note(&mut self, cx: &mut Here<'_>, id: ConnectionId, at: Place, is_there: bool) {
        let members = self.0.entry(at.room.clone()).or_default();
        match is_there {
            true => members.insert(id, at.name),
            false => members.remove(&id),
        };
        let mut names: Vec<&str> = members.values().map(String::as_str).collect();
        names.sort_unstable();
        let text = format!("here: {}", names.join(", "));
        if members.is_empty() {
            self.0.remove(&at.room);
        }
        self.tell(cx, &at.room, &text);
    }

    fn tell(&self, cx: &mut Here<'_>, room: &str, text: &str) {
        let members = self.0.get(room).into_iter().flat_map(HashMap::keys);
        members.for_each(|&member| cx.send_text_to(member, text));
    }
}

impl Application for Rooms {
    type Session = ();
    type Connection = Place;

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let room = upgrade.path().trim_start_matches("/rooms/").to_owned();
        let name =
            upgrade.parameter("name").ok_or(Refusal::new::<400>("who are you? ?name=Ann"))?;
        let place = Place { room, name: name.into_owned() };
        Ok(upgrade.accept().then(|_, cx| *cx.connection_mut() = place))
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        let (id, place) = (cx.connection_id(), cx.connection_mut().clone());
        cx.post(owner_of(&place.room, cx.reactors()), move |rooms, cx| {
            rooms.note(cx, id, place, true)
        });
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return cx.close(1003, "text only, please") };
        let Place { room, name } = cx.connection_mut().clone();
        let text = format!("{name}: {text}");
        cx.post(owner_of(&room, cx.reactors()), move |rooms, cx| rooms.tell(cx, &room, &text));
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, _: CloseReason) {
        let (id, place) = (cx.connection_id(), cx.connection_mut().clone());
        cx.post(owner_of(&place.room, cx.reactors()), move |rooms, cx| {
            rooms.note(cx, id, place, false)
        });
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or("9010".to_owned()).parse()?;
    // Everyone gets a copy of every message, so none may be large.
    let config = Config { ws_path: "/rooms/*".to_owned(), ws_max_size: 4096, ..Config::default() };
    let server = Server::builder().config(config).port(port).serve(|_| Rooms::default())?;
    println!("ws://{}/rooms/kitchen (Enter ends it)", server.addresses()[0]);
    std::io::stdin().read_line(&mut String::new())?;
    server.shutdown();
    server.join();
    Ok(())
}
