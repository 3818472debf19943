//! Reading a key under the eyes of others who remove it and make it anew.

use casemate_hsm_api::HsmError;

/// How often a key may change under the eyes of who reads it before that is a failure.
const CHANGES: usize = 8;

/// What `read` makes of the halves that `look` finds. A failure of the device counts only if the same halves stand there after it:
/// otherwise it may be of one that somebody removed meanwhile, and what stands there now is read. That another stands under the same
/// identifier does not make it the same.
///
/// # Errors
/// What `look` and `read` returned.
pub(crate) fn settled<H: Clone + PartialEq, T>(
    mut look: impl FnMut() -> Result<H, HsmError>,
    mut read: impl FnMut(H) -> Result<T, HsmError>,
) -> Result<T, HsmError> {
    let mut halves = look()?;
    for _ in 0..CHANGES {
        let failed = match read(halves.clone()) {
            Err(failed @ HsmError::Device { .. }) => failed,
            other => return other,
        };
        let now = look()?;
        if now == halves {
            return Err(failed);
        }
        halves = now;
    }
    read(halves)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn failure() -> HsmError {
        HsmError::Device {
            token: "t".into(),
            operation: "C_GetAttributeValue".into(),
            detail: "ObjectHandleInvalid".into(),
        }
    }

    /// A key that is made anew, under another handle, `times` times while it is read; what reading it gives, and how often it was read.
    fn remade(times: u32) -> (Result<u32, HsmError>, u32) {
        let (handle, reads) = (Cell::new(0), Cell::new(0));
        let read = |seen: u32| {
            reads.set(reads.get() + 1);
            if handle.get() < times {
                handle.set(handle.get() + 1);
            }
            if seen == handle.get() { Ok(seen) } else { Err(failure()) }
        };
        (settled(|| Ok(handle.get()), read), reads.get())
    }

    #[test]
    fn a_key_that_is_made_anew_while_it_is_read_is_read_again() {
        assert!(matches!(remade(0), (Ok(0), 1)));
        assert!(matches!(remade(1), (Ok(1), 2)));
        assert!(matches!(remade(8), (Ok(8), 9)));
    }

    #[test]
    fn one_that_never_stands_still_is_not_read_for_ever() {
        assert!(matches!(remade(9), (Err(HsmError::Device { .. }), 9)));
    }

    #[test]
    fn a_failure_of_a_key_that_nobody_touched_is_its_own() {
        let reads = Cell::new(0);
        let read = |_| {
            reads.set(reads.get() + 1);
            Err::<(), _>(failure())
        };
        assert!(matches!(settled(|| Ok(7), read), Err(HsmError::Device { .. })));
        assert_eq!(reads.get(), 1);
    }

    #[test]
    fn any_other_failure_is_told_at_once_and_so_is_one_of_the_look() {
        let absent = || HsmError::TokenAbsent { token: "t".into(), detail: "gone".into() };
        let handle = Cell::new(0);
        let look = || {
            handle.set(handle.get() + 1);
            Ok(handle.get())
        };
        assert!(matches!(settled(look, |_| Err::<(), _>(absent())), Err(HsmError::TokenAbsent { .. })));
        assert_eq!(handle.get(), 1);
        assert!(settled(|| Err::<u32, _>(absent()), Ok).is_err());
    }
}
