//! What a certificate says of itself: whose it is, and until when. rustls checks certificates, and tells neither.
//!
//! A reader of DER (X.690) that follows the few fields of a certificate (RFC 5280 4.1) which lead there, and writes the
//! subject as RFC 4514 says. It verifies nothing: what it reads is our own certificate, or a client's that has been
//! verified. Called by `session` and `acceptor`.
//!
//! Invariant: whatever bytes it is given, it reads each once, and never past their end.
//!
//! Next: `session`, the codec.

use std::fmt::Write as _;

/// Tags of DER.
const BOOLEAN_OR_LESS: u8 = 0x01;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const T61_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const BMP_STRING: u8 = 0x1e;
/// The version of a certificate: `[0]`, explicit.
const VERSION: u8 = 0xa0;

/// The longest subject that is told, in bytes of text. RFC 5280's appendix bounds each attribute at 64 or 128
/// characters, so a subject of a dozen fits.
const SUBJECT_MOST: usize = 2048;

/// The attributes that have names in RFC 4514 3, and two that are common beside them.
const NAMES: [(&[u8], &str); 11] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01], "UID"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01], "emailAddress"),
];

/// What is read of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    /// Whose it is, as text (RFC 4514): the most specific attribute first.
    pub(super) subject: String,
    /// From when it is valid, in seconds of 1970.
    pub(super) not_before: i64,
    /// When it expires, in seconds of 1970.
    pub(super) not_after: i64,
}

impl Certificate {
    /// `None` if it is no certificate, or its subject is too long to be told.
    pub(super) fn read(der: &[u8]) -> Option<Certificate> {
        let mut certificate = Reader(Reader(der).expect(SEQUENCE)?);
        let mut fields = Reader(certificate.expect(SEQUENCE)?);
        if fields.0.first() == Some(&VERSION) {
            fields.expect(VERSION)?;
        }
        // Serial number, signature's algorithm, issuer.
        fields.any()?;
        fields.expect(SEQUENCE)?;
        fields.expect(SEQUENCE)?;
        let mut validity = Reader(fields.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.any()?)?, time(validity.any()?)?);
        let subject = subject(fields.expect(SEQUENCE)?)?;
        Some(Certificate { subject, not_before, not_after })
    }
}

/// What of DER is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next value: its tag and its content.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        // Tags of several bytes are nowhere in what is read here.
        if tag & 0x1f == 0x1f || tag < BOOLEAN_OR_LESS {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // DER has the shortest form alone, and no certificate has 16 MiB.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = bytes.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next value, which has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.any().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

/// A time of RFC 5280 4.1.2.5, in seconds of 1970: `YYMMDDhhmmssZ` up to 2049, `YYYYMMDDhhmmssZ` after it.
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        // RFC 5280 4.1.2.5.1: from 50 on it is the 20th century.
        (UTC_TIME, 12) => match number(&digits[..2]) {
            year @ 50.. => (1900 + year, &digits[2..]),
            year => (2000 + year, &digits[2..]),
        },
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| number(&rest[at..at + 2]));
    let is_time = (1..=12).contains(&month) && (1..=31).contains(&day);
    (is_time && hour < 24 && minute < 60 && second < 60)
        .then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970 to a day of the Gregorian calendar. The year is reckoned from March, so that a leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + of_year - 719_468
}

/// A name as text: its parts from the last to the first (RFC 4514 2.1).
fn subject(name: &[u8]) -> Option<String> {
    let (mut sets, mut rest) = (Vec::new(), Reader(name));
    while !rest.0.is_empty() {
        sets.push(rest.expect(SET)?);
    }
    let mut text = String::new();
    for set in sets.into_iter().rev() {
        let mut attributes = Reader(set);
        let mut separator = if text.is_empty() { "" } else { "," };
        while !attributes.0.is_empty() {
            let mut attribute = Reader(attributes.expect(SEQUENCE)?);
            let kind = attribute.expect(OBJECT_ID)?;
            text.push_str(separator);
            write_attribute(kind, attribute.any()?, &mut text);
            separator = "+";
            if text.len() > SUBJECT_MOST {
                return None;
            }
        }
    }
    Some(text)
}

fn write_attribute(kind: &[u8], (tag, value): (u8, &[u8]), text: &mut String) {
    match NAMES.iter().find(|(id, _)| *id == kind) {
        Some((_, name)) => text.push_str(name),
        None => write_object_id(kind, text),
    }
    text.push('=');
    let decoded = match tag {
        UTF8_STRING | PRINTABLE_STRING | IA5_STRING => {
            std::str::from_utf8(value).ok().map(str::to_owned)
        }
        // Latin-1, as everybody writes it.
        T61_STRING => Some(value.iter().map(|&byte| char::from(byte)).collect()),
        BMP_STRING if value.len().is_multiple_of(2) => {
            let units = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<String, _>>().ok()
        }
        _ => None,
    };
    match decoded {
        Some(decoded) => escape(&decoded, text),
        // RFC 4514 2.4: what is no text stands in hexadecimal digits.
        None => {
            text.push('#');
            value.iter().for_each(|byte| _ = write!(text, "{byte:02x}"));
        }
    }
}

/// `1.2.840.…`: base 128, and the first number is two (X.690 8.19).
fn write_object_id(id: &[u8], text: &mut String) {
    let mut number = 0_u64;
    let mut is_first = true;
    for &byte in id {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if is_first {
            let root = (number / 40).min(2);
            _ = write!(text, "{root}.{}", number - root * 40);
        } else {
            _ = write!(text, ".{number}");
        }
        (number, is_first) = (0, false);
    }
}

/// RFC 4514 2.4; and control characters too, so that a subject is one line.
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            _ if character.is_control() => {
                let mut bytes = [0; 4];
                let encoded = character.encode_utf8(&mut bytes);
                encoded.bytes().for_each(|byte| _ = write!(text, "\\{byte:02x}"));
            }
            _ => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    fn der(name: &str) -> CertificateDer<'static> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/certificates/");
        CertificateDer::from_pem_file(format!("{folder}{name}.pem")).unwrap()
    }

    #[test]
    fn it_says_what_openssl_says() {
        // openssl x509 -noout -subject -nameopt RFC2253 -dates
        let client = Certificate::read(&der("client")).unwrap();
        assert_eq!(client.subject, r#"CN=Ada \"L\",OU=a\+b,O=Example\, Inc.,C=DE"#);
        let (of_2020, of_2120) = (1_577_836_800, 4_733_510_400);
        assert_eq!((client.not_before, client.not_after), (of_2020, of_2120));
        let expired = Certificate::read(&der("expired")).unwrap();
        assert_eq!(expired.not_after, 1_609_459_200);
        assert_eq!(Certificate::read(&der("rsa")).unwrap().subject, "CN=localhost");
    }

    #[test]
    fn whatever_is_cut_or_changed_is_refused_or_read() {
        let whole = der("client").to_vec();
        for length in 0..whole.len() {
            assert_eq!(Certificate::read(&whole[..length]), None, "{length}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                if let Some(read) = Certificate::read(&damaged) {
                    assert!(!read.subject.chars().any(char::is_control), "{at}.{bit}: {read:?}");
                }
            }
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "000229235959Z", Some(951_868_799)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "20500101000000Z", None),
            (UTC_TIME, "001301000000Z", None),
            (UTC_TIME, "0001010000+00", None),
            (UTC_TIME, "000101000000", None),
            (GENERALIZED_TIME, "", None),
        ] {
            assert_eq!(time((tag, text.as_bytes())), expected, "{text}");
        }
    }

    #[test]
    fn a_subject_is_one_line_whatever_it_contains() {
        let attribute = |kind: &[u8], tag: u8, value: &[u8]| {
            let id = [&[OBJECT_ID, kind.len() as u8], kind].concat();
            let value = [&[tag, value.len() as u8], value].concat();
            [&[SEQUENCE, (id.len() + value.len()) as u8][..], &id, &value].concat()
        };
        let set = |attributes: &[Vec<u8>]| {
            let content = attributes.concat();
            [&[SET, content.len() as u8][..], &content].concat()
        };
        let cn = &[0x55, 4, 3];
        for (value, expected) in [
            (" a ", r"CN=\ a\ "),
            ("#a#", r"CN=\#a#"),
            ("a\nb\0", r"CN=a\0ab\00"),
            (r#"a,b+c"d\e<f>g;h"#, r#"CN=a\,b\+c\"d\\e\<f\>g\;h"#),
            ("Zürich", "CN=Zürich"),
            ("", "CN="),
        ] {
            let name = set(&[attribute(cn, UTF8_STRING, value.as_bytes())]);
            assert_eq!(subject(&name).as_deref(), Some(expected));
        }
        let two = set(&[attribute(cn, UTF8_STRING, b"a"), attribute(&[0x55, 4, 11], 0x13, b"b")]);
        let country = set(&[attribute(&[0x55, 4, 6], PRINTABLE_STRING, b"DE")]);
        assert_eq!(subject(&[country, two].concat()).as_deref(), Some("CN=a+OU=b,C=DE"));
        for (tag, value, expected) in [
            (BMP_STRING, &[0x00, 0x5a, 0x00, 0xfc][..], "CN=Zü"),
            (T61_STRING, &[0x5a, 0xfc], "CN=Zü"),
            (UTF8_STRING, &[0xff], "CN=#ff"),
            (0x04, &[1, 2], "CN=#0102"),
        ] {
            assert_eq!(subject(&set(&[attribute(cn, tag, value)])).as_deref(), Some(expected));
        }
        let other = set(&[attribute(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 9], UTF8_STRING, b"x")]);
        assert_eq!(subject(&other).as_deref(), Some("1.2.840.113549.9=x"));
        let long = vec![b'a'; 120];
        let many = set(&[attribute(cn, UTF8_STRING, &long)]).repeat(20);
        assert_eq!(subject(&many), None, "too long to be told");
    }
}
