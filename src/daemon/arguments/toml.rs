//! The flat part of TOML 1.0 that a file of options needs, read into keys and values with their lines.
//!
//! Comments, bare and quoted keys, basic and literal strings, decimal numbers, booleans, and arrays of these over any
//! number of lines. What TOML has besides (tables, dotted keys, arrays in arrays, strings over several lines, dates,
//! other bases, `inf`) has no use for options, and is refused by its name. Knows no option and opens no file. Called by
//! `from_file`.
//!
//! Invariant: a text that is read here means the same to every reader of TOML; a test compares it with one.
//!
//! Next: `usage`: what is said about all that.

use std::collections::HashMap;

const NO_OPTION: &str = "this is no option; one is written name = value";

/// `key = value`.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, PartialEq)]
pub(super) enum Value {
    One(Scalar),
    /// Each with its line.
    List(Vec<(usize, Scalar)>),
}

#[derive(Debug, PartialEq)]
pub(super) enum Scalar {
    Text(String),
    /// As it was written, without underscores.
    Number(String),
    Truth(bool),
}

/// Why a text is not read, and where.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) why: String,
}

/// Reads a whole text.
///
/// # Errors
///
/// The first thing that is not of this part of TOML.
pub(super) fn read(text: &str) -> Result<Vec<Entry>, Fault> {
    let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut entries = Vec::new();
    let mut lines: HashMap<String, usize> = HashMap::new();
    loop {
        reader.skip_blank_lines()?;
        if reader.rest.is_empty() {
            return Ok(entries);
        }
        let line = reader.line;
        let key = reader.key()?;
        if let Some(before) = lines.insert(key.clone(), line) {
            return reader.fault(format!("{key:?} is set on line {before} already"));
        }
        let value = reader.value()?;
        reader.end_line()?;
        entries.push(Entry { key, line, value });
    }
}

/// What has not been read, and the line on which it begins.
struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn fault<T>(&self, why: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { line: self.line, why: why.into() })
    }

    fn take(&mut self, begin: &str) -> bool {
        let rest = self.rest.strip_prefix(begin);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// What is taken while the characters are so.
    fn take_while(&mut self, is_so: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is_so(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip_blanks(&mut self) {
        self.take_while(|c| matches!(c, ' ' | '\t'));
    }

    /// One end of a line, with the comment before it.
    fn take_line_end(&mut self) -> Result<bool, Fault> {
        self.skip_blanks();
        if self.rest.starts_with('#') {
            self.take_while(|c| !is_control(c));
        }
        let has_ended = self.take("\n") || self.take("\r\n");
        self.line += usize::from(has_ended);
        match self.rest.chars().next().filter(|c| !has_ended && is_control(*c)) {
            Some(c) => self.fault(format!("{c:?} is not allowed here")),
            None => Ok(has_ended),
        }
    }

    /// Lines without a value, and the blanks before one.
    fn skip_blank_lines(&mut self) -> Result<(), Fault> {
        while self.take_line_end()? {}
        Ok(())
    }

    /// Behind a value.
    fn end_line(&mut self) -> Result<(), Fault> {
        match self.take_line_end()? || self.rest.is_empty() {
            true => Ok(()),
            false => self.fault("something follows the value; each option has a line of its own"),
        }
    }

    /// A key, and the equals sign behind it.
    fn key(&mut self) -> Result<String, Fault> {
        let key = match self.rest.chars().next() {
            Some('"' | '\'') => self.string()?,
            Some('[') => {
                return self.fault("tables are not supported; options stand without a heading");
            }
            _ => {
                let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                match self.take_while(is_bare) {
                    "" => return self.fault(NO_OPTION),
                    key => key.to_owned(),
                }
            }
        };
        self.skip_blanks();
        if self.rest.starts_with('.') {
            return self.fault("dotted keys are not supported");
        }
        if self.take("=") {
            self.skip_blanks();
            return Ok(key);
        }
        self.fault(NO_OPTION)
    }

    fn value(&mut self) -> Result<Value, Fault> {
        if !self.take("[") {
            return Ok(Value::One(self.scalar()?));
        }
        let begun = self.line;
        let mut list = Vec::new();
        loop {
            self.skip_blank_lines()?;
            if self.take("]") {
                return Ok(Value::List(list));
            }
            if self.rest.starts_with('[') {
                return self.fault("arrays in arrays are not supported");
            }
            if !self.rest.is_empty() {
                list.push((self.line, self.scalar()?));
                self.skip_blank_lines()?;
                if self.take(",") || self.rest.starts_with(']') {
                    continue;
                }
            }
            let why = "the array does not end; its values are separated by commas";
            return Err(Fault { line: begun, why: why.to_owned() });
        }
    }

    fn scalar(&mut self) -> Result<Scalar, Fault> {
        match self.rest.chars().next() {
            Some('"' | '\'') => return Ok(Scalar::Text(self.string()?)),
            Some('{') => return self.fault("inline tables are not supported"),
            _ => {}
        }
        let before = self.rest;
        let word = self
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '_' | '.' | ':'));
        match word {
            "true" => return Ok(Scalar::Truth(true)),
            "false" => return Ok(Scalar::Truth(false)),
            _ => {}
        }
        if let Some(number) = number(word) {
            return Ok(Scalar::Number(number));
        }
        self.rest = before;
        match word {
            "" => self.fault("the value is missing"),
            _ if word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => {
                self.fault(format!("{word} is no decimal number; a text stands in quotes"))
            }
            _ => self.fault(format!("{word} is not true or false; a text stands in quotes")),
        }
    }

    /// A basic or a literal string, on one line.
    fn string(&mut self) -> Result<String, Fault> {
        let quote = if self.rest.starts_with('"') { '"' } else { '\'' };
        let mut characters = self.rest.chars();
        if self.rest.chars().take_while(|&c| c == quote).count() >= 3 {
            return self.fault("strings over several lines are not supported");
        }
        characters.next();
        let mut text = String::new();
        loop {
            match characters.next() {
                Some(c) if c == quote => {
                    self.rest = characters.as_str();
                    return Ok(text);
                }
                Some('\\') if quote == '"' => match escaped(&mut characters) {
                    Some(c) => text.push(c),
                    None => {
                        let hint = "\\\\ is a backslash, and '…' takes all as it stands";
                        return self.fault(format!("an escape that TOML does not have; {hint}"));
                    }
                },
                None | Some('\n' | '\r') => return self.fault("the string does not end"),
                Some(c) if is_control(c) => {
                    return self.fault(format!("{c:?} is not allowed in a string"));
                }
                Some(c) => text.push(c),
            }
        }
    }
}

/// What TOML forbids in comments and strings, but for the tab.
fn is_control(c: char) -> bool {
    c.is_ascii_control() && c != '\t'
}

/// Behind a backslash.
fn escaped(characters: &mut std::str::Chars<'_>) -> Option<char> {
    let digits = match characters.next()? {
        'b' => return Some('\u{8}'),
        't' => return Some('\t'),
        'n' => return Some('\n'),
        'f' => return Some('\u{c}'),
        'r' => return Some('\r'),
        c @ ('"' | '\\') => return Some(c),
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let mut code = 0;
    for _ in 0..digits {
        code = code << 4 | characters.next()?.to_digit(16)?;
    }
    char::from_u32(code)
}

/// A decimal number without its underscores, if the word is one: TOML has neither leading zeros nor a point without a
/// digit on each side.
fn number(word: &str) -> Option<String> {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let exponent = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
    let is_plain = whole == "0" || !whole.starts_with('0');
    let are_digits = [Some(whole), fraction, exponent].into_iter().flatten().all(digits);
    let number = word.replace('_', "");
    let is_integer = fraction.is_none() && exponent.is_none();
    // TOML's integers have 64 bits.
    let fits = !is_integer || number.parse::<i64>().is_ok();
    (is_plain && are_digits && fits).then_some(number)
}

/// Digits, with single underscores between them.
fn digits(text: &str) -> bool {
    text.split('_').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Scalar {
        match read(&format!("a = {text}")).unwrap_or_else(|fault| panic!("{text}: {fault:?}")).pop()
        {
            Some(Entry { value: Value::One(scalar), .. }) => scalar,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    fn refused(text: &str) -> (usize, String) {
        let fault = read(text).expect_err(text);
        (fault.line, fault.why)
    }

    #[test]
    fn keys_are_bare_or_quoted_and_have_their_lines() {
        let entries =
            read("\u{feff}# one\n\n a-b_1=1\r\n\t\"c d\"\t=\t2 # two\n'e\"f' = 3\n\n").unwrap();
        let keys: Vec<_> = entries.iter().map(|entry| (entry.line, entry.key.as_str())).collect();
        assert_eq!(keys, [(3, "a-b_1"), (4, "c d"), (5, "e\"f")]);
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read("#").unwrap(), []);
        assert_eq!(read(" \t\r\n").unwrap(), []);
    }

    #[test]
    fn basic_strings_have_escapes_and_literal_ones_have_none() {
        assert_eq!(one(r#""""#), text(""));
        assert_eq!(one("''"), text(""));
        assert_eq!(one(r#""a\b\t\n\f\r\"\\\u00e9\U0001F600é""#), text("a\u{8}\t\n\u{c}\r\"\\é😀é"));
        assert_eq!(one(r"'C:\x \u{1b} # no comment'"), text(r"C:\x \u{1b} # no comment"));
        assert_eq!(one("\"a\tb # c\" # d"), text("a\tb # c"));
        for bad in [r#""\x41""#, r#""\e""#, r#""\u12""#, r#""\ud800""#, r#""\U00110000""#] {
            assert!(refused(&format!("a = {bad}")).1.starts_with("an escape"), "{bad}");
        }
        for bad in ["\"a", "'a", "\"a\nb\"", "'a\r\nb'", "\"a\\\""] {
            assert_eq!(refused(&format!("\na = {bad}")), (2, "the string does not end".to_owned()));
        }
        for bad in ["'a\u{0}'", "\"a\u{7f}\"", "\"a\u{1b}\""] {
            assert!(refused(&format!("a = {bad}")).1.ends_with("in a string"), "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_decimal_and_stay_as_they_are_written() {
        let written = |text: &str| Scalar::Number(text.to_owned());
        for number in ["0", "8000", "-1", "+7", "0.5", "1.25", "-0.0", "1e3", "6.02E+23", "5e-1"] {
            assert_eq!(one(number), written(number));
        }
        assert_eq!(one("1_000_000"), written("1000000"));
        assert_eq!(one("1_0.0_5"), written("10.05"));
        assert_eq!(one("9223372036854775807"), written("9223372036854775807"));
        for bad in [
            "007",
            "1__0",
            "_1",
            "1_",
            ".5",
            "5.",
            "1.e3",
            "1e",
            "0x10",
            "0b1",
            "+",
            "1 000",
            "1,5",
            "9223372036854775808",
            "1979-05-27",
            "07:32:00",
            "1_.5",
            "00.5",
            "--1",
            "1e1.5",
        ] {
            read(&format!("a = {bad}")).expect_err(bad);
        }
    }

    #[test]
    fn truths_are_in_lower_case_and_other_words_are_none() {
        assert_eq!(one("true"), Scalar::Truth(true));
        assert_eq!(one("false"), Scalar::Truth(false));
        for bad in ["True", "on", "yes", "inf", "nan", "info"] {
            let why = format!("{bad} is not true or false; a text stands in quotes");
            assert_eq!(refused(&format!("a = {bad}")), (1, why));
        }
    }

    #[test]
    fn arrays_stand_on_any_number_of_lines() {
        let list = |source: &str| match &read(source).expect(source)[..] {
            [Entry { value: Value::List(list), .. }] => {
                list.iter().map(|(line, scalar)| (*line, format!("{scalar:?}"))).collect::<Vec<_>>()
            }
            other => panic!("{source}: {other:?}"),
        };
        assert_eq!(list("a = []"), []);
        assert_eq!(list("a = [ # none\n]"), []);
        let one = |line| (line, "Text(\"x\")".to_owned());
        assert_eq!(list("a = ['x']"), [one(1)]);
        assert_eq!(
            list("a = [\n# first\n'x', # 1\n\n \"x\"\n,'x',]# end"),
            [one(3), one(5), one(6)]
        );
        assert_eq!(list("a=[1,true]").len(), 2);
        for bad in ["a = [", "a = [1", "a = [1 2]", "a = [1,\n2\n3]", "a = [\n1,\n"] {
            assert_eq!(refused(bad).0, 1, "{bad}");
            assert!(refused(bad).1.starts_with("the array does not end"), "{bad}");
        }
        read("a = [,]").expect_err("no value before the comma");
        read("a = [1,,2]").expect_err("no value between commas");
    }

    #[test]
    fn what_the_file_need_not_have_is_refused_by_its_name() {
        for (source, line, why) in [
            ("[server]\nport = 1", 1, "tables are not supported; options stand without a heading"),
            ("a = 1\n[[x]]", 2, "tables are not supported; options stand without a heading"),
            ("a.b = 1", 1, "dotted keys are not supported"),
            ("a . b = 1", 1, "dotted keys are not supported"),
            ("a = {b = 1}", 1, "inline tables are not supported"),
            ("a = [[1]]", 1, "arrays in arrays are not supported"),
            ("a = \"\"\"x\"\"\"", 1, "strings over several lines are not supported"),
            ("a = '''\nx'''", 1, "strings over several lines are not supported"),
            ("port 8000", 1, "this is no option; one is written name = value"),
            ("--port=1\n:", 2, "this is no option; one is written name = value"),
            (" = 1", 1, NO_OPTION),
            ("a = # nothing", 1, "the value is missing"),
            ("a =", 1, "the value is missing"),
            ("a = 1 b = 2", 1, "something follows the value; each option has a line of its own"),
            ("a = 'x'y", 1, "something follows the value; each option has a line of its own"),
            ("a = 1\n\nb = 2\na = 3", 4, "\"a\" is set on line 1 already"),
            ("a = 1\n'a' = 3", 2, "\"a\" is set on line 1 already"),
            ("a = 1 # \u{7}", 1, "'\\u{7}' is not allowed here"),
            ("a = 1\rb = 2", 1, "'\\r' is not allowed here"),
        ] {
            assert_eq!(refused(source), (line, why.to_owned()), "{source:?}");
        }
    }

    /// What a reader of all of TOML makes of a value.
    fn oracle(value: &toml_span::Value<'_>) -> Option<Value> {
        use toml_span::value::ValueInner;
        let scalar = |value: &toml_span::Value<'_>| match value.as_ref() {
            ValueInner::String(text) => Some(Scalar::Text(text.to_string())),
            ValueInner::Integer(number) => Some(Scalar::Number(number.to_string())),
            ValueInner::Float(number) => Some(Scalar::Number(format!("{number:?}"))),
            ValueInner::Boolean(truth) => Some(Scalar::Truth(*truth)),
            _ => None,
        };
        match value.as_ref() {
            ValueInner::Array(list) => list
                .iter()
                .map(|one| Some((0, scalar(one)?)))
                .collect::<Option<_>>()
                .map(Value::List),
            _ => scalar(value).map(Value::One),
        }
    }

    /// Numbers by their value, and no lines.
    fn normal(value: Value) -> Value {
        let scalar = |scalar| match scalar {
            Scalar::Number(text) if text.contains(['.', 'e', 'E']) => {
                Scalar::Number(format!("{:?}", text.parse::<f64>().unwrap()))
            }
            Scalar::Number(text) => Scalar::Number(text.parse::<i64>().unwrap().to_string()),
            other => other,
        };
        match value {
            Value::One(one) => Value::One(scalar(one)),
            Value::List(list) => {
                Value::List(list.into_iter().map(|(_, one)| (0, scalar(one))).collect())
            }
        }
    }

    /// Texts of random pieces: what is read here is read so by a reader of all of TOML.
    #[test]
    fn another_reader_of_toml_agrees() {
        const PIECES: [&str; 46] = [
            "a",
            "b",
            "key",
            "\"a\"",
            "'b'",
            "=",
            " = ",
            " = ",
            "=",
            "\n",
            "\n",
            "\r\n",
            " ",
            "\t",
            "# c",
            "1",
            "0",
            "07",
            "-2",
            "+3",
            "1_0",
            "0.5",
            ".5",
            "1e2",
            "1.5e-3",
            "true",
            "false",
            "\"x\"",
            "'y\\'",
            "\"\\u00e9\"",
            "\"\\n\"",
            "\"\\q\"",
            "\"",
            "'",
            "[",
            "]",
            ",",
            ", ",
            "[1, 2]",
            "[]",
            "{}",
            ".",
            "\u{1}",
            "é",
            "\"\"\"",
            "\u{7f}",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        let (mut read_here, mut values) = (0, 0);
        for _ in 0..200_000 {
            let mut source = String::new();
            for _ in 0..below(4) {
                // Mostly a key and a value, or hardly any text would be one.
                let (key, value) = (below(5), 15 + below(25));
                source.push_str(&format!("{} = {}\n", PIECES[key], PIECES[value]));
            }
            for _ in 0..below(5) {
                source.push_str(PIECES[below(PIECES.len())]);
            }
            let Ok(entries) = read(&source) else { continue };
            read_here += 1;
            let other = toml_span::parse(&source);
            let other = other.unwrap_or_else(|error| panic!("{source:?} is no TOML: {error}"));
            let table = other.as_table().expect("a file is a table");
            assert_eq!(table.len(), entries.len(), "{source:?}");
            for entry in entries {
                values += 1;
                let found = table.get(entry.key.as_str()).and_then(oracle);
                assert_eq!(found, Some(normal(entry.value)), "{source:?}: {}", entry.key);
            }
        }
        assert!(read_here > 20_000 && values > 10_000, "{read_here} texts, {values} values");
    }
}
