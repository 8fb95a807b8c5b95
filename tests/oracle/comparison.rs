//! The parts of the oracle that compare two views of one conversation, without its tests: the fuzz
//! target for frames uses them too.

pub(crate) mod conversation;
pub(crate) mod dispute;
pub(crate) mod frames;
pub(crate) mod random;
pub(crate) mod verdict;
