use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use casemate_audit::{Auditor, Event};
use casemate_hsm_api::KeyRole;
use casemate_keyring::Client;
use casemate_phonefile::{ITL_FILE_NAME, ListWarning, PhoneFileError, TrustList};
use casemate_runtime::{
    config::{Config, ConfigError, NodeSection},
    daemon::chain,
    peer::LocalServer,
    publish::{Stamp, Watched, write_atomically},
};

use crate::{
    Certificates, CtlproviderError, CtlproviderSettings, DeviceFiles, Identities, TokenSigner, TrustListPlan, devices,
};

/// Beside the certificates that certmgr publishes: the fingerprint of the key that is to sign lists.
const LIST_SIGNER: &str = "list-signer";

/// A SHA-256 in hexadecimal and a line's end.
const FINGERPRINT_LIMIT: u64 = 65;

/// What a list is made from: the certificates, and who is chosen to sign it.
type Wanted = (Identities, Option<String>);

/// Keeps the published folder as it should be: looks, and builds what differs.
pub struct Provider {
    settings: CtlproviderSettings,
    node: NodeSection,
    folder: PathBuf,
    capf: LocalServer,
    client: Client,
    auditor: Arc<Auditor>,
    certificates: Certificates,
    /// What the list in the folder was made from or compared with, and the stamp of its file then.
    list: Option<(Wanted, Option<Stamp>)>,
    /// Where certmgr says who is to sign the list, if an operator chose.
    chosen_file: Watched,
    chosen: Option<String>,
    /// SHA-256 of the certificate whose signature every device file up to `sequence` has.
    file_signer: Option<[u8; 32]>,
    /// The last change of a device that is in the folder.
    sequence: i64,
    /// When every device was last compared, not only those that changed.
    compared: Instant,
    /// What the last look complained of, so that it is said once.
    complaint: Option<String>,
}

impl Provider {
    /// A provider that publishes in the folder of `casemate-ctlprovider`, which must exist.
    ///
    /// # Errors
    /// `[users]` does not say who capf is.
    pub fn new(
        config: &Config,
        settings: CtlproviderSettings,
        client: Client,
        auditor: Arc<Auditor>,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            node: config.node.clone(),
            folder: config.paths.public_of("ctlprovider"),
            capf: config.server("capf")?,
            certificates: Certificates::new(&config.paths.public_of("certmgr")),
            settings,
            client,
            auditor,
            list: None,
            chosen_file: Watched::new(config.paths.public_of("certmgr").join(LIST_SIGNER), FINGERPRINT_LIMIT),
            chosen: None,
            file_signer: None,
            sequence: 0,
            compared: Instant::now(),
            complaint: None,
        })
    }

    /// Looks once and builds what differs. Returns how long to wait before the next look.
    pub fn look(&mut self) -> Duration {
        let (wait, complaint) = match self.look_or_complain() {
            Ok(()) => (self.settings.poll_ms, None),
            Err(error) => (self.settings.retry_ms, Some(chain(&error))),
        };
        if complaint != self.complaint {
            match &complaint {
                Some(complaint) => tracing::warn!(%complaint, "what is published stays"),
                None => tracing::info!("published files are up to date again"),
            }
            self.complaint = complaint;
        }
        Duration::from_millis(wait.max(1))
    }

    fn look_or_complain(&mut self) -> Result<(), CtlproviderError> {
        // A certificate that cannot be read holds nothing up: the one before it is in use.
        let auditor = &self.auditor;
        let read = self.certificates.look(|error| {
            auditor.record(&Event::TrustListRefused { file: ITL_FILE_NAME.into(), reason: chain(error) });
        });
        let Some(identities) = self.certificates.identities() else {
            return read;
        };
        let list = self.trust_list(&identities);
        // Files are signed by a key that the list names, and phones that know it take them even when the list is late.
        let files = self.device_files(&identities);
        list.and(files).and(read)
    }

    /// Whose key the operator chose; a file that names no key of a signer chooses none.
    fn look_who_is_chosen(&mut self) {
        match self.chosen_file.changed() {
            Ok(None) => {}
            Ok(Some(text)) => self.chosen = String::from_utf8(text).ok().map(|text| text.trim().to_owned()),
            Err(error) => tracing::warn!(%error, "who is to sign lists cannot be read"),
        }
    }

    fn trust_list(&mut self, identities: &Identities) -> Result<(), CtlproviderError> {
        self.look_who_is_chosen();
        let wanted = (identities.clone(), self.chosen.clone());
        let path = self.folder.join(ITL_FILE_NAME);
        let stamp = Stamp::of(&path).map_err(CtlproviderError::file(&path))?;
        if stamp.is_some() && self.list.as_ref().is_some_and(|(made, at)| *made == wanted && *at == stamp) {
            return Ok(());
        }
        let published = match stamp {
            Some(_) => std::fs::read(&path).map_err(CtlproviderError::file(&path))?,
            None => Vec::new(),
        };
        let held = TrustList::verified(&published);
        let plan = TrustListPlan::following(
            held.as_ref(),
            self.chosen.as_deref(),
            identities,
            &self.node,
            self.settings.https,
        )
        .inspect_err(|error| self.audit_refusal(0, error))?;
        if !plan.is_in(&published, &self.settings.limits) {
            self.build_list(&plan, &path).inspect_err(|error| self.audit_refusal(plan.certificates(), error))?;
        }
        let stamp = Stamp::of(&path).map_err(CtlproviderError::file(&path))?;
        self.list = Some((wanted, stamp));
        Ok(())
    }

    fn build_list(&self, plan: &TrustListPlan, path: &std::path::Path) -> Result<(), CtlproviderError> {
        let (role, certificate) = plan.signer();
        let signer = TokenSigner::new(self.client.clone(), role, certificate);
        let list = plan.sign(&signer, now(), &self.settings.limits)?;
        write_atomically(path, &list.bytes, 0o644).map_err(CtlproviderError::file(path))?;
        self.auditor.record(&Event::TrustListBuilt {
            file: ITL_FILE_NAME.into(),
            signer: role.to_string(),
            digest: list.digest,
            certificates: list.records,
            bytes: list.bytes.len(),
        });
        for warning in &list.warnings {
            match warning {
                ListWarning::Certificates { count, .. } => self.audit_size(*count, list.bytes.len()),
            }
        }
        Ok(())
    }

    fn audit_size(&self, certificates: usize, bytes: usize) {
        self.auditor.record(&Event::TrustListTooLarge { file: ITL_FILE_NAME.into(), certificates, bytes });
    }

    /// Once for each reason: it is tried again every few seconds.
    fn audit_refusal(&self, certificates: usize, error: &CtlproviderError) {
        let reason = chain(error);
        if self.complaint.as_ref() == Some(&reason) {
            return;
        }
        if let CtlproviderError::Content { source: PhoneFileError::TooLarge { length, .. }, .. } = error {
            self.audit_size(certificates, *length);
        }
        self.auditor.record(&Event::TrustListRefused { file: ITL_FILE_NAME.into(), reason });
    }

    fn device_files(&mut self, identities: &Identities) -> Result<(), CtlproviderError> {
        let signer = &identities.call_manager;
        let sign = TokenSigner::new(self.client.clone(), KeyRole::CallManager, signer);
        let files = DeviceFiles {
            folder: &self.folder,
            signer,
            threads: self.settings.signatures.min(self.settings.keyring.connections),
            batch: self.settings.batch,
            limits: self.settings.limits,
            auditor: &self.auditor,
        };
        // Every device is compared again at start, when the signer has another certificate, and now and then: a CAPF whose
        // records were restored from a backup counts changes from an earlier number on, and what it says then was missed.
        let another_signer = self.file_signer != Some(signer.sha256);
        if another_signer || self.compared.elapsed() >= Duration::from_millis(self.settings.compare_ms) {
            files.clean()?;
            self.sequence = 0;
            self.file_signer = Some(signer.sha256);
            self.compared = Instant::now();
        }
        loop {
            let changed = devices::changed_since(&self.capf, self.sequence, &self.settings)?;
            let Some(last) = changed.iter().map(|device| device.sequence).max() else { return Ok(()) };
            let wanted = changed
                .iter()
                .map(|device| devices::wanted(device, &self.node, &self.settings))
                .collect::<Result<Vec<_>, _>>()?;
            let built = files.build(&sign, wanted, now())?;
            tracing::info!(signed = built.signed, unchanged = built.unchanged, sequence = last, "device files");
            // Only now: what was asked for up to here is on disk.
            self.sequence = last;
        }
    }
}

/// Seconds since 1970, as file headers carry them until 2106.
fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX))
}
