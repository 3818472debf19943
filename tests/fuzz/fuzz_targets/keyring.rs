//! The key broker: frames of its socket, and the judge of what it signs. Whatever is asked, a scheme serves one kind of
//! signature, and only a message that is read as its purpose says is signed.
#![no_main]

use std::sync::LazyLock;

use casemate_hsm_api::{KeyAlgorithm, KeyRole, SignatureScheme};
use casemate_keyd::{
    JudgeLimits,
    judge::{Identities, Known, judge},
};
use casemate_keyring::{FRAMING, Purpose, Request, Response, SignRequest};
use casemate_phonefile::{Limits, ToBeSigned};
use casemate_pki::TbsFacts;
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::{OffsetDateTime, macros::datetime};

/// Within the validity of the vectors' certificates and of the corpus's messages.
const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);

macro_rules! vector {
    ($name:literal) => {
        include_bytes!(concat!("../../../services/phonefile/tests/vectors/", $name))
    };
}

/// The keys of the sample node, as its broker knows them.
struct Node {
    certificates: Vec<(KeyRole, TbsFacts)>,
    identities: Identities,
    limits: JudgeLimits,
}

static NODE: LazyLock<Node> = LazyLock::new(|| {
    let files: [(KeyRole, &[u8]); 5] = [
        (KeyRole::ItlRecovery, vector!("sast.crt")),
        (KeyRole::CallManager, vector!("ccm.crt")),
        (KeyRole::CallManagerEcdsa, vector!("tftpec.crt")),
        (KeyRole::Capf, vector!("capf.crt")),
        (KeyRole::Tvs, vector!("tvs.crt")),
    ];
    let parse = |(role, pem)| {
        let der = CertificateDer::from_pem_slice(pem).expect("a vector is PEM");
        (role, TbsFacts::parse(signed_part(&der)).expect("a vector is a certificate"))
    };
    let certificates: Vec<_> = files.into_iter().map(parse).collect();
    let identities = certificates.iter().map(|(role, facts)| (*role, facts.spki_der.clone())).collect();
    Node { certificates, identities, limits: JudgeLimits::default() }
});

/// The first element of a certificate, both of a length that takes two bytes.
fn signed_part(certificate: &[u8]) -> &[u8] {
    let length = usize::from(u16::from_be_bytes([certificate[6], certificate[7]]));
    &certificate[4..8 + length]
}

fn check(SignRequest { role, key: _, scheme, purpose, message }: &SignRequest) {
    let node = &*NODE;
    let Some((_, facts)) = node.certificates.iter().find(|(other, _)| other == role) else { return };
    let algorithm = if *role == KeyRole::CallManagerEcdsa { KeyAlgorithm::P384 } else { KeyAlgorithm::Rsa2048 };
    let known = Known {
        role: *role,
        algorithm,
        spki: &facts.spki_der,
        certificates: std::slice::from_ref(facts),
        identities: &node.identities,
        limits: &node.limits,
        now: NOW,
    };
    let Ok(judged) = judge(message, purpose, *scheme, &known) else { return };
    assert!(scheme.fits(algorithm));
    assert!(!judged.object.contains('\n'), "the audit trail has one line an event");
    match purpose {
        Purpose::DeviceCertificate { device, .. } => {
            let tbs = TbsFacts::parse(message).expect("it was judged");
            assert_eq!(tbs.issuer_der, facts.subject_der);
            assert!(node.certificates.iter().all(|(_, own)| own.spki_der != tbs.spki_der), "one of our own keys");
            assert!(judged.object.contains(device.as_str()));
        }
        Purpose::TrustList | Purpose::File { .. } => {
            assert_eq!(*scheme, SignatureScheme::RsaPkcs1Sha512);
            assert!(ToBeSigned::parse(message, &Limits::default()).is_ok());
        }
        Purpose::TlsHandshake => {
            assert!(!matches!(scheme, SignatureScheme::RsaPkcs1Sha256 | SignatureScheme::RsaPkcs1Sha512));
            assert!(TbsFacts::parse(message).is_err() && ToBeSigned::parse(message, &Limits::default()).is_err());
        }
        Purpose::SelfSigned | Purpose::CertificateRequest => {}
    }
}

/// Short of postcard's form: a byte for the role, one for the scheme, one for the purpose, and the message.
fn short(data: &[u8]) -> Option<SignRequest> {
    let ([role, scheme, purpose], message) = data.split_first_chunk()?;
    let (role, _) = NODE.certificates.get(usize::from(*role))?;
    let scheme = *SignatureScheme::ALL.get(usize::from(*scheme))?;
    let purpose = match purpose {
        0 => Purpose::SelfSigned,
        1 => Purpose::CertificateRequest,
        2 => Purpose::DeviceCertificate { device: "SEP001122334455".to_owned(), operation: 1 },
        3 => Purpose::TrustList,
        4 => Purpose::File { name: "SEP001122334455.cnf.xml.sgn".to_owned() },
        5 => Purpose::TlsHandshake,
        _ => return None,
    };
    Some(SignRequest { role: *role, key: None, scheme, purpose, message: message.to_vec() })
}

fuzz_target!(|data: &[u8]| {
    if let Ok(Some(request)) = FRAMING.read::<Request>(&mut &data[..]) {
        let written = FRAMING.encode(&request).expect("what came in a frame fits one");
        assert_eq!(FRAMING.decode::<Request>(&written[4..]).expect("what is written is read"), request);
        if let Request::Sign(request) = &request {
            check(request);
        }
    }
    let _ = FRAMING.decode::<Response>(data);
    if let Some(request) = short(data) {
        check(&request);
    }
});
