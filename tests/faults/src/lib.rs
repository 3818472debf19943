//! What the fault tests share: phones that misbehave at the door of a lab, a hand at its token, and what breaks on demand between
//! keyd and the token: a module before one of PKCS#11, a wire before a TPM.
#![forbid(unsafe_code)]

mod bus;
mod faulty;
mod token;

use std::{fs, sync::Arc, time::Duration};

pub use bus::{Bus, Noise, tool, tpm_port};
use casemate_harness::{Lab, Ports};
use casemate_phone::{
    PhoneError,
    capf::{AuthString, Behaviour, Enrolment, Fault, KeyHolder, Outcome, Premade, enrol},
    identity::{DeviceKey, KeySpec, Lsc},
    tls::Endpoint,
    trust::TrustList,
};
pub use faulty::{At, Faulty};
pub use token::Token;

/// A phone with a P-256 key made beforehand, that knows the lab's trust list.
pub struct Caller {
    enrolment: Enrolment,
    key: Arc<DeviceKey>,
}

impl Caller {
    /// The phone `device` at the CAPF of `lab`.
    ///
    /// # Errors
    /// The lab publishes no trust list, or the phone does not take it.
    pub fn new(lab: &Lab, device: &str, string: Option<&str>) -> Result<Self, PhoneError> {
        let path = lab.published("ctlprovider", "ITLFile.tlv");
        let list = fs::read(&path).map_err(|source| PhoneError::State { path, source })?;
        let endpoint = Endpoint {
            service: "CAPF",
            host: lab.address(Ports::CAPF).ip().to_string(),
            port: Ports::CAPF,
            limit: Duration::from_secs(20),
        };
        let enrolment = Enrolment::new(endpoint, &TrustList::read(&list)?, device, string.map(AuthString::new))?;
        Ok(Self { enrolment, key: Arc::new(DeviceKey::generate(KeySpec::P256)?) })
    }

    /// The same phone, doing these things wrong and staying on a dead connection for `hold`.
    #[must_use]
    pub fn with(&self, faults: Vec<Fault>, hold: Duration) -> Self {
        let enrolment = Enrolment { behaviour: Behaviour { faults, hold }, ..self.enrolment.clone() };
        Self { enrolment, key: Arc::clone(&self.key) }
    }

    /// The same phone with another key.
    ///
    /// # Errors
    /// No key could be made.
    pub fn with_new_key(&self) -> Result<Self, PhoneError> {
        Ok(Self { enrolment: self.enrolment.clone(), key: Arc::new(DeviceKey::generate(KeySpec::P256)?) })
    }

    /// Enrols once.
    ///
    /// # Errors
    /// As the phone sees it.
    pub fn enrol(&self) -> Result<Outcome, PhoneError> {
        enrol(&self.enrolment, &mut Premade(Arc::clone(&self.key)))
    }

    /// Enrols once; `moment` runs when CAPF asks for the phone's key, in the middle of the session.
    ///
    /// # Errors
    /// As the phone sees it.
    pub fn enrol_with(&self, moment: impl FnOnce()) -> Result<Outcome, PhoneError> {
        enrol(&self.enrolment, &mut Interrupted { premade: Premade(Arc::clone(&self.key)), moment: Some(moment) })
    }
}

/// A key made beforehand, and something that happens before it is handed over.
struct Interrupted<F> {
    premade: Premade,
    moment: Option<F>,
}

impl<F: FnOnce()> KeyHolder for Interrupted<F> {
    fn is_ready(&self, spec: KeySpec) -> bool {
        self.premade.is_ready(spec)
    }

    fn key(&mut self, spec: KeySpec) -> Result<Arc<DeviceKey>, PhoneError> {
        if let Some(moment) = self.moment.take() {
            moment();
        }
        self.premade.key(spec)
    }

    fn keep(&mut self, lsc: &Lsc) -> Result<(), PhoneError> {
        self.premade.keep(lsc)
    }
}
