//! The name of a connection: slot and generation in one word.
//!
//! It is what the poll hands back as a token, what the ready queue, the timer wheel and the
//! session table hold instead of a reference, and what the log calls a connection. Slots are
//! reused; generations are not (CVE-2020-35681 was one request's scope read by another).
//!
//! Invariant: two connections of one reactor never have equal ids.
//!
//! Next: [`crate::out_buffer`]: what waits until such a one can take it.

use std::fmt;
use std::num::NonZeroU32;

use mio::Token;

/// Names one connection of one reactor, for as long as anything may still refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Slot in the slab.
    pub index: u32,
    /// Which tenant of that slot; never 0, so an `Option` of this type is no larger.
    pub generation: NonZeroU32,
}

impl ConnectionId {
    /// The token under which its socket is registered.
    #[must_use]
    pub fn token(self) -> Token {
        // usize has 64 bits on every platform that has enough sockets to matter; elsewhere the
        // compiler stops here.
        const { assert!(usize::BITS == 64, "tokens carry slot and generation: 64 bits") };
        Token((self.generation.get() as usize) << 32 | self.index as usize)
    }

    /// The id in a token; `None` for the reactor's own tokens, whose generation is 0.
    #[must_use]
    pub fn from_token(Token(value): Token) -> Option<ConnectionId> {
        let generation = NonZeroU32::new((value >> 32) as u32)?;
        Some(ConnectionId { index: value as u32, generation })
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_the_id_there_and_back() {
        for (index, generation) in [(0, 1), (7, 3), (u32::MAX, u32::MAX)] {
            let generation = NonZeroU32::new(generation).unwrap();
            let id = ConnectionId { index, generation };
            assert_eq!(ConnectionId::from_token(id.token()), Some(id));
        }
        assert_eq!(ConnectionId::from_token(Token(1)), None);
    }
}
