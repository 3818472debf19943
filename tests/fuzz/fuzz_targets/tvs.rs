//! TVS messages: what is read is written back to the same bytes.
#![no_main]

use casemate_tvs::codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(Some((message, length))) = codec::decode(data, 16 * 1024) {
        assert_eq!(message.encode().expect("what was read has a length that fits"), &data[..length]);
    }
});
