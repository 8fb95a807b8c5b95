//! Client frames for the tests: written down freely, right or wrong, and their headers read again
//! with the layout of RFC 6455 5.2 alone. Judges nothing; it exists so that neither of the two
//! parsers under comparison has to say what a frame looked like.

/// How a length is written down; a right client takes the shortest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LengthForm {
    Shortest,
    SixteenBits,
    SixtyFourBits,
}

/// A frame as a client sends it.
#[derive(Debug, Clone)]
pub(crate) struct ClientFrame {
    /// FIN, the three RSV bits, the opcode.
    pub(crate) first: u8,
    /// A right client always has one.
    pub(crate) mask: Option<[u8; 4]>,
    pub(crate) form: LengthForm,
    /// The length written down, where it is not that of the payload.
    pub(crate) declared: Option<u64>,
    /// Before masking.
    pub(crate) payload: Vec<u8>,
}

impl ClientFrame {
    pub(crate) fn new(first: u8, payload: Vec<u8>, mask: [u8; 4]) -> Self {
        let (form, declared) = (LengthForm::Shortest, None);
        ClientFrame { first, mask: Some(mask), form, declared, payload }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let length = self.declared.unwrap_or(self.payload.len() as u64);
        let form = match (self.form, length) {
            (LengthForm::Shortest, 0..=125) => None,
            (LengthForm::Shortest, 126..=0xffff) => Some(LengthForm::SixteenBits),
            (LengthForm::Shortest, _) => Some(LengthForm::SixtyFourBits),
            (form, _) => Some(form),
        };
        let mask_bit = if self.mask.is_some() { 0x80 } else { 0 };
        out.push(self.first);
        match form {
            None | Some(LengthForm::Shortest) => out.push(mask_bit | length as u8),
            Some(LengthForm::SixteenBits) => {
                out.push(mask_bit | 126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            Some(LengthForm::SixtyFourBits) => {
                out.push(mask_bit | 127);
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
        let mask = self.mask.unwrap_or_default();
        out.extend_from_slice(&mask[..if self.mask.is_some() { 4 } else { 0 }]);
        out.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
}

/// What the bytes at one place of a stream say as a frame, as far as they go.
#[derive(Debug)]
pub(crate) struct FrameFacts {
    pub(crate) first: u8,
    pub(crate) form: LengthForm,
    /// `None` while the header is incomplete.
    pub(crate) length: Option<u64>,
    /// What is there of the payload, unmasked.
    pub(crate) payload: Vec<u8>,
    /// Where it begins and how far it reaches, or would.
    pub(crate) starts: usize,
    pub(crate) ends: u64,
    /// Whether header and payload are all there.
    pub(crate) is_whole: bool,
}

impl FrameFacts {
    /// The frame that starts at `starts`; `None` at the end of the stream.
    pub(crate) fn at(stream: &[u8], starts: usize) -> Option<FrameFacts> {
        let bytes = &stream[starts..];
        let first = *bytes.first()?;
        let second = bytes.get(1).copied().unwrap_or(0);
        let (form, extra) = match second & 0x7f {
            126 => (LengthForm::SixteenBits, 2),
            127 => (LengthForm::SixtyFourBits, 8),
            _ => (LengthForm::Shortest, 0),
        };
        let mask_bytes = if second & 0x80 != 0 { 4 } else { 0 };
        let header_bytes = 2 + extra + mask_bytes;
        if bytes.len() < header_bytes {
            let ends = (starts + header_bytes) as u64;
            let (length, payload, is_whole) = (None, Vec::new(), false);
            return Some(FrameFacts { first, form, length, payload, starts, ends, is_whole });
        }
        let length = match form {
            LengthForm::Shortest => u64::from(second & 0x7f),
            _ => bytes[2..2 + extra].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
        };
        let mask = &bytes[2 + extra..header_bytes];
        let there = &bytes[header_bytes..];
        let there = &there[..there.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
        let key = mask.iter().copied().cycle().chain(std::iter::repeat(0));
        let payload: Vec<u8> = there.iter().zip(key).map(|(byte, key)| byte ^ key).collect();
        let is_whole = payload.len() as u64 == length;
        let ends = ((starts + header_bytes) as u64).saturating_add(length);
        Some(FrameFacts { first, form, length: Some(length), payload, starts, ends, is_whole })
    }

    /// All frames of a stream, from its start, as long as each reaches to the next.
    pub(crate) fn all(stream: &[u8]) -> impl Iterator<Item = FrameFacts> {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let facts = FrameFacts::at(stream, next?)?;
            next = usize::try_from(facts.ends).ok().filter(|&end| end < stream.len());
            Some(facts)
        })
    }

    pub(crate) fn is_control(&self) -> bool {
        self.first & 0x08 != 0
    }

    pub(crate) fn is_final(&self) -> bool {
        self.first & 0x80 != 0
    }

    /// Whether its length would have fitted in fewer bytes.
    pub(crate) fn is_padded(&self) -> bool {
        match (self.form, self.length) {
            (LengthForm::SixteenBits, Some(length)) => length < 126,
            (LengthForm::SixtyFourBits, Some(length)) => length < 0x1_0000,
            _ => false,
        }
    }
}
