//! Re-keying an identity: a new key in the token that `role-tokens.toml` names, a new certificate, a list that tells phones, and
//! only then the end of the old key. Never a copy of a key, and never the end of one that phones still need.
//!
//! The order, of which each step looks first at what is there, so that it can be stopped anywhere and asked for again:
//!
//! 1. the key broker makes the next key beside the one that serves; both sign when they are named by their fingerprints;
//! 2. the next key certifies itself, and the certificate is recorded;
//! 3. it is published: daemons name the key of the certificate that they find, so this is when the new key begins to serve;
//! 4. ctlprovider names it in a list, signed by a key that phones know from the list they hold;
//! 5. the old key is retired: it signs nothing any more, and stays in its token.

mod effects;
mod plan;

use std::{fs, time::Duration};

use casemate_hsm_api::KeyRole;
use casemate_phonefile::{ITL_FILE_NAME, TrustList};
use casemate_runtime::publish::write_atomically;
pub use plan::{Held, RekeyPlan, Stage, Target};

use crate::{
    CertmgrError, FinishedRekey, Manager, Response, identity,
    rekey::plan::{Known, is_listed},
};

/// Beside the certificates, for ctlprovider: the fingerprint of the key that is to sign lists.
const LIST_SIGNER: &str = "list-signer";

/// How a signed configuration of a phone is named.
const SIGNED: &str = ".cnf.xml.sgn";

impl Manager {
    /// What a re-key of `role` would do now, or what is left of one that is under way.
    ///
    /// # Errors
    /// The broker or the records cannot be asked.
    pub(crate) async fn plan_rekey(&self, role: KeyRole) -> Result<RekeyPlan, CertmgrError> {
        let status = self.client.status()?;
        let (certificates, published) = (self.records.all_current().await?, self.published_list());
        let phones = self.phones();
        let known = Known { status: &status, certificates: &certificates, published: published.as_ref(), phones };
        plan::plan(role, &known)
    }

    /// Refuses a signer of lists whom phones do not know from the list that they are offered, or who is away.
    pub(crate) async fn check_list_signer(&self, role: KeyRole) -> Result<(), CertmgrError> {
        let (certificates, published) = (self.records.all_current().await?, self.published_list());
        let known = Known {
            status: &self.client.status()?,
            certificates: &certificates,
            published: published.as_ref(),
            phones: 0,
        };
        known.check_signer(role)
    }

    /// Tells ctlprovider whose key is to sign lists. The key, and not its role: the next one of the role is not chosen by that.
    pub(crate) async fn choose_list_signer(&self, role: KeyRole) -> Result<(), CertmgrError> {
        let Some(certificate) = self.records.current(role).await? else { return Ok(()) };
        let path = self.folders.certificates.join(LIST_SIGNER);
        if fs::read_to_string(&path).is_ok_and(|chosen| chosen.trim() == certificate.key_fingerprint) {
            return Ok(());
        }
        write_atomically(&path, format!("{}\n", certificate.key_fingerprint).as_bytes(), 0o644)
            .map_err(|source| CertmgrError::Publish { path, source })
    }

    /// The list that phones are offered, if there is one whose signature holds.
    fn published_list(&self) -> Option<TrustList> {
        TrustList::verified(&fs::read(self.folders.lists.join(ITL_FILE_NAME)).ok()?)
    }

    /// How many phones have a configuration file.
    fn phones(&self) -> usize {
        let files = fs::read_dir(&self.folders.lists).into_iter().flatten().flatten();
        files.filter(|file| file.file_name().to_string_lossy().ends_with(SIGNED)).count()
    }

    pub(crate) async fn finish_alone(&self, role: KeyRole) -> Result<Response, CertmgrError> {
        let recorded = self.records.current(role).await?.ok_or(CertmgrError::NoRekey { role })?;
        let key = self.client.key(role)?;
        if key.fingerprint == recorded.key_fingerprint {
            return self.finished_before(role).await;
        }
        if self.client.key_named(role, &recorded.key_fingerprint).is_err() {
            return Err(CertmgrError::NoRekey { role });
        }
        let path = self.folders.certificates.join(identity::file_name(role));
        if identity::publish(&self.folders.certificates, &recorded)? {
            return Ok(Response::RekeyWaits("the new certificate was published just now".to_owned()));
        }
        let list = self.published_list();
        if is_listed(role, list.as_ref()) && !list.is_some_and(|list| names(&list, &recorded.der)) {
            let reason = format!(
                "casemate-ctlprovider has not published a list with the new {role} certificate; if it does not within seconds, \
                 `casemate audit tail` says why (TrustListRefused)"
            );
            return Ok(Response::RekeyWaits(reason));
        }
        let settle = Duration::from_millis(self.settings.settle_ms);
        let published = fs::metadata(&path).and_then(|data| data.modified());
        // After a clock was set back a file may be of the future: nobody waits for that.
        if published.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < settle)) {
            return Ok(Response::RekeyWaits(format!("the daemons have {} s to look", settle.as_secs_f32())));
        }
        let retired = self.client.retire(role, &key.fingerprint)?;
        self.finished(role, retired.fingerprint, retired.token).await
    }

    /// The answer to who asks again because the one before was lost.
    async fn finished_before(&self, role: KeyRole) -> Result<Response, CertmgrError> {
        let retired = self.client.status()?.retired;
        let last = retired.into_iter().rfind(|key| key.role == role).ok_or(CertmgrError::NoRekey { role })?;
        self.finished(role, last.fingerprint, last.token).await
    }

    async fn finished(&self, role: KeyRole, retired: String, retired_token: String) -> Result<Response, CertmgrError> {
        let recorded = self.records.current(role).await?.ok_or(CertmgrError::NoRekey { role })?;
        let identity = identity::describe(&self.folders.certificates, &recorded)?;
        Ok(Response::RekeyFinished(FinishedRekey { identity, retired, retired_token }))
    }
}

/// Whether `list` has a record of this certificate.
fn names(list: &TrustList, certificate: &[u8]) -> bool {
    list.records().iter().any(|record| record.certificate == certificate)
}
