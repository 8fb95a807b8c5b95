//! Plain requests that the application answers: content, methods, limits, panics, the drain.

use std::time::Duration;

use super::client::{Raw, Running, TEXT, config, frame, get, quiet_reactors};
use revolve::{
    Application, Config, Context, CounterMetric, Echo, GaugeMetric, HttpRequest, HttpResponse,
    Limits, Message, NoResponse, ReactorContext,
};

/// Keeps what it is told, and shows it.
#[derive(Default)]
struct Board {
    notes: Vec<Vec<u8>>,
    posts: Option<CounterMetric>,
    kept: Option<GaugeMetric>,
}

impl Application for Board {
    type Session = ();
    type Connection = ();
    const READS_BODIES: bool = true;

    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        self.posts = Some(cx.counter("board_posts_total", "Notes posted.").unwrap());
        self.kept = Some(cx.gauge("board_notes", "Notes kept.").unwrap());
    }

    fn on_request(
        &mut self,
        cx: &mut ReactorContext<'_, Self>,
        request: &HttpRequest<'_>,
    ) -> Result<HttpResponse, NoResponse> {
        match (request.method(), request.path()) {
            ("GET" | "HEAD", "/notes") => {
                let last = self.notes.last().cloned().unwrap_or_default();
                Ok(HttpResponse::bytes::<200>("application/octet-stream", last)?)
            }
            ("POST", "/notes") => {
                self.notes.push(request.body().to_vec());
                self.posts.as_ref().unwrap().add(1);
                self.kept.as_ref().unwrap().set(self.notes.len() as i64);
                let length = request.body().len();
                let by = request.cookie("name").unwrap_or("nobody");
                let answer = HttpResponse::json::<201>(format!("{{\"length\": {length}}}"));
                Ok(answer.header("Location", "/notes")?.header("X-By", by)?)
            }
            ("DELETE", "/notes") => {
                self.notes.clear();
                self.kept.as_ref().unwrap().set(0);
                Ok(HttpResponse::empty::<204>())
            }
            ("OPTIONS", "/notes") => Ok(HttpResponse::empty::<204>().header("Allow", "GET, POST")?),
            ("POST", "/tell") => {
                cx.broadcast_text(request.body_text().unwrap_or("?"));
                Ok(HttpResponse::empty::<202>())
            }
            ("GET", "/long") => Ok(HttpResponse::text::<200>("x".repeat(300_000))),
            ("GET", "/cached") => {
                Ok(HttpResponse::text::<200>("a").header("Cache-Control", "max-age=60")?)
            }
            ("GET", "/split") => Ok(HttpResponse::text::<200>("a").header("X", "a\r\nY: b")?),
            (_, "/panic") => panic!("as asked"),
            (_, "/notes") => {
                Ok(HttpResponse::json_error::<405>("not so").header("Allow", "GET, POST")?)
            }
            _ => Err(NoResponse::NotFound),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
        cx.send_text("heard");
    }
}

fn board(workers: usize) -> Running {
    Running::new(config(workers), |_| Board::default())
}

/// A request with content, and with further fields.
fn post(path: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    )
}

#[track_caller]
fn refused(raw: &mut Raw, status: u16, text: &str) {
    let response = raw.response();
    assert_eq!((response.head.status, response.body.as_str()), (status, text));
    assert_eq!(response.head.field("connection"), "close");
    raw.at_end();
}

#[test]
fn a_request_is_answered_and_the_connection_kept() {
    let server = board(1);
    let mut raw = server.connect();
    for note in ["first", "", "GET /healthz HTTP/1.1\r\n\r\n"] {
        raw.send(post("/notes", "Cookie: name=ann\r\n", note));
        let response = raw.response();
        assert_eq!(response.head.status, 201);
        assert_eq!(response.body, format!("{{\"length\": {}}}", note.len()));
        assert_eq!(response.head.field("content-type"), "application/json");
        assert_eq!(response.head.field("location"), "/notes");
        assert_eq!(response.head.field("x-by"), "ann");
        assert_eq!(response.head.field("cache-control"), "no-store");
        assert_eq!(response.head.field("connection"), "");
        raw.send(get("/notes"));
        assert_eq!(raw.response().body, note);
    }
    raw.send(get("/cached"));
    assert_eq!(raw.response().head.field("cache-control"), "max-age=60");
    // RFC 9110 8.6: no length stands in a 204.
    raw.send("DELETE /notes HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = raw.head();
    assert_eq!((head.status, head.field("content-length")), (204, ""));
    raw.send("GET /notes HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let response = raw.response();
    assert_eq!((response.head.status, response.head.field("connection")), (200, "keep-alive"));
    raw.send("GET /notes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(raw.response().head.field("connection"), "close");
    raw.at_end();
}

#[test]
fn it_does_not_matter_how_a_request_is_cut() {
    let server = board(1);
    let body = "0123456789".repeat(30);
    let request = post("/notes", "", &body);
    let head = request.len() - body.len();
    for cut in [1, head - 2, head, head + 1, head + 150, request.len() - 1] {
        let mut raw = server.connect();
        raw.send(&request[..cut]);
        std::thread::sleep(Duration::from_millis(5));
        raw.send(&request[cut..]);
        assert_eq!(raw.response().body, r#"{"length": 300}"#, "cut at {cut}");
    }
    let mut raw = server.connect();
    for _ in 0..2 {
        for byte in request.as_bytes() {
            raw.send([*byte]);
        }
        assert_eq!(raw.response().body, r#"{"length": 300}"#);
    }
    raw.send(get("/notes"));
    assert_eq!(raw.response().body, body);
    assert_eq!(server.metric("board_posts_total", ""), 8);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = board(1);
    let mut raw = server.connect();
    let requests = [
        post("/notes", "", "one"),
        get("/notes"),
        get("/healthz"),
        post("/notes", "", "twelve bytes"),
        get("/notes").replace("GET", "HEAD"),
        get("/notes"),
    ];
    raw.send(requests.concat());
    assert_eq!(raw.response().body, r#"{"length": 3}"#);
    assert_eq!(raw.response().body, "one");
    assert_eq!(raw.response().body, r#"{"status": "ok"}"#);
    assert_eq!(raw.response().body, r#"{"length": 12}"#);
    let head = raw.head();
    assert_eq!((head.status, head.field("content-length")), (200, "12"));
    assert_eq!(raw.response().body, "twelve bytes");
    // More than a cork of them, and more than the requests of a turn.
    raw.send(get("/long").repeat(70));
    for _ in 0..70 {
        assert_eq!(raw.response().body.len(), 300_000);
    }
    // A WebSocket opens behind a plain request.
    raw.send([post("/notes", "", "x"), super::client::upgrade("session_id=a")].concat());
    assert_eq!(raw.response().head.status, 201);
    assert_eq!(raw.head().status, 101);
    raw.send(frame(TEXT, "hello"));
    assert_eq!(raw.text(), "heard");
}

#[test]
fn methods_are_for_the_application_to_judge() {
    let server = board(1);
    let mut raw = server.connect();
    raw.send("OPTIONS /notes HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\n\r\n");
    let head = raw.head();
    assert_eq!((head.status, head.field("allow")), (204, "GET, POST"));
    for method in ["PUT", "PATCH", "BREW", "get"] {
        raw.send(get("/notes").replace("GET", method));
        let response = raw.response();
        assert_eq!((response.head.status, response.head.field("allow")), (405, "GET, POST"));
        assert_eq!(response.body, r#"{"error": "not so"}"#);
    }
    // The server's own paths stay its own, switched off or not; so does the path of the WebSocket.
    for path in ["/healthz", "/metrics", "/ws/chat/"] {
        let mut raw = server.connect();
        raw.send(post(path, "", ""));
        assert_eq!(raw.response().head.status, 405, "{path}");
        raw.at_end();
    }
    let off = Config { metrics: false, page: false, ..config(1) };
    let off = Running::new(off, |_| Board::default());
    for path in ["/metrics", "/", "/ws/stats"] {
        let mut raw = off.connect();
        raw.send(get(path));
        refused(&mut raw, 404, "no such path\n");
    }
    assert_eq!(off.metric("revolve_panics_total", ""), 0);
}

#[test]
fn content_has_a_limit_and_a_length() {
    let limits = Limits { request_body_bytes: 1000, ..Limits::default() };
    let server = Running::new(Config { limits, ..config(1) }, |_| Board::default());
    let mut raw = server.connect();
    raw.send(post("/notes", "", &"x".repeat(1000)));
    assert_eq!(raw.response().head.status, 201);
    raw.send(post("/notes", "", &"x".repeat(1001)));
    refused(&mut raw, 413, "the request body is too large\n");
    // Before a byte of it has come, and whoever waits for the word to go on.
    let mut raw = server.connect();
    raw.send("POST /notes HTTP/1.1\r\nHost: a\r\nContent-Length: 123456789012345678\r\nExpect: 100-continue\r\n\r\n");
    refused(&mut raw, 413, "the request body is too large\n");
    for fields in [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\nContent-Length: 3\r\n",
        "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut raw = server.connect();
        raw.send(format!("POST /notes HTTP/1.1\r\nHost: a\r\n{fields}\r\n3\r\nabc\r\n0\r\n\r\n"));
        let text = "a request body needs a Content-Length, and no Transfer-Encoding\n";
        refused(&mut raw, 411, text);
    }
    let mut raw = server.connect();
    raw.send(
        "POST /notes HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    );
    assert_eq!(raw.response().head.status, 400);
    raw.at_end();
    assert_eq!(server.metric("revolve_rejected_total", "body_too_large"), 2);
    assert_eq!(server.metric("revolve_rejected_total", "length_required"), 3);
    assert_eq!(server.metric("board_posts_total", ""), 1);
}

#[test]
fn the_longest_head_and_the_longest_content_fit() {
    let server = board(1);
    let limits = Limits::default();
    let without = post("/notes", "X: \r\n", &"x".repeat(limits.request_body_bytes));
    let padding = "y".repeat(limits.head_bytes - (without.len() - limits.request_body_bytes));
    let request = without.replace("X: \r\n", &format!("X: {padding}\r\n"));
    let mut raw = server.connect();
    // So that neither begins where a read does.
    raw.send([&post("/notes", "", "1"), "\r\n\r\n", &request, &request, &get("/notes")].concat());
    assert_eq!(raw.response().body, r#"{"length": 1}"#);
    for _ in 0..2 {
        assert_eq!(raw.response().body, r#"{"length": 32768}"#);
    }
    assert_eq!(raw.response().body.len(), limits.request_body_bytes);
}

#[test]
fn who_waits_to_be_told_is_told_to_go_on() {
    // RFC 9110 10.1.1.
    let server = board(1);
    let mut raw = server.connect();
    let request = post("/notes", "Expect: 100-Continue\r\n", "hello");
    for _ in 0..2 {
        raw.send(request.strip_suffix("hello").unwrap());
        raw.exactly("HTTP/1.1 100 Continue\r\n\r\n");
        raw.send("he");
        std::thread::sleep(Duration::from_millis(5));
        raw.send("llo");
        assert_eq!(raw.response().body, r#"{"length": 5}"#);
    }
    // Some of it has come: there is nothing to tell. Nor is there without content.
    raw.send(&request);
    assert_eq!(raw.response().body, r#"{"length": 5}"#);
    raw.send(&request[..request.len() - 1]);
    std::thread::sleep(Duration::from_millis(5));
    raw.send("o");
    assert_eq!(raw.response().body, r#"{"length": 5}"#);
    raw.send("POST /notes HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(raw.response().body, r#"{"length": 0}"#);
    // An HTTP/1.0 client does not know the word.
    raw.send("POST /notes HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    std::thread::sleep(Duration::from_millis(20));
    raw.send("ab");
    assert_eq!(raw.response().body, r#"{"length": 2}"#);
    raw.at_end();
}

#[test]
fn content_that_does_not_come_meets_the_deadline_of_the_request() {
    let hasty = Config { timeout_handshake: Duration::from_millis(200), ..config(1) };
    let server = Running::new(hasty, |_| Board::default());
    let mut raw = server.connect();
    // Also of a further request.
    raw.send(get("/notes"));
    assert_eq!(raw.response().head.status, 200);
    raw.send(post("/notes", "", "hello").strip_suffix("lo").unwrap());
    refused(&mut raw, 408, "the request body took too long\n");
    assert_eq!(server.metric("revolve_rejected_total", "body_timeout"), 1);
    assert_eq!(server.metric("board_posts_total", ""), 0);
    // A stream that ends in the middle of it is not answered.
    let mut raw = server.connect();
    raw.send(post("/notes", "", "hello").strip_suffix("lo").unwrap());
    raw.half_close();
    raw.at_end();
    assert_eq!(server.metric("board_posts_total", ""), 0);
}

#[test]
fn a_panic_is_a_500_and_harms_nobody_else() {
    quiet_reactors();
    let server = board(1);
    let mut witness = server.open("session_id=witness");
    let mut kept = server.connect();
    for method in ["GET", "POST"] {
        let mut raw = server.connect();
        raw.send([get("/notes"), get("/panic").replace("GET", method), get("/notes")].concat());
        assert_eq!(raw.response().head.status, 200, "what stood before it");
        refused(&mut raw, 500, "internal error\n");
    }
    let mut raw = server.connect();
    raw.send(get("/panic").replace("GET", "HEAD"));
    assert_eq!(raw.head().status, 500);
    raw.at_end();
    assert_eq!(server.metric("revolve_panics_total", ""), 3);
    // A field that is none is a defect too, but no panic.
    let mut raw = server.connect();
    raw.send(get("/split"));
    refused(&mut raw, 500, "internal error\n");
    assert_eq!(server.metric("revolve_panics_total", ""), 3);
    witness.say("x");
    assert_eq!(witness.text(), "heard");
    kept.send(get("/notes"));
    assert_eq!(kept.response().head.status, 200);
}

#[test]
fn a_request_is_broadcast_to_all_reactors() {
    let server = board(4);
    let mut clients: Vec<_> = (0..8).map(|n| server.open(&format!("session_id=c-{n}"))).collect();
    let mut raw = server.connect();
    raw.send(post("/tell", "", "dinner"));
    assert_eq!(raw.response().head.status, 202);
    for client in &mut clients {
        assert_eq!(client.text(), "dinner");
    }
}

#[test]
fn whichever_reactor_is_scraped_shows_all() {
    let server = board(3);
    for n in 0..12 {
        let mut raw = server.connect();
        raw.send(post("/notes", "", &n.to_string()));
        assert_eq!(raw.response().head.status, 201);
    }
    for _ in 0..6 {
        let mut raw = server.connect();
        raw.send(get("/metrics"));
        let page = raw.response().body;
        let (_, own) = page.split_once("# HELP board_notes Notes kept.\n").unwrap();
        assert!(own.starts_with("# TYPE board_notes gauge\nboard_notes{reactor=\"0\"} "), "{own}");
        assert_eq!(own.matches("board_posts_total{reactor=").count(), 3, "{own}");
        assert_eq!(super::client::metric(&page, "board_posts_total", "reactor"), 12);
        assert_eq!(super::client::metric(&page, "board_notes", "reactor"), 12);
    }
}

#[test]
fn a_draining_server_answers_who_is_still_there() {
    let server = board(1);
    let mut client = server.open("session_id=a");
    let mut raw = server.connect();
    raw.send(get("/notes"));
    assert_eq!(raw.response().head.status, 200);
    server.handle().shutdown();
    assert_eq!(client.close().0, 1001);
    // The WebSocket has not answered yet, so the drain goes on.
    raw.send(post("/notes", "", "late"));
    assert_eq!(raw.response().body, r#"{"length": 4}"#);
    client.send(super::client::close(1001));
    client.at_end();
    raw.at_end();
}

/// Answers without looking at content.
struct Greeter;

impl Application for Greeter {
    type Session = ();
    type Connection = ();

    fn on_request(
        &mut self,
        _: &mut ReactorContext<'_, Self>,
        request: &HttpRequest<'_>,
    ) -> Result<HttpResponse, NoResponse> {
        match request.path() {
            "/hello" => Ok(HttpResponse::text::<200>(format!("hello{}", request.body().len()))),
            _ => Err(NoResponse::NotFound),
        }
    }

    fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
}

#[test]
fn content_that_nobody_reads_ends_the_connection() {
    let server = Running::new(config(1), |_| Greeter);
    let mut raw = server.connect();
    raw.send(get("/hello"));
    assert_eq!(raw.response().head.field("connection"), "");
    // Answered when the head is there, however much is to follow.
    for fields in ["Content-Length: 1000000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut raw = server.connect();
        raw.send(format!("POST /hello HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let response = raw.response();
        assert_eq!((response.head.status, response.body.as_str()), (200, "hello0"));
        assert_eq!(response.head.field("connection"), "close");
        raw.at_end();
    }
}

#[test]
fn without_an_answer_of_the_applications_nothing_is_new() {
    let server = Running::new(config(1), |_| Echo);
    for request in [
        get("/notes"),
        post("/notes", "", &"x".repeat(100_000)),
        // None of these has its content yet, nor gets leave to send it.
        "POST /notes HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            .to_owned(),
        "POST /notes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        "OPTIONS /notes HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ] {
        let mut raw = server.connect();
        raw.send(&request);
        refused(&mut raw, 404, "no such path\n");
    }
    assert_eq!(server.metric("revolve_rejected_total", "not_found"), 5);
}
