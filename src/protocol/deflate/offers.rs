//! What stands in `Sec-WebSocket-Extensions` (RFC 6455 9.1): the extensions a client offers, in its
//! order of preference, with their parameters. Knows no extension; [`super::params`] reads them.
//!
//! A quoted value must be a token once it is unescaped, and no token has a comma or a semicolon.
//! So a well-formed field can be split at those without looking for quotes, and what is left of a
//! quoted one that had them is malformed by itself.
//!
//! Next: `params`, which judges them.

use super::MalformedOffer;

/// One offer of an extension.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer<'a> {
    pub(super) name: &'a [u8],
    parameters: &'a [u8],
}

/// One parameter of an offer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: Option<Value<'a>>,
}

/// A parameter's value, perhaps with backslashes that were needless.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a>(&'a [u8]);

/// The offers in one field value. Elements of a list may be empty, and do not count (RFC 9110 5.6.1).
pub(super) fn offers(field: &[u8]) -> impl Iterator<Item = Result<Offer<'_>, MalformedOffer>> {
    let elements = field.split(|&byte| byte == b',').map(trimmed);
    elements.filter(|element| !element.is_empty()).map(|element| {
        let end = element.iter().position(|&byte| byte == b';').unwrap_or(element.len());
        let (name, parameters) = element.split_at(end);
        Ok(Offer { name: token(trimmed(name))?, parameters })
    })
}

impl<'a> Offer<'a> {
    /// Its parameters, in order.
    pub(super) fn parameters(&self) -> impl Iterator<Item = Result<Parameter<'a>, MalformedOffer>> {
        // In front of the first semicolon stands nothing.
        self.parameters.split(|&byte| byte == b';').skip(1).map(|parameter| {
            let Some(equals) = parameter.iter().position(|&byte| byte == b'=') else {
                return Ok(Parameter { name: token(trimmed(parameter))?, value: None });
            };
            let (name, value) = (trimmed(&parameter[..equals]), trimmed(&parameter[equals + 1..]));
            Ok(Parameter { name: token(name)?, value: Some(Value::of(value)?) })
        })
    }
}

impl<'a> Value<'a> {
    fn of(text: &'a [u8]) -> Result<Value<'a>, MalformedOffer> {
        let [b'"', quoted @ .., b'"'] = text else { return Ok(Value(token(text)?)) };
        let mut bytes = quoted.iter();
        while let Some(byte) = bytes.next() {
            let meant = if *byte == b'\\' { bytes.next() } else { Some(byte) };
            if !meant.is_some_and(|&byte| is_in_tokens(byte)) {
                return Err(MalformedOffer);
            }
        }
        if quoted.is_empty() { Err(MalformedOffer) } else { Ok(Value(quoted)) }
    }

    pub(super) fn is(&self, text: &str) -> bool {
        self.0.iter().filter(|&&byte| byte != b'\\').eq(text.as_bytes())
    }
}

fn token(text: &[u8]) -> Result<&[u8], MalformedOffer> {
    let is_token = !text.is_empty() && text.iter().all(|&byte| is_in_tokens(byte));
    if is_token { Ok(text) } else { Err(MalformedOffer) }
}

/// RFC 9110 5.6.2.
fn is_in_tokens(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Without the blanks and tabs that may stand around every separator.
fn trimmed(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(field: &str) -> Result<Vec<String>, MalformedOffer> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let parameter = |parameter: Result<Parameter<'_>, MalformedOffer>| {
            let Parameter { name, value } = parameter?;
            Ok(value.map_or(text(name), |value| format!("{}={}", text(name), text(value.0))))
        };
        let offer = |offer: Result<Offer<'_>, MalformedOffer>| {
            let offer = offer?;
            let parameters = offer.parameters().map(parameter).collect::<Result<Vec<_>, _>>()?;
            Ok([vec![text(offer.name)], parameters].concat().join(";"))
        };
        offers(field.as_bytes()).map(offer).collect()
    }

    #[test]
    fn what_follows_the_grammar_is_read() {
        for (field, offers) in [
            ("a", &["a"][..]),
            ("a, b", &["a", "b"]),
            (" ,a,, b ,\t", &["a", "b"]),
            ("a;b;c=d", &["a;b;c=d"]),
            ("a ; b = c\t;d = \"e\" , f", &["a;b=c;d=e", "f"]),
            (r#"a; b="1\0""#, &[r"a;b=1\0"]),
            ("", &[]),
        ] {
            assert_eq!(shown(field).unwrap(), offers, "{field}");
        }
    }

    #[test]
    fn what_does_not_is_malformed_wherever_it_stands() {
        for part in [
            ";",
            "=",
            "\"",
            "a b",
            "a;",
            "a;;b",
            "a;b=",
            "a;=b",
            "a=b",
            "a;b=c=d",
            "a;b=\"\"",
            "a;b=\"",
            "a;b=\"c",
            "a;b=c\"",
            "a;b=\"c d\"",
            "a;b=\"c\"d",
            r#"a;b="c\""#,
            r#"a;b="\""#,
            r#"a;b="c\"d""#,
            "a;b=\"1, 2\"",
            "a;b=\"1; 2\"",
            r#"a;b="1\, 2""#,
            "a;b c",
            "a;\"b\"",
            "a/b",
            "é",
        ] {
            for field in [part.to_owned(), format!("{part}, x"), format!("x; y, {part}")] {
                assert_eq!(shown(&field), Err(MalformedOffer), "{field}");
            }
        }
    }

    #[test]
    fn a_value_is_compared_as_it_is_meant() {
        for (value, is_10) in
            [("10", true), ("\"10\"", true), (r#""\10""#, true), ("010", false), ("1", false)]
        {
            let field = format!("a;b={value}");
            let offer = offers(field.as_bytes()).next().unwrap().unwrap();
            let parameter = offer.parameters().next().unwrap().unwrap();
            assert_eq!(parameter.value.unwrap().is("10"), is_10, "{value}");
        }
    }
}
