use std::{path::PathBuf, sync::Arc};

use casemate_audit::{Auditor, Event};
use casemate_hsm_api::KeyRole;
use casemate_keyring::{Client, KeyRecord};
use casemate_runtime::{config::NodeSection, daemon::chain};
use tokio::sync::Mutex;

use crate::{CertmgrError, Identity, Provisioned, Records, Request, Response, identity, records::Recorded};

/// Owns the identity certificates of this node.
pub struct Manager {
    client: Client,
    records: Records,
    node: NodeSection,
    folder: PathBuf,
    auditor: Arc<Auditor>,
    /// One provisioning at a time; holds how many certificates were made since the last one that was complete.
    made: Mutex<usize>,
}

impl Manager {
    /// The manager of what stands in `records`, publishing in `folder`, which must exist.
    #[must_use]
    pub fn new(client: Client, records: Records, node: NodeSection, folder: PathBuf, auditor: Arc<Auditor>) -> Self {
        Self { client, records, node, folder, auditor, made: Mutex::new(0) }
    }

    /// Publishes every current certificate whose file is not there or differs: files are derived, the records are what counts.
    ///
    /// # Errors
    /// The records cannot be read or a file cannot be written.
    pub async fn republish(&self) -> Result<(), CertmgrError> {
        let _one_at_a_time = self.made.lock().await;
        for recorded in self.records.all_current().await? {
            if identity::publish(&self.folder, &recorded)? {
                tracing::info!(role = %recorded.role, "published again");
            }
        }
        Ok(())
    }

    /// Answers a control request of the user `uid`.
    pub async fn answer(&self, request: Request, uid: u32) -> Response {
        match request {
            Request::Provision { role } => match self.provision(role, uid).await {
                Ok(provisioned) => Response::Provisioned(provisioned),
                Err(error) => Response::Failed(chain(&error)),
            },
            Request::Identities => match self.identities().await {
                Ok(identities) => Response::Identities(identities),
                Err(error) => Response::Failed(chain(&error)),
            },
        }
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
        if recorded.is_some() {
            // A certificate is on record, so the broker must know its key. One that does not, because its records were lost,
            // would make a new key if it were asked to: so it is not.
            self.client.key(role)?;
        }
        let (key, key_made) = self.client.generate(role)?;
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
        identity::publish(&self.folder, &recorded)?;
        let identity = identity::describe(&self.folder, &recorded)?;
        Ok(Provisioned { identity, key_made, certificate_made })
    }

    async fn issue(&self, key: KeyRecord) -> Result<Recorded, CertmgrError> {
        let recorded = identity::issue(&self.client, key, &self.node)?;
        self.records.add(recorded.clone()).await?;
        let Identity { role, serial, subject, not_after, fingerprint, .. } =
            identity::describe(&self.folder, &recorded)?;
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
        current.iter().map(|recorded| identity::describe(&self.folder, recorded)).collect()
    }
}
