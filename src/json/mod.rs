//! JSON, as text: [`string`] writes a text as a JSON string, [`value`] reads what others wrote.
//!
//! No tree of values is built, in neither direction: whoever needs one brings a crate for it. Called by `tasks`, by
//! `application`, and by applications.
//!
//! Next: [`crate::json::string`]: a text as a string of JSON.

pub mod string;
pub mod value;

pub use string::JsonString;
pub use value::{JsonError, Kind, Value};
