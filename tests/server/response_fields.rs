//! The operator's header fields: on every response, once, and behind what frames it.

use revolve::config::ResponseFields;
use revolve::{
    Acceptance, Application, Config, Context, HttpRequest, HttpResponse, Message, NoResponse,
    ReactorContext, Refusal, Upgrade,
};

use super::client::{PATH, Running, config, get, upgrade};

/// Has a page at `/hello`, and refuses sessions of one name.
struct Doorkeeper;

impl Application for Doorkeeper {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        match upgrade.parameter("session_id").as_deref() {
            Some("nobody") => Err(Refusal::new::<403>("no")),
            _ => Ok(upgrade.accept().header("X-Mine", "yes")?),
        }
    }

    fn on_request(
        &mut self,
        _: &mut ReactorContext<'_, Self>,
        request: &HttpRequest<'_>,
    ) -> Result<HttpResponse, NoResponse> {
        match request.path() {
            "/hello" => Ok(HttpResponse::text::<200>("hello").header("X-Mine", "yes")?),
            _ => Err(NoResponse::NotFound),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
        cx.send_text("heard");
    }
}

fn with_fields() -> Config {
    let mut response_fields = ResponseFields::default();
    response_fields.add("X-Robots-Tag", "noindex").unwrap();
    response_fields.add_line("Server: \"ours\"; v=1").unwrap();
    Config { response_fields, ..config(1) }
}

#[test]
fn every_response_has_them() {
    let server = Running::new(with_fields(), |_| Doorkeeper);
    let figures = upgrade("").replace(&format!("{PATH}?"), "/ws/stats?");
    for (request, status) in [
        (get("/healthz"), 200),
        (get("/readyz"), 200),
        (get("/metrics"), 200),
        (get("/"), 200),
        (get("/hello"), 200),
        (get("/healthz").replace("GET", "OPTIONS"), 200),
        (get("/healthz").replace("GET", "POST"), 405),
        (get("/nothing"), 404),
        (get(PATH), 426),
        ("GET\r\n\r\n".to_owned(), 400),
        (upgrade("session_id=nobody"), 403),
        (upgrade("session_id=a"), 101),
        (figures, 101),
    ] {
        let mut raw = server.connect();
        raw.send(&request);
        let head = raw.head();
        assert_eq!(head.status, status, "{request}");
        // One that stood there twice would be told by `field`.
        assert_eq!(head.field("x-robots-tag"), "noindex", "{request}");
        assert_eq!(head.field("server"), "\"ours\"; v=1", "{request}");
    }
}

#[test]
fn what_stands_behind_them_is_where_it_was() {
    let server = Running::new(with_fields(), |_| Doorkeeper);
    let mut raw = server.connect();
    for _ in 0..2 {
        raw.send(get("/hello"));
        let response = raw.response();
        assert_eq!((response.head.field("x-mine"), response.body.as_str()), ("yes", "hello"));
    }
    raw.send(upgrade(""));
    let head = raw.head();
    assert_eq!((head.status, head.field("x-mine")), (101, "yes"));
    raw.say("hello");
    assert_eq!(raw.text(), "heard");
}
