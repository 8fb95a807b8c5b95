//! Values and code of the application, kept where a panic of theirs does no harm.
//!
//! [`guard`] runs code of the application; it is the one place in the library where a panic is caught.
//! [`Contained`] keeps a value of a type of the application's: whenever the server lets go of it (a
//! session expires, a connection closes before its job is done), its `Drop` runs guarded. Decides nothing:
//! who called says what a panic leads to. Called by everything that holds or calls something of the
//! application's.
//!
//! Invariant: no panic of the application's gets out of here.
//!
//! Next: [`crate::inbox`]: a channel that keeps nothing when its receiver is gone.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The application panicked; the panic hook has said where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

thread_local! {
    /// Drops that panicked on this thread and have not been counted yet.
    static DROPS: Cell<u64> = const { Cell::new(0) };
}

/// Runs code of the application.
///
/// # Errors
///
/// It panicked.
#[inline(always)]
pub fn guard<R>(code: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(discard)
}

/// Lets go of what a panic was raised with. That may be of a type of the application's too, of which the
/// drop panics; what *that* is raised with is left alone, or there would be no end to it.
#[cold]
fn discard(payload: Box<dyn Any + Send>) -> Panicked {
    if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(worse);
    }
    Panicked
}

/// How many contained values have panicked while they were dropped on this thread, since this was asked
/// last.
pub fn take_drop_panics() -> u64 {
    DROPS.take()
}

/// A value of the application's.
#[derive(Debug)]
pub struct Contained<T>(Option<T>);

impl<T> Contained<T> {
    /// Keeps `value`.
    pub fn new(value: T) -> Self {
        Contained(Some(value))
    }

    /// Takes the value out: from here on its drop is the caller's.
    pub fn into_inner(mut self) -> Option<T> {
        self.0.take()
    }

    /// The value.
    #[inline(always)]
    pub fn get(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("it is taken out with all around it"),
        }
    }

    /// The value, to change.
    #[inline(always)]
    pub fn get_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Some(value) => value,
            None => unreachable!("it is taken out with all around it"),
        }
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        // Nothing that could panic, nothing to guard.
        if !std::mem::needs_drop::<T>() {
            return;
        }
        let Some(value) = self.0.take() else { return };
        if guard(|| drop(value)).is_err() {
            DROPS.set(DROPS.get() + 1);
            log::error!("the application panicked while a value of its was dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fragile;

    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("as planned");
        }
    }

    #[test]
    fn a_drop_that_panics_is_counted_and_ends_nothing() {
        take_drop_panics();
        drop(Contained::new(Fragile));
        drop(vec![Contained::new(Fragile), Contained::new(Fragile)]);
        assert_eq!((take_drop_panics(), take_drop_panics()), (3, 0));
        let taken = Contained::new(Fragile).into_inner();
        std::mem::forget(taken);
        assert_eq!(take_drop_panics(), 0);
    }

    #[test]
    fn neither_does_a_payload_whose_drop_panics_with_another_one() {
        struct Endless;
        impl Drop for Endless {
            fn drop(&mut self) {
                std::panic::panic_any(Endless);
            }
        }
        assert_eq!(guard(|| std::panic::panic_any(Endless)), Err::<(), _>(Panicked));
    }

    #[test]
    fn a_value_can_be_reached_and_takes_no_more_room_where_it_has_a_niche() {
        let mut contained = Contained::new(String::from("a"));
        contained.get_mut().push('b');
        assert_eq!(contained.get(), "ab");
        assert_eq!(contained.into_inner().as_deref(), Some("ab"));
        assert_eq!(size_of::<Contained<Box<u8>>>(), size_of::<Box<u8>>());
    }
}
