//! What the console and ctlprovider ask over `capf.sock` (framed by `casemate_runtime::control`).

use std::{sync::Arc, time::Duration};

use casemate_audit::Event;
use casemate_hsm_api::KeyAlgorithm;
use casemate_runtime::{config::Config, control::Callers, peer::Peer, refusals::Refusals};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    DeviceName,
    authentication::{AuthenticationString, Mode},
    enrolment::Enrolment,
    records::{NewOperation, RecordsError},
    settings::CapfSettings,
};

/// Most devices in one answer: it stays far below the limit of a frame.
pub const PAGE_LIMIT: u32 = 4096;

/// A question.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Let a device install a certificate; in place of an operation that pends. Operators only.
    AddPhone {
        /// Which device; new or known.
        name: DeviceName,
        /// How it proves itself.
        authentication: Authentication,
        /// The key that it is to make.
        key: KeyAlgorithm,
    },
    /// Devices in the order of their names. Operators only.
    ListPhones {
        /// Those after this one; from the first if none.
        after: Option<DeviceName>,
        /// At most so many; [`PAGE_LIMIT`] at the most.
        limit: u32,
    },
    /// Devices whose configuration changed after the change of this number, in the order of their last changes. ctlprovider and
    /// root only. Cheap when nothing changed: ask often.
    DevicesSince {
        /// The number of the last change that the caller knows; 0 at first.
        sequence: i64,
        /// At most so many; [`PAGE_LIMIT`] at the most.
        limit: u32,
    },
}

/// How a device is to prove itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Authentication {
    /// By this string.
    String(AuthenticationString),
    /// Not at all.
    NullString,
}

/// An answer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::AddPhone`].
    Added {
        /// The number of the operation.
        operation: i64,
    },
    /// To [`Request::ListPhones`].
    Phones(Vec<Phone>),
    /// To [`Request::DevicesSince`].
    Devices(Vec<DeviceConfig>),
    /// Nothing was done, and why.
    Refused(String),
}

/// A device as an operator sees it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Phone {
    /// Its name.
    pub name: DeviceName,
    /// How its last operation authenticates.
    pub mode: Mode,
    /// The key of its last operation.
    pub key: KeyAlgorithm,
    /// Where its last operation stands: `pending`, `delivered`, `locked`, `expired`.
    pub operation: String,
    /// Wrong strings against it.
    pub failures: u32,
    /// When it runs out, in seconds since 1970.
    pub expires: Option<i64>,
    /// The last certificate that the device confirmed, hexadecimal.
    pub serial: Option<String>,
    /// The end of that certificate, in seconds since 1970.
    pub not_after: Option<i64>,
}

/// What a device's configuration file says of CAPF.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeviceConfig {
    /// Its name.
    pub name: DeviceName,
    /// How its pending operation authenticates; nothing while none pends.
    pub mode: Option<Mode>,
    /// The number of its last change: grows, so it serves as the file's version.
    pub sequence: i64,
}

/// Who may ask what, and where it is recorded that somebody asked more.
#[derive(Clone)]
pub(crate) struct Rights {
    operators: Callers,
    readers: Callers,
    any: Callers,
    refusals: Arc<Refusals>,
}

impl Rights {
    pub(crate) fn of(config: &Config, refusals: Arc<Refusals>) -> Self {
        Self {
            operators: Callers::root_and(config, &["admin"]),
            readers: Callers::root_and(config, &["ctlprovider"]),
            any: Callers::root_and(config, &["admin", "ctlprovider"]),
            refusals,
        }
    }

    /// Those that the socket does not close at once.
    pub(crate) fn any(&self) -> Callers {
        self.any.clone()
    }

    fn allow(&self, request: &Request, peer: Peer) -> bool {
        match request {
            Request::AddPhone { .. } | Request::ListPhones { .. } => self.operators.include(peer),
            Request::DevicesSince { .. } => self.readers.include(peer),
        }
    }
}

/// Answers one request.
pub(crate) async fn answer(
    enrolment: &Enrolment,
    settings: &CapfSettings,
    rights: &Rights,
    request: Request,
    peer: Peer,
) -> Response {
    if !rights.allow(&request, peer) {
        let reason = "may not ask this of capf".to_owned();
        rights.refusals.record(&Event::CallerRefused { uid: peer.uid, pid: peer.pid, reason: reason.clone() });
        return Response::Refused(reason);
    }
    let records = enrolment.records();
    let answer = match request {
        Request::AddPhone { name, authentication, key } => {
            add(enrolment, settings, name, authentication, key, peer).await
        }
        Request::ListPhones { after, limit } => {
            records.phones(after.as_ref(), limit.min(PAGE_LIMIT)).await.map(Response::Phones)
        }
        Request::DevicesSince { sequence, limit } => {
            records.changed_since(sequence, limit.min(PAGE_LIMIT)).await.map(Response::Devices)
        }
    };
    answer.unwrap_or_else(|error| Response::Refused(error.to_string()))
}

async fn add(
    enrolment: &Enrolment,
    settings: &CapfSettings,
    device: DeviceName,
    authentication: Authentication,
    key: KeyAlgorithm,
    peer: Peer,
) -> Result<Response, RecordsError> {
    let (string, seconds) = match authentication {
        Authentication::String(string) => (Some(string), settings.authentication_string_s),
        // A null string for ever would be a door that nobody closes.
        Authentication::NullString => (None, settings.null_string_s),
    };
    let lifetime = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
    let new = NewOperation { device, string, key, lifetime };
    let operation = enrolment.records().add(new, peer.uid, OffsetDateTime::now_utc()).await?;
    Ok(Response::Added { operation })
}

#[cfg(test)]
mod tests {
    use casemate_audit::{AuditSettings, Auditor};
    use casemate_runtime::refusals::WINDOW;

    use super::*;
    use crate::{
        issuer::{IssueError, Issued, Issuer, Leaf},
        records::Records,
    };

    struct NoIssuer;

    impl Issuer for NoIssuer {
        fn issue(&self, _: &Leaf) -> Result<Issued, IssueError> {
            Err(IssueError::NotProvisioned)
        }
    }

    struct Desk {
        dir: tempfile::TempDir,
        enrolment: Enrolment,
        rights: Rights,
    }

    impl Desk {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("casemate.toml");
            std::fs::write(&file, "[users]\nadmin = 100\nctlprovider = 200\ntftp = 300\n").unwrap();
            let trail =
                AuditSettings { journal_socket: dir.path().join("absent"), file: dir.path().join("audit.jsonl") };
            let auditor = Arc::new(Auditor::open("casemate-capf", &trail).unwrap());
            let settings = CapfSettings::default();
            let refusals = Refusals::new("capf.sock", settings.control.audited_refusals, WINDOW, Arc::clone(&auditor));
            let rights = Rights::of(&Config::load(&file).unwrap(), refusals);
            let records =
                Records::open(&dir.path().join("capf.db"), settings.store, Arc::clone(&auditor)).await.unwrap();
            let enrolment =
                Enrolment::new(records, Arc::new(NoIssuer), auditor, settings.session, 1, settings.audited_refusals);
            Self { dir, enrolment, rights }
        }

        async fn ask(&self, uid: u32, request: Request) -> Response {
            answer(&self.enrolment, &CapfSettings::default(), &self.rights, request, Peer { uid, pid: 1 }).await
        }

        fn trail(&self) -> String {
            std::fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap_or_default()
        }
    }

    fn add(authentication: Authentication) -> Request {
        Request::AddPhone { name: "SEP001122334455".parse().unwrap(), authentication, key: KeyAlgorithm::P256 }
    }

    #[tokio::test]
    async fn operators_add_and_ctlprovider_reads_and_nobody_does_the_others_part() {
        let desk = Desk::new().await;
        let string = || Authentication::String(AuthenticationString::try_from("12345".to_owned()).unwrap());
        let since = || Request::DevicesSince { sequence: 0, limit: 10 };
        let list = || Request::ListPhones { after: None, limit: 10 };
        for (uid, request) in
            [(200, add(string())), (200, list()), (100, since()), (300, since()), (300, add(string()))]
        {
            assert!(matches!(desk.ask(uid, request).await, Response::Refused(_)));
        }
        assert_eq!(desk.trail().matches("CallerRefused").count(), 5);
        assert_eq!(desk.ask(100, add(string())).await, Response::Added { operation: 1 });
        assert_eq!(desk.ask(0, add(Authentication::NullString)).await, Response::Added { operation: 2 });
        let Response::Devices(devices) = desk.ask(200, since()).await else { panic!() };
        assert_eq!(devices.len(), 1);
        assert_eq!((devices[0].mode, devices[0].sequence), (Some(Mode::NullString), 2));
        let Response::Phones(phones) = desk.ask(100, list()).await else { panic!() };
        let remaining = phones[0].expires.unwrap() - OffsetDateTime::now_utc().unix_timestamp();
        assert!((23 * 3600..=24 * 3600).contains(&remaining));
        assert!(!desk.trail().contains("12345\""), "no string in the trail");
    }

    #[tokio::test]
    async fn a_caller_that_may_not_ask_cannot_fill_the_trail_and_is_counted() {
        let desk = Desk::new().await;
        let limit = CapfSettings::default().control.audited_refusals.get() as usize;
        for _ in 0..limit + 50 {
            let refused = desk.ask(200, Request::ListPhones { after: None, limit: 1 }).await;
            assert!(matches!(refused, Response::Refused(_)));
        }
        let refused = |trail: &str| trail.matches("\"CallerRefused\"").count();
        assert_eq!(refused(&desk.trail()), limit);
        let Desk { dir, enrolment: _enrolment, rights } = desk;
        drop(rights);
        let trail = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
        assert_eq!(refused(&trail), limit);
        assert!(trail.contains("audited-refusals (50 more not listed)"), "{trail}");
    }

    #[test]
    fn a_request_survives_the_frame_and_a_bad_name_or_string_does_not_get_through_it() {
        let framing = casemate_runtime::control::FRAMING;
        let request = add(Authentication::String(AuthenticationString::try_from("0123".to_owned()).unwrap()));
        let frame = framing.encode(&request).unwrap();
        assert_eq!(framing.decode::<Request>(&frame[4..]).unwrap(), request);
        for (from, to) in [(&b"SEP0"[..], &b"../0"[..]), (b"0123", b"012x")] {
            let mut bad = frame.clone();
            let at = bad.windows(4).position(|window| window == from).unwrap();
            bad[at..at + 4].copy_from_slice(to);
            assert!(framing.decode::<Request>(&bad[4..]).is_err());
        }
    }
}
