use casemate_hsm_api::{Backup, KeyAlgorithm, KeyId, KeySpec};
use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType},
    types::Ulong,
};

use crate::public::{EXPONENT, curve};

/// What `C_GenerateKeyPair` is given for one key pair (PKCS#11 v2.40, 4.9; current mechanisms 2.1.4 and 2.3.3).
pub(crate) struct Templates {
    pub(crate) mechanism: Mechanism<'static>,
    pub(crate) public: Vec<Attribute>,
    pub(crate) private: Vec<Attribute>,
}

/// What a key is made for besides signing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Usage {
    /// Nothing.
    SignOnly,
    /// Decryption, which the module cannot be told to leave out.
    MayDecrypt,
}

impl Usage {
    /// Whether this attribute is left to the module.
    const fn leaves(self, kind: AttributeType) -> bool {
        matches!(self, Self::MayDecrypt) && matches!(kind, AttributeType::Encrypt | AttributeType::Decrypt)
    }
}

pub(crate) fn templates(id: KeyId, label: &str, spec: KeySpec, usage: Usage) -> Templates {
    let name = [Attribute::Token(true), Attribute::Id(id.0.to_vec()), Attribute::Label(label.as_bytes().to_vec())];
    let mut public = name.to_vec();
    public.extend([
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Encrypt(false),
        Attribute::Wrap(false),
    ]);
    let mut private = name.to_vec();
    private.extend(
        required(spec).into_iter().filter(|(_, origin)| *origin == Origin::Asked).map(|(attribute, _)| attribute),
    );
    let mechanism = match (spec.algorithm.rsa_bits(), curve(spec.algorithm)) {
        (Some(bits), _) => {
            public.push(Attribute::ModulusBits(Ulong::from(u64::from(bits))));
            public.push(Attribute::PublicExponent(EXPONENT.to_vec()));
            Mechanism::RsaPkcsKeyPairGen
        }
        (None, params) => {
            public.push(Attribute::EcParams(params.unwrap_or_default().to_vec()));
            Mechanism::EccKeyPairGen
        }
    };
    for template in [&mut public, &mut private] {
        template.retain(|attribute| !usage.leaves(attribute.attribute_type()));
    }
    Templates { mechanism, public, private }
}

/// Who gives an attribute its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    /// We ask for it.
    Asked,
    /// The token states it and nobody can set it.
    Told,
}

/// What a private key of this specification must say of itself.
pub(crate) fn required(spec: KeySpec) -> Vec<(Attribute, Origin)> {
    let wrapped = spec.backup == Backup::Wrapped;
    let mut all = vec![
        (Attribute::Private(true), Origin::Asked),
        (Attribute::Sensitive(true), Origin::Asked),
        (Attribute::Extractable(wrapped), Origin::Asked),
        (Attribute::Sign(true), Origin::Asked),
        (Attribute::SignRecover(false), Origin::Asked),
        (Attribute::Decrypt(false), Origin::Asked),
        (Attribute::Unwrap(false), Origin::Asked),
        (Attribute::Derive(false), Origin::Asked),
        (Attribute::Token(true), Origin::Told),
        (Attribute::Local(true), Origin::Told),
        (Attribute::AlwaysSensitive(true), Origin::Told),
        (Attribute::NeverExtractable(!wrapped), Origin::Told),
    ];
    if wrapped {
        all.push((Attribute::WrapWithTrusted(true), Origin::Asked));
    }
    all
}

/// The first attribute in which `read` differs from the specification. A token that does not tell an attribute passes only
/// where the attribute would permit a use: a key without `CKA_DERIVE` derives nothing.
pub(crate) fn difference(spec: KeySpec, usage: Usage, read: &[Attribute]) -> Option<String> {
    required(spec).into_iter().find_map(|(wanted, _)| {
        let kind = wanted.attribute_type();
        if usage.leaves(kind) {
            return None;
        }
        match read.iter().find(|attribute| attribute.attribute_type() == kind) {
            Some(told) if *told == wanted => None,
            Some(told) => Some(format!("it says {told:?}, and {wanted:?} was asked for")),
            None if permits(kind) && wanted != Attribute::Sign(true) => None,
            None => Some(format!("it does not say {wanted:?}")),
        }
    })
}

const fn permits(kind: AttributeType) -> bool {
    matches!(kind, AttributeType::SignRecover | AttributeType::Decrypt | AttributeType::Unwrap | AttributeType::Derive)
}

/// The types of what [`difference`] looks at.
pub(crate) fn required_types(spec: KeySpec) -> Vec<AttributeType> {
    required(spec).into_iter().map(|(attribute, _)| attribute.attribute_type()).collect()
}

/// `CKA_KEY_TYPE` of an algorithm.
pub(crate) const fn key_type(algorithm: KeyAlgorithm) -> KeyType {
    if algorithm.rsa_bits().is_some() { KeyType::RSA } else { KeyType::EC }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
    const WRAPPED: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::Wrapped };

    fn told(spec: KeySpec) -> Vec<Attribute> {
        required(spec).into_iter().map(|(attribute, _)| attribute).collect()
    }

    #[test]
    fn a_key_as_asked_for_differs_in_nothing() {
        assert_eq!(difference(NONE, Usage::SignOnly, &told(NONE)), None);
        assert_eq!(difference(WRAPPED, Usage::SignOnly, &told(WRAPPED)), None);
        assert!(difference(NONE, Usage::SignOnly, &told(WRAPPED)).is_some());
        assert!(difference(WRAPPED, Usage::SignOnly, &told(NONE)).is_some());
    }

    #[test]
    fn each_flipped_attribute_is_noticed() {
        for index in 0..told(NONE).len() {
            let mut read = told(NONE);
            read[index] = match read[index] {
                Attribute::Private(is) => Attribute::Private(!is),
                Attribute::Sensitive(is) => Attribute::Sensitive(!is),
                Attribute::Extractable(is) => Attribute::Extractable(!is),
                Attribute::Sign(is) => Attribute::Sign(!is),
                Attribute::SignRecover(is) => Attribute::SignRecover(!is),
                Attribute::Decrypt(is) => Attribute::Decrypt(!is),
                Attribute::Unwrap(is) => Attribute::Unwrap(!is),
                Attribute::Derive(is) => Attribute::Derive(!is),
                Attribute::Token(is) => Attribute::Token(!is),
                Attribute::Local(is) => Attribute::Local(!is),
                Attribute::AlwaysSensitive(is) => Attribute::AlwaysSensitive(!is),
                Attribute::NeverExtractable(is) => Attribute::NeverExtractable(!is),
                ref other => panic!("{other:?}"),
            };
            assert!(difference(NONE, Usage::SignOnly, &read).is_some(), "{:?}", read[index]);
        }
    }

    #[test]
    fn a_module_that_leaves_decryption_on_is_only_taken_where_that_is_allowed() {
        let read: Vec<_> = told(NONE)
            .into_iter()
            .map(|attribute| if attribute == Attribute::Decrypt(false) { Attribute::Decrypt(true) } else { attribute })
            .collect();
        assert!(difference(NONE, Usage::SignOnly, &read).is_some());
        assert_eq!(difference(NONE, Usage::MayDecrypt, &read), None);
        let asked = templates(KeyId([1; 16]), "k", NONE, Usage::MayDecrypt);
        let mut kinds = asked.public.iter().chain(&asked.private).map(Attribute::attribute_type);
        assert!(!kinds.any(|kind| matches!(kind, AttributeType::Encrypt | AttributeType::Decrypt)));
    }

    #[test]
    fn silence_about_extraction_is_refused_and_silence_about_a_use_is_none() {
        let without = |kind| told(NONE).into_iter().filter(|a| a.attribute_type() != kind).collect::<Vec<_>>();
        assert!(difference(NONE, Usage::SignOnly, &without(AttributeType::Extractable)).is_some());
        assert!(difference(NONE, Usage::SignOnly, &without(AttributeType::Sign)).is_some());
        assert_eq!(difference(NONE, Usage::SignOnly, &without(AttributeType::Unwrap)), None);
    }
}
