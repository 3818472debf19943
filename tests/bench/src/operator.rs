use std::{os::unix::net::UnixStream, path::Path, time::Duration};

use casemate_capf::{
    DeviceName,
    control::{Authentication, Request, Response},
};
use casemate_hsm_api::KeyAlgorithm;
use casemate_runtime::control::{ControlError, FRAMING};

use crate::BenchError;

/// How long capf may take over one device.
const LIMIT: Duration = Duration::from_secs(30);

/// The device of this number; the numbers are those of locally administered addresses.
pub(crate) fn device(number: usize) -> String {
    format!("SEP02{number:010X}")
}

/// Lets every device of `numbers` enrol without a string, over one connection to capf's control socket.
pub(crate) fn add(
    socket: &Path,
    numbers: impl Iterator<Item = usize>,
    key: impl Fn(usize) -> KeyAlgorithm,
) -> Result<(), BenchError> {
    let connect = |source| ControlError::Connect { path: socket.to_owned(), source };
    let mut connection = UnixStream::connect(socket).map_err(connect)?;
    connection.set_read_timeout(Some(LIMIT)).map_err(connect)?;
    for number in numbers {
        let name = device(number).parse::<DeviceName>().map_err(|error| BenchError::NotAdded(error.to_string()))?;
        let request = Request::AddPhone { name, authentication: Authentication::NullString, key: key(number) };
        FRAMING.write(&mut connection, &request)?;
        match FRAMING.read(&mut connection)? {
            Some(Response::Added { .. }) => {}
            Some(Response::Refused(reason)) => return Err(BenchError::NotAdded(reason)),
            Some(other) => return Err(BenchError::NotAdded(format!("an answer to another question: {other:?}"))),
            None => return Err(ControlError::NoAnswer { path: socket.to_owned() }.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_names_another_phone() {
        assert_eq!(device(0), "SEP020000000000");
        assert!(device(9_999).parse::<DeviceName>().is_ok());
        assert_ne!(device(9_999), device(10_000));
    }
}
