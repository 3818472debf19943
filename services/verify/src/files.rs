use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Serialize, de::DeserializeOwned};

use crate::VerifyError;

/// No file that is read is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// What the file at `path` holds, up to the limit.
fn read(path: &Path) -> Result<Vec<u8>, VerifyError> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST).read_to_end(&mut content))
        .map_err(|source| VerifyError::Unreadable { path: path.to_owned(), source })?;
    Ok(content)
}

/// The JSON document at `path`, which should be a `what`.
pub(crate) fn document<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T, VerifyError> {
    serde_json::from_slice(&read(path)?).map_err(|error| no_document(path, what, &error.to_string()))
}

/// Every certificate of the PEM file at `path`, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, VerifyError> {
    const WHAT: &str = "PEM file of certificates";
    let content = read(path)?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<_, _>>()
        .map_err(|error| no_document(path, WHAT, &error.to_string()))?;
    if all.is_empty() {
        return Err(no_document(path, WHAT, "there is none in it"));
    }
    Ok(all)
}

/// Writes a new file at `path` for this user alone.
pub(crate) fn write(path: &Path, document: &impl Serialize, what: &'static str) -> Result<(), VerifyError> {
    let mut text = serde_json::to_vec_pretty(document).map_err(|error| no_document(path, what, &error.to_string()))?;
    text.push(b'\n');
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
        .map_err(|source| VerifyError::NotWritten { path: path.to_owned(), source })
}

pub(crate) fn no_document(path: &Path, what: &'static str, detail: &str) -> VerifyError {
    VerifyError::NoDocument { path: path.to_owned(), what, detail: detail.to_owned() }
}
