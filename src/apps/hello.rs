//! What the daemon's applications tell of a session when it opens: its count in the 101, and the hello.
//!
//! The hello is a text message, for clients that cannot read the fields of a 101: a browser's script is
//! one. It is sent if the query asks for it, and before any other message: what an acceptance does at the
//! opening comes before `on_open`. Refuses no upgrade, and knows nothing of the messages that follow.
//! Called by all applications.
//!
//! Invariant: the 101 and the hello tell the count that the connection opens with.
//!
//! Next: [`crate::apps::counter`], a whole application in fifty lines.

use crate::application::{Acceptance, Application, Context, Refusal, Upgrade};

/// Accepts the upgrade, with the count, and with the hello if it is asked for.
pub(super) fn accept<A: Application>(upgrade: &Upgrade<'_, A>) -> Result<Acceptance<A>, Refusal> {
    // This is the count that the connection opens with. The counter counts in `on_message` alone, the
    // echo never, and no message is heard between here and the 101: an older connection of the session
    // is only closed, and neither application has an `on_close`. Where no session is found (a new client,
    // an expired session, an id that is not taken up), the table finds none either and makes one that has
    // counted nothing. Where the upgrade is refused after this, for a limit, there is no 101.
    let count = upgrade.session_count().unwrap_or(0);
    let accepted = upgrade.accept().header("X-Session-Count", &count.to_string())?;
    if !asks_for_hello(upgrade.query()) {
        return Ok(accepted);
    }
    Ok(accepted.then(|_, cx| say_hello(cx)))
}

/// `hello=1`, or an empty `session_id`. Of parameters with the same name the first counts, as for the
/// session's id. Values are compared as sent: `%31` is not 1, and what is not 1 asks for nothing.
fn asks_for_hello(query: &str) -> bool {
    let value_of = |name: &str| {
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    };
    value_of("hello") == Some("1") || value_of("session_id") == Some("")
}

/// Fewer than 200 bytes, so permessage-deflate leaves it as it is (`Limits::deflate_bytes_least`). The
/// characters of an id need no escape in JSON.
fn say_hello<A: Application>(cx: &mut Context<'_, A>) {
    let (id, count, resumed) = (cx.session_id(), cx.count(), cx.is_resumed());
    cx.send_text(&format!(r#"{{"session_id": "{id}", "count": {count}, "resumed": {resumed}}}"#));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hello_is_for_those_who_ask() {
        for (query, expected) in [
            ("hello=1", true),
            ("a=b&session_id=c&hello=1", true),
            ("hello=1&hello=0", true),
            ("session_id", true),
            ("session_id=", true),
            ("session_id=&session_id=a&hello=0", true),
            ("", false),
            ("hello", false),
            ("hello=", false),
            ("hello=0&hello=1", false),
            ("hello=11", false),
            ("hello=true", false),
            ("hello=%31", false),
            ("Hello=1", false),
            ("session_id=a&session_id=", false),
        ] {
            assert_eq!(asks_for_hello(query), expected, "{query}");
        }
    }
}
