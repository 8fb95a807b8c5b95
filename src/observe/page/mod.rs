//! The live page: one document that asks for nothing from anywhere but this server.
//!
//! `page.html`, `page.css` and the three scripts are joined here. Who may see it is `admission`'s to say;
//! `figures` writes what it shows of the reactors, `shard/watching.rs` sends that. Called by
//! `http` and the shard.
//!
//! Invariant: the browser runs the script and applies the style whose hashes stand in [`FIELDS`],
//! and nothing else; a test compares them.
//!
//! Next: `admission`: who may see it.

mod admission;
pub mod figures;

pub use admission::{NotAdmitted, admit};

/// Where the page's figures are: a WebSocket.
pub const FIGURES_PATH: &str = "/ws/stats";

const MARKUP: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// One module, so that they share their names and nothing else sees them.
const SCRIPT: &str =
    concat!(include_str!("words.js"), include_str!("client.js"), include_str!("reactors.js"),);

/// The header fields that hold the page to what it is. `connect-src 'self'` covers `ws:` and `wss:`
/// of this origin (CSP 3, section 6.7.2.8); Trusted Types without a policy leave the script no way
/// to turn text into markup.
pub const FIELDS: &str = concat!(
    "Content-Security-Policy: default-src 'none'; ",
    "script-src 'sha256-Csy1wvYV9J0QhYVqv1yJOdqhtnlXHJd8GQl5VdP/bJw='; ",
    "style-src 'sha256-yUnjAORQtUKcH3u6yp2h001VJu5CcwMBVJRdB7oXfBw='; ",
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; ",
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'\r\n",
    "X-Content-Type-Options: nosniff\r\n",
    "X-Frame-Options: DENY\r\n",
    "Referrer-Policy: no-referrer\r\n",
    "Cross-Origin-Opener-Policy: same-origin\r\n",
    "Cross-Origin-Resource-Policy: same-origin\r\n",
);

/// The document, for a server whose WebSocket endpoint is at `ws_path`.
#[must_use]
pub fn html(ws_path: &str) -> String {
    // The path last: nothing is looked for in what an operator chose.
    MARKUP
        .replacen("/* style */", STYLE, 1)
        .replacen("/* script */", SCRIPT, 1)
        .replacen("{version}", env!("CARGO_PKG_VERSION"), 1)
        // Of `/rooms/*` the path that ends before the asterisk.
        .replacen("{ws-path}", &escaped(ws_path.trim_end_matches('*')), 1)
}

/// Text as it may stand in an attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            plain => escaped.push(plain),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_hashes_are_those_of_the_files() {
        for (directive, file, text) in
            [("script-src", "a script", SCRIPT), ("style-src", "page.css", STYLE)]
        {
            let hash = data_encoding::BASE64.encode(&Sha256::digest(text));
            let source = format!("{directive} 'sha256-{hash}'; ");
            assert!(FIELDS.contains(&source), "{file} has changed; now: {source}");
        }
    }

    #[test]
    fn the_document_is_put_together_once_and_asks_for_nothing() {
        let page = html("/ws/\"<'&>");
        for (begin, text, end) in
            [("<style>", STYLE, "</style>"), ("<script type=\"module\">", SCRIPT, "</script>")]
        {
            assert_eq!(page.matches(&format!("{begin}{text}{end}")).count(), 1, "{begin}");
            assert!(!text.contains(end), "it would end in its middle");
        }
        assert!(page.contains("data-ws-path=\"/ws/&quot;&lt;&#39;&amp;&gt;\""), "{}", &page[..500]);
        assert!(html("/rooms/*").contains("data-ws-path=\"/rooms/\""));
        assert!(page.contains(concat!("data-version=\"", env!("CARGO_PKG_VERSION"), "\"")));
        for outside in ["http://", "https://", "src=", "@import", "url(", "innerHTML", "style="] {
            // The namespace of SVG is a name, not an address.
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_fields_are_whole_lines() {
        assert!(FIELDS.ends_with("\r\n"));
        assert!(FIELDS.split_terminator("\r\n").all(|line| line.contains(": ")), "{FIELDS}");
    }
}
