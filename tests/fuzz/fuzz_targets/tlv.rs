//! Trust lists, signed files and configurations: what is taken is written back to the same bytes, and no byte of a file is
//! outside what is signed and the signature.
#![no_main]

use casemate_phonefile::{Content, DeviceConfig, Limits, Sha1, SignedFile, ToBeSigned, Unsigned};
use libfuzzer_sys::fuzz_target;

/// The signature's element: tag, length, and a signature of this key size (phone-formats §1).
const ELEMENT: usize = 3;

fn signed(data: &[u8], limits: &Limits) {
    let Ok(file) = SignedFile::parse(data, limits) else { return };
    let message = file.message();
    assert_eq!(file.bytes(), data);
    assert_eq!(message.len() + ELEMENT + file.signature.len(), data.len(), "a byte is neither signed nor signature");
    assert!(file.verify(&[], Sha1::Refused).is_err(), "nobody is trusted, so nothing verifies");
    let _ = (file.file_name(), file.signer());
    if let Content::TrustList(list) = &file.content {
        let _ = (list.records().len(), list.file_name());
    }
    if let Ok(unsigned) = ToBeSigned::parse(&message, limits) {
        assert_eq!(unsigned.file_name(), file.file_name());
        assert_eq!(unsigned.signer(), file.signer());
    }
}

fn to_be_signed(data: &[u8], limits: &Limits) {
    let Ok(parsed) = ToBeSigned::parse(data, limits) else { return };
    let again = match &parsed {
        ToBeSigned::TrustList(list) => Unsigned::trust_list(list, limits),
        ToBeSigned::File(file) => Unsigned::file(file, limits),
    };
    let again = again.expect("what is taken for signing can be laid out");
    assert_eq!(again.to_be_signed(), data);
    let file = again.with_signature(&[7; 256]).expect("256 bytes are the signature of a 2048 bit key");
    let read = SignedFile::parse(&file, limits).expect("what is laid out is read back");
    assert_eq!(read.message(), data, "what is signed is what is verified");
}

fn config(data: &[u8]) {
    let Ok(config) = DeviceConfig::parse(data) else { return };
    if let Ok(xml) = config.to_xml() {
        assert_eq!(DeviceConfig::parse(&xml).expect("what is written is read back"), config);
    }
}

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    signed(data, &limits);
    to_be_signed(data, &limits);
    config(data);
});
