//! What workers of Celery and RQ say of their tasks, and the JSON in it.
//!
//! Input: a byte that says how much is kept, then what a worker has written. The same bytes are taken for JSON, for a
//! stored result of Celery, for what RQ has deflated, and for a reply of Redis with a result of RQ.

use revolve::json::{JsonString, Kind, Value};
use revolve::resp::Decoder;
use revolve::tasks::{TaskOutcome, celery, inflate, rq};

pub(crate) fn run(data: &[u8]) {
    let Some((&most, written)) = data.split_first() else { return };
    let most = usize::from(most) * 16;
    if let Ok(text) = std::str::from_utf8(written)
        && let Ok(value) = Value::parse(text)
    {
        check_value(value, text);
    }
    check_outcome(celery::outcome(written));
    let inflated = inflate::inflate(written, most);
    assert!(inflated.is_none_or(|bytes| bytes.len() <= most));
    let mut decoder = Decoder::new(1 << 16).passing_over(most);
    decoder.feed(written);
    while let Ok(Some(reply)) = decoder.next_reply() {
        check_outcome(rq::outcome(&reply, 1 << 18));
    }
}

/// What stands in a value is JSON as well, and what a string says can be written again.
fn check_value(value: Value<'_>, text: &str) {
    assert_eq!(value.text(), text.trim_matches([' ', '\t', '\n', '\r']));
    for (name, member) in value.members() {
        assert_eq!(Value::parse(member.text()), Ok(member));
        assert!(value.member(&name).is_some());
    }
    let elements = value.elements().inspect(|element| {
        assert_eq!(Value::parse(element.text()), Ok(*element));
    });
    assert!(value.kind() == Kind::Array || elements.count() == 0);
    if let Some(said) = value.string() {
        let again = JsonString(&said).to_string();
        assert_eq!(Value::parse(&again).map(Value::string), Ok(Some(said)));
    }
}

/// What is called JSON is.
fn check_outcome(outcome: Option<TaskOutcome>) {
    if let Some(TaskOutcome::Success(json)) = &outcome {
        assert!(Value::parse(json).is_ok(), "{json}");
    }
}
