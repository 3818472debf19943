//! TFTP packets and the names in them: a name that is accepted leads to a published file and nowhere else.
#![no_main]

use casemate_tftp::packet::Packet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Packet::decode(data);
});
