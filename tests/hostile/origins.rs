//! Pages of other sites: `--allowed-origins`.

use crate::client::upgrade;
use crate::yard::{BYSTANDERS, Talks, Yard, defaults};
use revolve::{AllowedOrigins, Config, Origin};

with_both_applications! {
    a_page_from_elsewhere_is_403,
    by_default_any_page_may,
}

fn from(origin: &str) -> String {
    let field = if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
    upgrade("").replace("Host: localhost\r\n", &format!("Host: localhost\r\n{field}"))
}

fn a_page_from_elsewhere_is_403<A: Talks>() {
    let origins = ["https://example.com", "http://localhost:3000", "null"];
    let origins = origins.map(|text| Origin::parse(text).unwrap());
    let allowed_origins = AllowedOrigins::Only(origins.to_vec());
    let mut yard = Yard::<A>::with(Config { allowed_origins, ..defaults() });
    yard.begin_watch();
    let mut refused = 0;
    for (origin, allowed) in [
        ("https://example.com", true),
        ("https://EXAMPLE.com", true),
        ("http://localhost:3000", true),
        ("null", true),
        // No browser: it could have sent anything.
        ("", true),
        ("https://example.com.evil.example", false),
        ("https://evil.example", false),
        ("http://example.com", false),
        ("https://example.com:8443", false),
        ("http://localhost", false),
        ("NULL, https://example.com", false),
        ("https://example.com\r\nOrigin: https://evil.example", false),
    ] {
        let mut stranger = yard.connect();
        stranger.send(from(origin));
        yard.turns(2);
        let answer = stranger.text();
        let status = if allowed { "101" } else { "403" };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}\n{answer}");
        assert!(!answer.contains("evil"), "nothing is sent back: {answer}");
        refused += u64::from(!allowed);
        assert_eq!(yard.metric("revolve_rejected_total", "origin_not_allowed"), refused);
        stranger.hang_up();
        yard.turns(4);
        assert!(stranger.is_released());
        yard.only_bystanders_are_left();
    }
    yard.bystanders_went_on();
}

fn by_default_any_page_may<A: Talks>() {
    let mut yard = Yard::<A>::new();
    for origin in ["https://anywhere.example", "null", "nonsense"] {
        let mut stranger = yard.connect();
        stranger.send(from(origin));
        yard.turns(2);
        assert!(stranger.text().starts_with("HTTP/1.1 101 "), "{origin}");
        stranger.reset();
        yard.turns(2);
    }
    assert_eq!(yard.metrics().websockets.get(), BYSTANDERS as u64);
}
