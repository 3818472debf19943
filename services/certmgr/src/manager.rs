use std::{path::PathBuf, sync::Arc};

use casemate_audit::{Auditor, Event};
use casemate_hsm_api::KeyRole;
use casemate_keyring::{Client, KeyRecord};
use casemate_runtime::{config::NodeSection, daemon::chain};
use tokio::sync::Mutex;

use crate::{
    CertmgrError, Identity, Provisioned, Records, RekeySettings, Request, Response, identity, records::Recorded,
};

/// Where things are published.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Certificates, by certmgr; it must exist.
    pub certificates: PathBuf,
    /// Trust list and phones' files, by ctlprovider; read alone.
    pub lists: PathBuf,
}

/// Owns the identity certificates of this node.
pub struct Manager {
    pub(crate) client: Client,
    pub(crate) records: Records,
    node: NodeSection,
    pub(crate) folders: Folders,
    pub(crate) settings: RekeySettings,
    auditor: Arc<Auditor>,
    /// One provisioning at a time; holds how many certificates were made since the last one that was complete.
    made: Mutex<usize>,
}

impl Manager {
    /// The manager of what stands in `records`.
    #[must_use]
    pub fn new(
        client: Client,
        records: Records,
        node: NodeSection,
        folders: Folders,
        settings: RekeySettings,
        auditor: Arc<Auditor>,
    ) -> Self {
        Self { client, records, node, folders, settings, auditor, made: Mutex::new(0) }
    }

    /// Publishes every current certificate whose file is not there or differs: files are derived, the records are what counts.
    ///
    /// # Errors
    /// The records cannot be read or a file cannot be written.
    pub async fn republish(&self) -> Result<(), CertmgrError> {
        let _one_at_a_time = self.made.lock().await;
        for recorded in self.records.all_current().await? {
            if identity::publish(&self.folders.certificates, &recorded)? {
                tracing::info!(role = %recorded.role, "published again");
            }
        }
        Ok(())
    }

    /// Answers a control request of the user `uid`.
    pub async fn answer(&self, request: Request, uid: u32) -> Response {
        let outcome = match request {
            Request::Provision { role } => self.provision(role, uid).await.map(Response::Provisioned),
            Request::Identities => self.identities().await.map(Response::Identities),
            Request::PlanRekey { role } => self.plan_rekey(role).await.map(|plan| Response::Plan(Box::new(plan))),
            Request::Rekey { role } => self.rekey(role, uid).await.map(Response::Rekeyed),
            Request::FinishRekey { role } => self.finish_rekey(role, uid).await,
            Request::SignLists { role } => self.sign_lists(role, uid).await.map(|()| Response::ListSigner(role)),
        };
        outcome.unwrap_or_else(|error| Response::Failed(chain(&error)))
    }

    /// Gives `role` a next key and its certificate, and publishes that, for the user `uid`. May be stopped anywhere and called
    /// again.
    ///
    /// # Errors
    /// As [`CertmgrError`] says; audited.
    pub async fn rekey(&self, role: KeyRole, uid: u32) -> Result<Identity, CertmgrError> {
        let _one_at_a_time = self.made.lock().await;
        self.rekey_alone(role).await.inspect_err(|error| self.refused(role, uid, error))
    }

    async fn rekey_alone(&self, role: KeyRole) -> Result<Identity, CertmgrError> {
        let plan = self.plan_rekey(role).await?;
        if let Some(reason) = plan.refused {
            return Err(CertmgrError::RekeyRefused { role, reason });
        }
        let (key, _) = self.client.rekey(role)?;
        let recorded = match self.records.current(role).await? {
            Some(recorded) if recorded.key_fingerprint == key.fingerprint => recorded,
            _ => self.issue(key).await?,
        };
        if let Some(signer) = plan.list_signer {
            // Before the new certificate: a signer that is re-keyed must not sign before phones know it.
            self.choose_list_signer(signer).await?;
        }
        // From here on the new key serves: every daemon names the key of the certificate that is published.
        identity::publish(&self.folders.certificates, &recorded)?;
        identity::describe(&self.folders.certificates, &recorded)
    }

    /// Retires the key before the one that is certified, once phones are offered the new certificate.
    ///
    /// # Errors
    /// As [`CertmgrError`] says; audited.
    async fn finish_rekey(&self, role: KeyRole, uid: u32) -> Result<Response, CertmgrError> {
        let _one_at_a_time = self.made.lock().await;
        self.finish_alone(role).await.inspect_err(|error| self.refused(role, uid, error))
    }

    /// Has the key of `role` sign the lists from now on.
    ///
    /// # Errors
    /// Phones do not know it, or it is away; audited.
    async fn sign_lists(&self, role: KeyRole, uid: u32) -> Result<(), CertmgrError> {
        let _one_at_a_time = self.made.lock().await;
        self.check_list_signer(role).await.inspect_err(|error| self.refused(role, uid, error))?;
        self.choose_list_signer(role).await?;
        self.auditor.record(&Event::ListSignerChosen { role: role.to_string(), uid });
        Ok(())
    }

    fn refused(&self, role: KeyRole, uid: u32, error: &CertmgrError) {
        self.auditor.record(&Event::RekeyRefused { role: role.to_string(), uid, reason: chain(error) });
    }

    /// Gives `role` its key and certificate, for the user `uid`. May be stopped anywhere and called again.
    ///
    /// # Errors
    /// As [`CertmgrError`] says; audited.
    pub async fn provision(&self, role: KeyRole, uid: u32) -> Result<Provisioned, CertmgrError> {
        let mut made = self.made.lock().await;
        let outcome = self.provision_alone(role).await;
        match &outcome {
            Ok(provisioned) => {
                *made += usize::from(provisioned.certificate_made);
                let identities = self.records.all_current().await?.len();
                if identities == KeyRole::ALL.len() && KeyRole::ALL.last() == Some(&role) {
                    self.auditor.record(&Event::Provisioned { identities, made: std::mem::take(&mut *made), uid });
                }
            }
            Err(error) => {
                self.auditor.record(&Event::ProvisionFailed { role: role.to_string(), uid, reason: chain(error) });
            }
        }
        outcome
    }

    async fn provision_alone(&self, role: KeyRole) -> Result<Provisioned, CertmgrError> {
        let recorded = self.records.current(role).await?;
        let mut is_next = false;
        if let Some(recorded) = &recorded {
            // A certificate is on record, so the broker must know its key. One that does not, because its records were lost,
            // would make a new key if it were asked to: so it is not.
            let current = self.client.key(role)?;
            // While the role is re-keyed its certificate is of the next key, and nothing is to be made.
            is_next = current.fingerprint != recorded.key_fingerprint
                && self.client.key_named(role, &recorded.key_fingerprint).is_ok();
        }
        let (key, key_made) = match &recorded {
            Some(recorded) if is_next => (self.client.key_named(role, &recorded.key_fingerprint)?, false),
            _ => self.client.generate(role)?,
        };
        let (recorded, certificate_made) = match recorded {
            Some(recorded) if recorded.key_fingerprint == key.fingerprint => (recorded, false),
            Some(recorded) => {
                return Err(CertmgrError::KeyReplaced {
                    role,
                    recorded: recorded.key_fingerprint,
                    found: key.fingerprint,
                });
            }
            None => (self.issue(key).await?, true),
        };
        identity::publish(&self.folders.certificates, &recorded)?;
        let identity = identity::describe(&self.folders.certificates, &recorded)?;
        Ok(Provisioned { identity, key_made, certificate_made })
    }

    pub(crate) async fn issue(&self, key: KeyRecord) -> Result<Recorded, CertmgrError> {
        let recorded = identity::issue(&self.client, key, &self.node)?;
        self.records.add(recorded.clone()).await?;
        let Identity { role, serial, subject, not_after, fingerprint, .. } =
            identity::describe(&self.folders.certificates, &recorded)?;
        let role = role.to_string();
        self.auditor.record(&Event::IdentityIssued { role, serial, subject, not_after, fingerprint });
        Ok(recorded)
    }

    /// Every current identity.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn identities(&self) -> Result<Vec<Identity>, CertmgrError> {
        let current = self.records.all_current().await?;
        current.iter().map(|recorded| identity::describe(&self.folders.certificates, recorded)).collect()
    }
}
