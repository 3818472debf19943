//! A writer of trust lists and signed files that can also write wrong ones.

use super::Identity;

pub(crate) const SAST: u16 = 0;
pub(crate) const CCM: u16 = 1;
pub(crate) const CCM_TFTP: u16 = 2;
pub(crate) const TFTP: u16 = 3;
pub(crate) const CAPF: u16 = 4;
pub(crate) const TVS: u16 = 21;

/// What goes into a header.
pub(crate) struct File<'a> {
    pub(crate) version: [u8; 2],
    pub(crate) signer_version: Option<[u8; 2]>,
    pub(crate) digest: u8,
    pub(crate) name: &'a str,
    pub(crate) signer: &'a Identity,
    pub(crate) body: Vec<u8>,
}

impl<'a> File<'a> {
    pub(crate) fn list(signer: &'a Identity, records: &[(u16, &Identity)]) -> Self {
        let body = records.iter().flat_map(|(role, identity)| record(*role, identity)).collect();
        Self { version: [1, 2], signer_version: Some([1, 1]), digest: 3, name: "ITLFile.tlv", signer, body }
    }

    pub(crate) fn signed(signer: &'a Identity, name: &'a str, body: &[u8]) -> Self {
        Self { version: [1, 0], signer_version: None, digest: 3, name, signer, body: body.to_vec() }
    }

    /// The file, signed.
    pub(crate) fn write(&self) -> Vec<u8> {
        const SIGNATURE: usize = 3 + 256;
        let text = self.signer.text();
        let signer = [element(4, &nul(&text)), element(5, &self.signer.serial()), element(6, &nul(&text))].concat();
        let algorithm = [element(10, &[0]), element(11, &[2])].concat();
        let info = [element(8, &[self.digest]), element(9, &algorithm)].concat();
        let signer_version = self.signer_version.map(|version| element(28, &version)).unwrap_or_default();
        let before = [signer_version, element(3, &signer), element(7, &info)].concat();
        let mut after = [element(14, &nul(self.name)), element(15, &1_700_000_000_u32.to_be_bytes())].concat();
        let start = 5 + 5;
        while !(start + before.len() + SIGNATURE + after.len()).is_multiple_of(4) {
            after.push(13);
        }
        let length = u16::try_from(start + before.len() + SIGNATURE + after.len()).unwrap();
        let before = [element(1, &self.version), element(2, &length.to_be_bytes()), before].concat();
        let signature = self.signer.sign(&[&before[..], &after, &self.body].concat());
        [before, element(12, &signature), after, self.body.clone()].concat()
    }
}

/// One record, in Cisco's order of tags.
pub(crate) fn record(role: u16, identity: &Identity) -> Vec<u8> {
    record_of(&[
        (2, vec![0]),
        (3, nul(&identity.text())),
        (4, role.to_be_bytes().to_vec()),
        (5, nul(&identity.text())),
        (6, identity.serial()),
        (7, identity.public_key()),
        (9, identity.certificate.clone()),
        (10, vec![127, 0, 0, 1]),
    ])
}

/// A record of any elements.
pub(crate) fn record_of(elements: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let elements: Vec<u8> = elements.iter().flat_map(|(tag, value)| element(*tag, value)).collect();
    let length = u16::try_from(5 + elements.len()).unwrap();
    [element(1, &length.to_be_bytes()), elements].concat()
}

pub(crate) fn element(tag: u8, value: &[u8]) -> Vec<u8> {
    [&[tag], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat()
}

pub(crate) fn nul(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
