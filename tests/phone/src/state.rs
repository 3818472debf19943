//! The phone's folder: what it remembers between two starts.
//!
//! `itl.tlv` the known list, `config.xml` the last verified configuration, `lsc.pem` the certificate, `lsc.key` its key,
//! `next.key` a key whose enrolment is not finished. The folder has mode 0700, keys 0600. Every write is atomic.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::error::{PhoneError, Result};
use crate::identity::DeviceKey;
use crate::trust::TrustList;

const LIST: &str = "itl.tlv";
const CONFIG: &str = "config.xml";
const CERTIFICATE: &str = "lsc.pem";
const KEY: &str = "lsc.key";
const NEXT_KEY: &str = "next.key";
/// Larger files are none that the phone wrote.
const MAX_FILE: u64 = 2 << 20;

/// An open folder.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
}

impl State {
    /// Opens the folder, and makes it when it is not there.
    ///
    /// # Errors
    /// [`PhoneError::State`]; [`PhoneError::StateContent`] when others than its owner may enter it.
    pub fn open(folder: &Path) -> Result<Self> {
        let failed = |source| PhoneError::State { path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mode = fs::metadata(folder).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            let why = "others than its owner may enter it; a phone's folder has mode 0700";
            return Err(PhoneError::StateContent { path: folder.to_owned(), why });
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The known trust list, as it was received.
    ///
    /// # Errors
    /// [`PhoneError::State`].
    pub fn list(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.read(LIST)?.map(|bytes| bytes.to_vec()))
    }

    /// The known trust list, read again: a list that no longer holds is not believed, nor forgotten.
    ///
    /// # Errors
    /// [`PhoneError::State`]; [`PhoneError::StateContent`] when the file was changed.
    pub fn known_list(&self) -> Result<Option<TrustList>> {
        let Some(bytes) = self.list()? else { return Ok(None) };
        TrustList::read(&bytes).map(Some).map_err(|_| self.content(LIST, "not the trust list that the phone kept"))
    }

    /// Keeps a trust list.
    ///
    /// # Errors
    /// [`PhoneError::State`].
    pub fn keep_list(&self, bytes: &[u8]) -> Result<()> {
        self.write(LIST, bytes, 0o644)
    }

    /// Keeps a verified configuration.
    ///
    /// # Errors
    /// [`PhoneError::State`].
    pub fn keep_config(&self, xml: &[u8]) -> Result<()> {
        self.write(CONFIG, xml, 0o644)
    }

    /// The certificate in DER.
    ///
    /// # Errors
    /// [`PhoneError::State`]; [`PhoneError::StateContent`] when it is no PEM.
    pub fn certificate(&self) -> Result<Option<Vec<u8>>> {
        let Some(pem) = self.read(CERTIFICATE)? else { return Ok(None) };
        let der =
            CertificateDer::from_pem_slice(&pem).map_err(|_| self.content(CERTIFICATE, "no certificate in PEM"))?;
        Ok(Some(der.to_vec()))
    }

    /// Keeps a certificate (DER).
    ///
    /// # Errors
    /// [`PhoneError::State`].
    pub fn keep_certificate(&self, der: &[u8]) -> Result<()> {
        self.write(CERTIFICATE, &pem("CERTIFICATE", der), 0o644)
    }

    /// The key of the certificate.
    ///
    /// # Errors
    /// [`PhoneError::State`]; [`PhoneError::StateContent`] when it is no key of a phone.
    pub fn key(&self) -> Result<Option<DeviceKey>> {
        self.read_key(KEY)
    }

    /// The key whose enrolment is not finished.
    ///
    /// # Errors
    /// As [`State::key`].
    pub fn next_key(&self) -> Result<Option<DeviceKey>> {
        self.read_key(NEXT_KEY)
    }

    /// Keeps a key before its enrolment, so that a phone that dies in the middle tries again with the same one.
    ///
    /// # Errors
    /// [`PhoneError::State`].
    pub fn keep_next_key(&self, key: &DeviceKey) -> Result<()> {
        self.write(NEXT_KEY, &Zeroizing::new(pem("PRIVATE KEY", key.pkcs8())), 0o600)
    }

    /// Makes the next key the certificate's: the enrolment is finished. Without a next key nothing changes.
    ///
    /// # Errors
    /// [`PhoneError::State`].
    pub fn finish_enrolment(&self) -> Result<()> {
        match fs::rename(self.path(NEXT_KEY), self.path(KEY)) {
            Ok(()) => self.sync_folder(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(PhoneError::State { path: self.path(NEXT_KEY), source }),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn content(&self, name: &str, why: &'static str) -> PhoneError {
        PhoneError::StateContent { path: self.path(name), why }
    }

    fn read_key(&self, name: &str) -> Result<Option<DeviceKey>> {
        let Some(pem) = self.read(name)? else { return Ok(None) };
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| self.content(name, "no private key in PEM"))?;
        let key = DeviceKey::from_pkcs8(Zeroizing::new(der.secret_pkcs8_der().to_vec()))
            .map_err(|_| self.content(name, "no key of a phone"))?;
        Ok(Some(key))
    }

    fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let path = self.path(name);
        let failed = |source| PhoneError::State { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(self.content(name, "larger than anything a phone keeps"));
        }
        Ok(Some(bytes))
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let (path, part) = (self.path(name), self.path(&format!(".{name}.part")));
        let failed = |source| PhoneError::State { path: path.clone(), source };
        // A part that a killed phone left behind may have another mode: it is not written over but replaced.
        match fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part).map_err(failed)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&part, &path).map_err(failed)?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<()> {
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| PhoneError::State { path: self.folder.clone(), source })
    }
}

/// RFC 7468: lines of 64 characters between two labels.
fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut text = format!("-----BEGIN {label}-----\n").into_bytes();
    for line in encoded.as_bytes().chunks(64) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeySpec;

    #[test]
    fn what_is_kept_is_found_again_with_the_right_modes() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("phone");
        let state = State::open(&folder).unwrap();
        assert!(state.list().unwrap().is_none() && state.key().unwrap().is_none());
        let key = DeviceKey::generate(KeySpec::P256).unwrap();
        state.keep_list(b"list").unwrap();
        state.keep_certificate(&[0x30; 100]).unwrap();
        state.keep_next_key(&key).unwrap();
        let state = State::open(&folder).unwrap();
        assert_eq!(state.list().unwrap().unwrap(), b"list");
        assert_eq!(state.certificate().unwrap().unwrap(), [0x30; 100]);
        assert_eq!(state.next_key().unwrap().unwrap().spki(), key.spki());
        state.finish_enrolment().unwrap();
        state.finish_enrolment().unwrap();
        assert!(state.next_key().unwrap().is_none());
        assert_eq!(state.key().unwrap().unwrap().spki(), key.spki());
        let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode(KEY)), (0o700, 0o600));
    }

    #[test]
    fn an_open_folder_and_foreign_files_are_refused() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("phone");
        let state = State::open(&folder).unwrap();
        fs::write(folder.join(KEY), b"not a key").unwrap();
        assert!(matches!(state.key(), Err(PhoneError::StateContent { .. })));
        fs::write(folder.join(CERTIFICATE), b"not a certificate").unwrap();
        assert!(matches!(state.certificate(), Err(PhoneError::StateContent { .. })));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(State::open(&folder), Err(PhoneError::StateContent { .. })));
    }
}
