use casemate_hsm_api::HsmError;
use casemate_hsm_attest::AttestationKey;
use tss_esapi::{
    Context, Result as Answer,
    abstraction::{AsymmetricAlgorithmSelection, ek, nv},
    constants::CapabilityType,
    handles::{NvIndexTpmHandle, TpmHandle},
    interface_types::{key_bits::RsaKeyBits, resource_handles::NvAuth},
    structures::{CapabilityData, NvPublic},
};

use crate::connection::Connection;

/// The endorsement key of which makers certify most: RSA-2048, template L-1 of the TCG EK Credential Profile.
pub(crate) const ENDORSEMENT: AsymmetricAlgorithmSelection = AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048);

/// The indices of the certificates between the maker's and the endorsement key's (TCG EK Credential Profile 2.5, 2.2.1.5.2).
const CHAIN: std::ops::RangeInclusive<u32> = 0x01c0_0100..=0x01c0_01ff;

/// The most of those indices that are looked at.
const INDICES: u32 = 16;

/// The most bytes that are read of them together.
const CHAIN_BYTES: usize = 16 << 10;

/// The TPM's endorsement certificate.
pub(crate) fn certificate(tpm: &mut Connection) -> Result<Vec<u8>, HsmError> {
    let certificate = tpm.ask_openly(|context| ek::retrieve_ek_pubcert(context, ENDORSEMENT)).map_err(|error| {
        match tpm.failed("the endorsement certificate", error) {
            // Nothing stands at its index.
            HsmError::TokenAbsent { token, detail } if detail.contains("Handle") => {
                let detail = "the TPM's maker gave it no certificate of an RSA-2048 endorsement key".to_owned();
                HsmError::Unproven { token, detail }
            }
            other => other,
        }
    })?;
    // Some makers leave padding behind it.
    Ok(match split(&certificate) {
        Next::Certificate(certificate, _) => certificate.to_vec(),
        Next::Cut | Next::Other => certificate,
    })
}

/// The certificates that the maker left in the TPM beside the endorsement certificate. What is too long, cannot be read openly or is
/// no certificate is left out: nobody believes these for where they lie, and an auditor can have them from the maker.
pub(crate) fn intermediates(tpm: &mut Connection) -> Result<Vec<Vec<u8>>, HsmError> {
    let listed = tpm
        .ask_openly(|context| context.get_capability(CapabilityType::Handles, *CHAIN.start(), INDICES))
        .map_err(|error| tpm.failed("TPM2_GetCapability", error))?;
    let (CapabilityData::Handles(handles), _) = listed else { return Ok(Vec::new()) };
    let mut room = CHAIN_BYTES;
    let mut contents = Vec::new();
    for handle in handles.into_inner() {
        let TpmHandle::NvIndex(index) = handle else { continue };
        if !CHAIN.contains(&u32::from(index)) {
            continue;
        }
        match tpm.ask_openly(|context| read(context, index, room)) {
            Ok(content) => {
                room -= content.len().min(room);
                contents.push(content);
            }
            Err(error) => match tpm.failed("a certificate of the maker's", error) {
                gone @ (HsmError::TokenAbsent { .. } | HsmError::Timeout { .. }) => return Err(gone),
                _ => contents.push(Vec::new()),
            },
        }
    }
    Ok(certificates(&contents))
}

/// What the index holds, or nothing if that is longer than `room` bytes or not for everybody: a try with a wrong authorization may
/// count as an attack on the TPM's dictionary.
fn read(context: &mut Context, index: NvIndexTpmHandle, room: usize) -> Answer<Vec<u8>> {
    let mut object = context.tr_from_tpm_public(TpmHandle::NvIndex(index))?;
    let public = context.nv_read_public(object.into());
    if public.as_ref().is_ok_and(|(public, _)| public.data_size() <= room && is_open(public)) {
        let reader = NvAuth::NvIndex(object.into());
        // It closes the object itself.
        return context.execute_with_nullauth_session(|context| nv::read_full(context, reader, index));
    }
    context.tr_close(&mut object)?;
    public.map(|_| Vec::new())
}

/// Whether whoever comes may read the index, as the profile wants certificates to be, without a risk.
fn is_open(public: &NvPublic) -> bool {
    let attributes = public.attributes();
    attributes.auth_read() && attributes.no_da() && attributes.written()
}

/// The certificates in these contents of indices, one behind the other. One may begin in an index and end in the next.
fn certificates(contents: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut left = Vec::new();
    for content in contents {
        left.extend_from_slice(content);
        left = take(&left, &mut found);
    }
    found.truncate(AttestationKey::MOST_INTERMEDIATES);
    found
}

/// Takes whole certificates from the front of `bytes`, and gives back the one that is cut at the end.
fn take(mut bytes: &[u8], found: &mut Vec<Vec<u8>>) -> Vec<u8> {
    loop {
        // What makers fill the rest of an index with.
        let padding = bytes.iter().take_while(|byte| matches!(byte, 0 | 0xff)).count();
        bytes = bytes.get(padding..).unwrap_or_default();
        match split(bytes) {
            Next::Certificate(certificate, rest) => {
                found.push(certificate.to_vec());
                bytes = rest;
            }
            Next::Cut => return bytes.to_vec(),
            Next::Other => return Vec::new(),
        }
    }
}

/// What bytes begin with.
#[derive(Debug, Eq, PartialEq)]
enum Next<'a> {
    /// A whole certificate by its header, and what is behind it.
    Certificate(&'a [u8], &'a [u8]),
    /// The beginning of one.
    Cut,
    /// Nothing, or something else.
    Other,
}

/// Looks for a DER SEQUENCE with a length of two bytes, as every certificate has, at the front of `bytes`.
fn split(bytes: &[u8]) -> Next<'_> {
    match bytes {
        [0x30, 0x82, high, low, ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low])) + 4;
            match bytes.split_at_checked(length) {
                Some((certificate, rest)) if length <= AttestationKey::LONGEST_INTERMEDIATE => {
                    Next::Certificate(certificate, rest)
                }
                None if length <= AttestationKey::LONGEST_INTERMEDIATE => Next::Cut,
                _ => Next::Other,
            }
        }
        [0x30] | [0x30, 0x82] | [0x30, 0x82, _] => Next::Cut,
        _ => Next::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As long as its header says, and a certificate as far as these functions look.
    fn certificate(length: u16, fill: u8) -> Vec<u8> {
        [&[0x30, 0x82][..], &length.to_be_bytes(), &vec![fill; length.into()]].concat()
    }

    #[test]
    fn certificates_are_told_apart_over_the_ends_of_indices_and_padding() {
        let (one, other, third) = (certificate(700, 1), certificate(1200, 2), certificate(300, 0));
        let all = vec![one.clone(), other.clone(), third.clone()];
        let whole = [&one[..], &[0; 9], &other, &[0xff; 40], &third].concat();
        for cut in 0..=whole.len() {
            let (first, second) = whole.split_at(cut);
            assert_eq!(certificates(&[first.to_vec(), second.to_vec()]), all, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_certificate_or_too_much_is_left_out() {
        let one = certificate(700, 1);
        for garbage in [b"garbage".to_vec(), certificate(u16::MAX, 0)[..50].to_vec(), vec![0x31; 2000]] {
            assert_eq!(certificates(&[garbage.clone(), one.clone()]), std::slice::from_ref(&one));
            assert_eq!(certificates(&[[&one[..], &garbage].concat(), one.clone()]), [one.clone(), one.clone()]);
        }
        assert_eq!(certificates(&[one[..600].to_vec()]), [[0; 0]; 0]);
        let many = vec![one.clone(); AttestationKey::MOST_INTERMEDIATES + 1];
        assert_eq!(certificates(&many).len(), AttestationKey::MOST_INTERMEDIATES);
        let longest = AttestationKey::LONGEST_INTERMEDIATE - 4;
        let longest = u16::try_from(longest).unwrap();
        assert_eq!(certificates(&[certificate(longest, 1)]).len(), 1);
        assert_eq!(certificates(&[certificate(longest + 1, 1)]).len(), 0);
    }

    proptest! {
        #[test]
        fn no_content_makes_it_panic_or_grow(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let bytes: usize = contents.iter().map(Vec::len).sum();
            prop_assert!(certificates(&contents).concat().len() <= bytes);
        }
    }
}
