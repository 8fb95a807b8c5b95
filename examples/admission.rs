//! Tokens that are checked slowly, before a client is let in.
//!
//! ```text
//! cargo run --example admission          # or with a port: cargo run --example admission -- 9012
//! websocat "ws://127.0.0.1:9012/members?token=ann-s3cret"
//! ```
//!
//! Whoever checks a token (a data base, an identity provider) takes its time. So that is done on another thread, and
//! the upgrade waits for it; the reactor serves the others meanwhile. A session belongs to the user who began
//! it: to know its id is not enough. The server runs until you press Enter, or until stdin closes.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::thread::sleep;
use std::time::Duration;

use revolve::{
    Acceptance, Application, Config, Context, CounterMetric, Message, ReactorContext, Refusal,
    Server, Upgrade,
};

#[derive(Default)]
pub(crate) struct Members {
    refused: Option<CounterMetric>,
}

/// Whose session it is. A new one is nobody's.
type Owner = Option<String>;

/// Stands for a request to whoever knows the tokens: slow, and now and then out of reach.
fn user_of(token: &str) -> Result<Owner, &'static str> {
    sleep(Duration::from_millis(50));
    match token.split_once('-') {
        Some(("nobody", _)) => Err("the tokens cannot be checked now"),
        Some((user, "s3cret")) => Ok(Some(user.to_owned())),
        _ => Ok(None),
    }
}

impl Members {
    /// The answer, when the token has been checked.
    fn decide(
        &mut self,
        upgrade: &Upgrade<'_, Self>,
        checked: Result<Owner, &'static str>,
    ) -> Result<Acceptance<Self>, Refusal> {
        let refusal = match checked {
            Err(why) => Refusal::json_error::<503>(why).header("Retry-After", "5")?,
            Ok(None) => Refusal::json_error::<401>("this token is not valid"),
            Ok(user) => match upgrade.session() {
                Some(owner) if *owner != user => Refusal::json_error::<403>("not your session"),
                _ => return Ok(upgrade.accept().then(|_, cx| *cx.session_mut() = user)),
            },
        };
        self.refused.iter().for_each(|refused| refused.add(1));
        Err(refusal)
    }
}

impl Application for Members {
    type Session = Owner;
    type Connection = ();

    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        self.refused = cx.counter("members_refused_total", "Upgrades refused.").ok();
    }

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let bearer =
            upgrade.header("authorization").and_then(|field| field.strip_prefix("Bearer "));
        let token = bearer.map(str::to_owned).or(upgrade.parameter("token").map(Into::into));
        let token = token.ok_or_else(|| Refusal::json_error::<401>("send a token"))?;
        upgrade.defer(move || user_of(&token), Members::decide)
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return cx.close(1003, "text only, please") };
        let (count, user) = (cx.count_message(), cx.session().as_deref().unwrap_or_default());
        let answer = format!("{user}, your message {count}: {text}");
        cx.send_text(&answer);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or("9012".to_owned()).parse()?;
    let config = Config { ws_path: "/members".to_owned(), ..Config::default() };
    let server = Server::builder().config(config).port(port).serve(|_| Members::default())?;
    println!("ws://{}/members (Enter ends it)", server.addresses()[0]);
    std::io::stdin().read_line(&mut String::new())?;
    server.shutdown();
    server.join();
    Ok(())
}
