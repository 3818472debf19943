use std::{net::IpAddr, net::Ipv4Addr};

use aws_lc_rs::digest;
use casemate_hsm_api::KeyRole;
use casemate_keyring::Purpose;
use casemate_phonefile::{
    Content, ITL_FILE_NAME, Limits, ListWarning, PhoneFileError, Record, Role, Sha1, SignedFile, SignerId, SignerKey,
    SignerVersion, TrustList, Unsigned,
};
use casemate_pki::CertificateFacts;
use casemate_runtime::config::NodeSection;

use crate::{CtlproviderError, Identities, Sign};

/// What the trust list is to say, apart from when it was signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustListPlan {
    signer_role: KeyRole,
    signer_certificate: CertificateFacts,
    signer: SignerKey,
    signer_id: SignerId,
    signer_version: SignerVersion,
    records: Vec<Record>,
}

/// A signed list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Published {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its records.
    pub records: usize,
    /// Different certificates in it.
    pub certificates: usize,
    /// SHA-256 of the file, hexadecimal.
    pub digest: String,
    /// What an operator should know of it.
    pub warnings: Vec<ListWarning>,
}

impl TrustListPlan {
    /// The list that follows `held`, if phones hold one: signed by a key that they know from it. That is the key with the
    /// fingerprint `chosen`, if they do; otherwise the one that signed `held`, until it gets another certificate, and then the other one. The
    /// first list is signed by ITLRecovery.
    ///
    /// # Errors
    /// [`CtlproviderError::NoKnownSigner`].
    pub fn following(
        held: Option<&TrustList>,
        chosen: Option<&str>,
        identities: &Identities,
        node: &NodeSection,
        https: bool,
    ) -> Result<Self, CtlproviderError> {
        let (recovery, call_manager) = (&identities.recovery, &identities.call_manager);
        let is_chosen = |certificate: &&CertificateFacts| chosen == Some(&*certificate.key_fingerprint());
        let signer = held.map_or(Some(recovery), |list| {
            let chosen = [recovery, call_manager].into_iter().find(is_chosen);
            let known = chosen.filter(|certificate| list.knows_signer(&certificate.der));
            known.or_else(|| list.next_signer(&[recovery, call_manager]))
        });
        let signer = signer.ok_or_else(|| CtlproviderError::NoKnownSigner { file: ITL_FILE_NAME.into() })?;
        let role = if signer == recovery { KeyRole::ItlRecovery } else { KeyRole::CallManager };
        Ok(Self::signed_by(role, signer, identities, node, https))
    }

    /// The list of this node (guide 2830-2864): ITLRecovery and CallManager as SAST, one of them the signer, CallManager as
    /// CCM+TFTP, CAPF, TVS. Where files are offered over HTTPS 6971, CallManager-ECDSA in role TFTP and signer version 1.1 are added: phones take
    /// elliptic curves only then (phone-formats §2).
    fn signed_by(
        signer_role: KeyRole,
        signer: &CertificateFacts,
        identities: &Identities,
        node: &NodeSection,
        https: bool,
    ) -> Self {
        let record = |role, certificate| {
            let (address, is_v4) = match node.address {
                IpAddr::V4(address) => (address, true),
                // The field has four bytes; it is left out, and phones use the host's name.
                IpAddr::V6(_) => (Ipv4Addr::UNSPECIFIED, false),
            };
            let record = Record::of(role, certificate, &node.host, address);
            if is_v4 { record } else { Record { ip_address: None, ..record } }
        };
        let mut records = vec![
            record(Role::Sast, &identities.recovery),
            record(Role::Sast, &identities.call_manager),
            record(Role::CcmTftp, &identities.call_manager),
        ];
        if https {
            records.push(record(Role::Tftp, &identities.call_manager_ecdsa));
        }
        records.push(record(Role::Capf, &identities.capf));
        records.push(record(Role::Tvs, &identities.tvs));
        Self {
            signer_role,
            signer_certificate: signer.clone(),
            signer: SignerKey::of_certificate(signer),
            signer_id: SignerId::of(signer),
            signer_version: if https { SignerVersion::V1_1 } else { SignerVersion::V1_0 },
            records,
        }
    }

    /// Whether `published` says exactly this, under a signature that verifies.
    #[must_use]
    pub fn is_in(&self, published: &[u8], limits: &Limits) -> bool {
        self.check(published, limits).is_ok_and(|same| same)
    }

    fn check(&self, file: &[u8], limits: &Limits) -> Result<bool, PhoneFileError> {
        let signed = SignedFile::parse(file, limits)?;
        signed.verify(std::slice::from_ref(&self.signer), Sha1::Refused)?;
        let Content::TrustList(list) = &signed.content else { return Ok(false) };
        Ok(list.file_name() == ITL_FILE_NAME
            && list.signer() == &self.signer_id
            && list.signer_version() == Some(self.signer_version)
            && list.records() == self.records)
    }

    /// Whose key signs it, and its certificate.
    #[must_use]
    pub const fn signer(&self) -> (KeyRole, &CertificateFacts) {
        (self.signer_role, &self.signer_certificate)
    }

    /// Different certificates in the list.
    #[must_use]
    pub fn certificates(&self) -> usize {
        let all: std::collections::BTreeSet<&[u8]> = self.records.iter().map(|record| &*record.certificate).collect();
        all.len()
    }

    /// Signs the list with the key of its signer, `timestamp` in seconds since 1970, and checks the result as a phone would.
    ///
    /// # Errors
    /// Nobody signed, the list is too large, or what came back is not a list that phones take.
    pub fn sign(&self, signer: &impl Sign, timestamp: u32, limits: &Limits) -> Result<Published, CtlproviderError> {
        let content = |source| CtlproviderError::Content { file: ITL_FILE_NAME.into(), source };
        let list = TrustList::new(
            ITL_FILE_NAME,
            timestamp,
            Some(self.signer_version),
            self.signer_id.clone(),
            self.records.clone(),
        )
        .map_err(content)?;
        let unsigned = Unsigned::trust_list(&list, limits).map_err(content)?;
        let signature = signer
            .sign(Purpose::TrustList, unsigned.to_be_signed())
            .map_err(|source| CtlproviderError::Sign { file: ITL_FILE_NAME.into(), source })?;
        let bytes = unsigned.with_signature(&signature).map_err(content)?;
        if !self.check(&bytes, limits).map_err(content)? {
            return Err(content(PhoneFileError::ReadBack { file: ITL_FILE_NAME.into() }));
        }
        let digest = hex::encode(digest::digest(&digest::SHA256, &bytes));
        let warnings = list.warnings(limits);
        Ok(Published { records: self.records.len(), certificates: self.certificates(), digest, warnings, bytes })
    }
}
