//! Reads the file that `--config` names.
//!
//! What it says is for `arguments`. Called through `main.rs`, at the start and at each SIGHUP.
//!
//! Next: `arguments`: what can be asked of the program.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// 1 MiB: each option in a line of its own, a thousand times over. A device has no end.
const BYTES_MOST: u64 = 1 << 20;

/// Its text.
///
/// # Errors
///
/// What the system says; or it is too long, or no UTF-8.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(BYTES_MOST + 1).read_to_string(&mut text)?;
    match text.len() as u64 > BYTES_MOST {
        true => Err(io::Error::other(format!("it has more than {BYTES_MOST} bytes"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_an_error() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 1048576 bytes");
        assert_eq!(read(Path::new("/dev/null")).unwrap(), "");
        assert!(read(Path::new("/")).is_err());
    }
}
