//! Frames of the key broker's socket, and the messages that it judges before it signs.
#![no_main]

use casemate_keyring::{FRAMING, Request, Response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = FRAMING.read::<Request>(&mut &data[..]);
    let _ = FRAMING.decode::<Response>(data);
});
