//! Trust lists and signed files: what parses is written back to the same bytes, and what is to be signed parses on its own.
#![no_main]

use casemate_phonefile::{DeviceConfig, Limits, SignedFile, ToBeSigned};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    if let Ok(file) = SignedFile::parse(data, &limits) {
        let _ = ToBeSigned::parse(&file.message(), &limits);
    }
    let _ = ToBeSigned::parse(data, &limits);
    let _ = DeviceConfig::parse(data);
});
