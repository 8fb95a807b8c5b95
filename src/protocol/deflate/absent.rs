//! permessage-deflate in a build without the feature: never agreed to. What takes [`DeflateParams`]
//! cannot be called, because there is none; what does not, does nothing.
//!
//! Next: [`crate::protocol::reassembly`], what a long message collects in.

use std::marker::PhantomData;
use std::sync::Arc;

use tungstenite::protocol::frame::coding::Data;

use super::{Deflation, Inflation, MalformedOffer};
use crate::protocol::frame::Violation;
use crate::protocol::head::Request;
use crate::protocol::limits::ProtocolLimits;

/// There is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeflateParams {}

/// Inflates nothing.
#[derive(Debug, Default)]
pub struct Inflater;

/// Deflates nothing.
#[derive(Debug)]
pub struct Deflater;

/// There is none.
#[derive(Debug)]
pub struct DeflateWriter<'a>(DeflateParams, PhantomData<&'a mut Deflater>);

/// Is never made.
#[derive(Debug, Default)]
pub struct Progress {
    _of_nothing: (),
}

/// Takes no offer.
///
/// # Errors
///
/// None: the field is not even read.
pub fn negotiate(_request: &Request<'_, '_>) -> Result<Option<DeflateParams>, MalformedOffer> {
    Ok(None)
}

impl DeflateParams {
    /// Cannot be called.
    pub fn write_field(self, _out: &mut Vec<u8>) {
        match self {}
    }
}

impl Inflater {
    /// Does nothing.
    pub fn grant_share(&mut self, _share: usize) {}

    /// Cannot be called.
    ///
    /// # Errors
    ///
    /// None.
    pub fn advance(
        &mut self,
        params: DeflateParams,
        _progress: &mut Progress,
        _deflated: &[u8],
        _max_size: usize,
        _assembled: &mut Vec<u8>,
    ) -> Result<Inflation, Violation> {
        match params {}
    }
}

impl Progress {
    /// Nothing.
    #[must_use]
    pub fn inflated(&self) -> &[u8] {
        &[]
    }

    /// 0.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        0
    }

    /// Does nothing.
    pub fn give_up(&mut self) {}
}

impl Deflater {
    /// Of any reactor.
    #[must_use]
    pub fn new(_limits: &ProtocolLimits) -> Self {
        Deflater
    }

    /// Cannot be called.
    pub fn for_all<'a>(&'a mut self, params: DeflateParams, _plain: &'a Arc<Vec<u8>>) -> &'a [u8] {
        match params {}
    }

    /// Does nothing.
    pub fn forget_broadcast(&mut self) {}

    /// Does nothing.
    pub fn trim(&mut self, _kept: usize) {}
}

impl<'a> DeflateWriter<'a> {
    /// `None`.
    pub fn new(params: Option<DeflateParams>, _deflater: &'a mut Deflater) -> Option<Self> {
        params.map(|params| match params {})
    }

    /// The same for less long.
    pub fn reborrow(&mut self) -> DeflateWriter<'_> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn encode(&mut self, _kind: Data, _parts: &[&[u8]], _out: &mut Vec<u8>) {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn encode_smaller(
        &mut self,
        _kind: Data,
        _parts: &[&[u8]],
        _out: &mut Vec<u8>,
    ) -> Deflation {
        match self.0 {}
    }
}
