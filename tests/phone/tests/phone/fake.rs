//! Just enough of a cluster to see what the phone does with it. None of it is the servers' code.

pub(crate) mod capf;
pub(crate) mod cluster;
pub(crate) mod files;
pub(crate) mod serve;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA512, RsaKeyPair};
use casemate_phone::tlv::minimal;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SerialNumber, SignatureAlgorithm, SubjectPublicKeyInfo,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A name with a key and a self-signed certificate.
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) key: KeyPair,
    pub(crate) certificate: Vec<u8>,
}

impl Identity {
    pub(crate) fn rsa(name: &str) -> Self {
        Self::new(name, &PKCS_RSA_SHA256)
    }

    pub(crate) fn ec(name: &str) -> Self {
        Self::new(name, &PKCS_ECDSA_P384_SHA384)
    }

    fn new(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { name: name.to_owned(), key, certificate }
    }

    /// PKCS#1 v1.5 with SHA-512, as files are signed.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let pair = RsaKeyPair::from_pkcs8(self.key.serialized_der()).unwrap();
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    pub(crate) fn serial(&self) -> Vec<u8> {
        minimal(self.parsed().raw_serial()).to_vec()
    }

    pub(crate) fn public_key(&self) -> Vec<u8> {
        self.parsed().public_key().subject_public_key.data.to_vec()
    }

    /// The text form that lists use.
    pub(crate) fn text(&self) -> String {
        format!("CN={}", self.name)
    }

    fn parsed(&self) -> X509Certificate<'_> {
        X509Certificate::from_der(&self.certificate).unwrap().1
    }

    /// Issues a certificate over `spki`, in the name of `issuer`, with this key.
    pub(crate) fn issue(&self, issuer: &str, params: &CertificateParams, spki: &[u8]) -> Vec<u8> {
        let mut issuer_params = CertificateParams::default();
        issuer_params.distinguished_name = common_name(issuer);
        let issuer = Issuer::from_params(&issuer_params, &self.key);
        params.signed_by(&SubjectPublicKeyInfo::from_der(spki).unwrap(), &issuer).unwrap().der().to_vec()
    }
}

/// What a right LSC for `device` says.
pub(crate) fn lsc_params(device: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(device);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.serial_number = Some(SerialNumber::from(0x1234_u64));
    params
}

pub(crate) fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}
