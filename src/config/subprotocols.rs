//! In which subprotocol a WebSocket opens where the application chooses none: `--ws-subprotocols`.
//!
//! A value and a choice only; `application/admission.rs` asks at each upgrade.
//!
//! Invariant: what is chosen was offered by this client, and is a token, so it can stand in a header
//! field.
//!
//! Next: `response_fields`: header fields of the operator and of the application.

use std::fmt;

/// What `--ws-subprotocols` takes, as the end of a sentence.
pub const SUBPROTOCOLS_ALLOWED: &str = "any or a list of names such as chat.v2,chat";

/// Subprotocols that are spoken (RFC 6455 1.9). A browser that offers some and is given none closes
/// the connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Subprotocols {
    /// None: whatever is offered is left open, unless the application chooses.
    #[default]
    None,
    /// The first of these that the client offers. The server's order decides: RFC 6455 4.2.2 leaves
    /// it to the server, and the one that comes first here is usually the newest.
    Listed(Vec<String>),
    /// The first that the client offers, whatever it is: for tools, and for servers that treat all
    /// alike.
    Any,
}

impl Subprotocols {
    /// Reads `any`, or names with commas between them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Subprotocols> {
        if text.eq_ignore_ascii_case("any") {
            return Some(Subprotocols::Any);
        }
        let names = text.split(',').map(|name| name.trim().to_owned()).collect();
        let listed = Subprotocols::Listed(names);
        listed.is_valid().then_some(listed)
    }

    /// Whether each name is a token and stands there once, and none is the word `any`, which among
    /// others would say something else than alone.
    #[must_use]
    pub(crate) fn is_valid(&self) -> bool {
        let Subprotocols::Listed(names) = self else { return true };
        let is_name = |(index, name): (usize, &String)| {
            is_token(name.as_bytes())
                && !name.eq_ignore_ascii_case("any")
                && !names[..index].contains(name)
        };
        !names.is_empty() && names.iter().enumerate().all(is_name)
    }

    /// The one to open in, if there is one in common with what `offered` makes. Names are
    /// case-sensitive.
    pub(crate) fn choose<'a, I: Iterator<Item = &'a str>>(
        &self,
        offered: impl Fn() -> I,
    ) -> Option<&'a str> {
        match self {
            Subprotocols::None => None,
            Subprotocols::Listed(names) => {
                names.iter().find_map(|name| offered().find(|offer| offer == name))
            }
            Subprotocols::Any => offered().find(|offer| is_token(offer.as_bytes())),
        }
    }
}

impl fmt::Display for Subprotocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subprotocols::None => f.write_str("none"),
            Subprotocols::Listed(names) => f.write_str(&names.join(",")),
            Subprotocols::Any => f.write_str("any"),
        }
    }
}

/// Whether it is a token (RFC 9110 5.6.2), as names of fields and of subprotocols are.
#[must_use]
pub(super) fn is_token(text: &[u8]) -> bool {
    let in_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(in_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tokens_or_any() {
        for (text, expected) in [
            ("chat.v2,chat", Some("chat.v2,chat")),
            (" chat , mqtt ", Some("chat,mqtt")),
            ("graphql-transport-ws", Some("graphql-transport-ws")),
            ("any", Some("any")),
            ("ANY", Some("any")),
            ("Chat,chat", Some("Chat,chat")),
            ("anyone", Some("anyone")),
            ("", None),
            ("chat,", None),
            ("chat,,mqtt", None),
            ("chat,chat", None),
            ("chat,any", None),
            ("a b", None),
            ("a/b", None),
            ("a\r\nX-Evil: 1", None),
            ("caf\u{e9}", None),
        ] {
            let shown = Subprotocols::parse(text).map(|subprotocols| subprotocols.to_string());
            assert_eq!(shown.as_deref(), expected, "{text:?}");
        }
        assert!(!Subprotocols::Listed(Vec::new()).is_valid());
        assert!(!Subprotocols::Listed(vec!["a b".to_owned()]).is_valid());
    }

    #[test]
    fn the_first_of_ours_that_is_offered_and_of_any_the_first_offered() {
        let ours = Subprotocols::parse("chat.v2,chat").unwrap();
        let cases: [(&[&str], Option<&str>, Option<&str>); 7] = [
            (&["chat.v2"], Some("chat.v2"), Some("chat.v2")),
            (&["chat", "chat.v2"], Some("chat.v2"), Some("chat")),
            (&["mqtt", "chat"], Some("chat"), Some("mqtt")),
            (&["mqtt"], None, Some("mqtt")),
            (&["CHAT"], None, Some("CHAT")),
            // What is no token can be nobody's subprotocol.
            (&["a b", "a\r\nb", "mqtt"], None, Some("mqtt")),
            (&[], None, None),
        ];
        for (offered, of_ours, of_any) in cases {
            let offer = || offered.iter().copied();
            assert_eq!(ours.choose(offer), of_ours, "{offered:?}");
            assert_eq!(Subprotocols::Any.choose(offer), of_any, "{offered:?}");
            assert_eq!(Subprotocols::None.choose(offer), None);
        }
    }
}
