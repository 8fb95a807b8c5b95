//! Frame streams, to us and to tungstenite: the comparison is the oracle's.
//!
//! Input: two bytes of the largest message, two that say how the stream is cut, then the stream.

use super::oracle::conversation::Conversation;
use super::oracle::dispute;
use super::oracle::random::Random;

pub(crate) fn run(data: &[u8]) {
    let Some((&[high, low, style, seed], bytes)) = data.split_first_chunk() else { return };
    let max_size = usize::from(u16::from_be_bytes([high, low])) + 1;
    let cuts = cuts(bytes.len(), style, seed);
    let conversation = Conversation { bytes: bytes.to_vec(), cuts, max_size };
    if let Err(difference) = dispute::compare(&conversation) {
        panic!("{difference}");
    }
}

pub(super) fn cuts(length: usize, style: u8, seed: u8) -> Vec<usize> {
    match style % 4 {
        0 => Vec::new(),
        1 => (1..length.min(1500)).collect(),
        2 => (0..length).step_by(usize::from(seed) + 1).collect(),
        _ => {
            let random = &mut Random::new(seed.into());
            let mut cuts: Vec<usize> = (0..8).map(|_| random.below(length + 1)).collect();
            cuts.sort_unstable();
            cuts
        }
    }
}
