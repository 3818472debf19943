use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, oid_registry::Oid, prelude::FromDer, x509::X509Name,
};

/// Attributes of the subject's alternative name by which a maker names a TPM (TCG EK Credential Profile 2.5, 3.1.2).
const ATTRIBUTES: [(&str, &str); 3] =
    [("manufacturer", "2.23.133.2.1"), ("model", "2.23.133.2.2"), ("version", "2.23.133.2.3")];

/// A TPM, as its maker certified it: who issued the endorsement certificate, and what that calls the TPM.
pub(crate) struct Maker {
    pub(crate) issuer: String,
    pub(crate) tpm: String,
}

impl Maker {
    /// Reads an endorsement certificate that was judged before. What cannot be read of it is told as unknown.
    pub(crate) fn of(certificate: &[u8]) -> Self {
        let unknown = || "unknown".to_owned();
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self { issuer: unknown(), tpm: unknown() };
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let directory = names.iter().find_map(|name| match name {
            GeneralName::DirectoryName(name) => Some(name),
            _ => None,
        });
        Self { issuer: certificate.issuer().to_string(), tpm: directory.map_or_else(unknown, describe) }
    }
}

fn describe(name: &X509Name<'_>) -> String {
    let value = |dotted: &str| {
        let attribute = name.iter_attributes().find(|attribute| is(attribute.attr_type(), dotted))?;
        attribute.as_str().ok()
    };
    let told = ATTRIBUTES.iter().filter_map(|(word, dotted)| Some(format!("{word} {}", value(dotted)?)));
    told.collect::<Vec<_>>().join(", ")
}

fn is(oid: &Oid<'_>, dotted: &str) -> bool {
    oid.to_id_string() == dotted
}
