//! The start of a phone, from power-on to a certificate.

mod settings;
mod transcript;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use settings::{Expected, Ports, Question, Settings};
pub use transcript::{Held, Step, Transcript};

use crate::capf::{AuthString, Enrolment, KeyHolder, Outcome, enrol};
use crate::config::{CapfAuthMode, DeviceConfig};
use crate::error::{PhoneError, Result};
use crate::identity::{DeviceKey, KeySpec, Lsc};
use crate::state::State;
use crate::tlv::record::Role;
use crate::trust::{LIST_NAME, Standing, TrustList};
use crate::tvs::{self, Verdict};

/// Plays the start of a phone. `watch` is called after each step that held.
///
/// # Errors
/// The first thing that did not hold. What was verified before it is kept in the state folder.
pub fn play(settings: &Settings, watch: &mut dyn FnMut(&Step)) -> Result<Transcript> {
    settings.check()?;
    let state = State::open(&settings.state)?;
    let mut player = Player { settings, state, steps: Vec::new(), watch };
    let list = player.trust_list()?;
    let config = player.configuration(&list)?;
    player.question(&list, &config)?;
    let outcome = player.certificate(&list, &config)?;
    Ok(Transcript { device: settings.device.clone(), steps: player.steps, certificate: outcome })
}

struct Player<'a> {
    settings: &'a Settings,
    state: State,
    steps: Vec<Step>,
    watch: &'a mut dyn FnMut(&Step),
}

impl Player<'_> {
    fn held(&mut self, name: &'static str, took: Duration, said: String) {
        let step = Step { name, took, said };
        (self.watch)(&step);
        self.steps.push(step);
    }

    /// Lists in the order in which phones ask for them; a missing one is no failure, but for the last.
    fn fetch_list(&self) -> Result<(String, Vec<u8>)> {
        let files = self.settings.file_server();
        let device = &self.settings.device;
        let ctl = format!("CTL{device}.tlv");
        match files.fetch(&ctl) {
            Err(PhoneError::NotFound { .. }) => {}
            Ok(_) => return Err(PhoneError::List("a CTL is served, and this phone plays none but ITLs")),
            Err(error) => return Err(error),
        }
        let own = format!("ITL{device}.tlv");
        match files.fetch(&own) {
            Ok(file) => Ok((own, file)),
            Err(PhoneError::NotFound { .. }) => Ok((LIST_NAME.to_owned(), files.fetch(LIST_NAME)?)),
            Err(error) => Err(error),
        }
    }

    fn trust_list(&mut self) -> Result<TrustList> {
        let start = Instant::now();
        let known = self.state.known_list()?;
        let (name, file) = self.fetch_list()?;
        let list = TrustList::read(&file)?;
        let standing = list.standing(known.as_ref());
        let how = match (standing, &known) {
            (Standing::FirstUse, _) => "taken on trust",
            (Standing::KnownSigner, Some(known)) if known.bytes() == list.bytes() => "unchanged",
            (Standing::KnownSigner, _) => "signed by a known SAST",
            (Standing::UnknownSigner, Some(known)) => {
                self.vouch_for_signer(known, &list)?;
                "signed by a SAST that TVS vouches for"
            }
            (Standing::UnknownSigner, None) => return Err(PhoneError::List("it has no signer")),
        };
        self.state.keep_list(list.bytes())?;
        self.held("trust list", start.elapsed(), format!("{name}: {} records, {how}", list.records.len()));
        Ok(list)
    }

    /// The server of the list that the phone already trusts is asked, never the new list's.
    fn vouch_for_signer(&self, known: &TrustList, list: &TrustList) -> Result<()> {
        let signer = list.signer().ok_or(PhoneError::List("it has no signer"))?;
        let endpoint = self.settings.tvs(None);
        let verdict = tvs::ask(&endpoint, self.settings.tls, known, &self.settings.device, &signer.certificate)?;
        match verdict {
            Verdict::Valid { roles, .. } if roles.contains(&Role::Sast) => Ok(()),
            _ => Err(PhoneError::UnknownListSigner { signer: signer.subject.clone() }),
        }
    }

    fn configuration(&mut self, list: &TrustList) -> Result<DeviceConfig> {
        let start = Instant::now();
        let xml = self.settings.file_server().fetch_config(&self.settings.device, list)?;
        let config = DeviceConfig::parse(&xml)?;
        self.state.keep_config(&xml)?;
        let said = format!("{} bytes, CAPF authentication: {:?}", xml.len(), config.auth_mode);
        self.held("configuration", start.elapsed(), said);
        Ok(config)
    }

    fn question(&mut self, list: &TrustList, config: &DeviceConfig) -> Result<()> {
        let Some(question) = &self.settings.question else { return Ok(()) };
        let start = Instant::now();
        let endpoint = self.settings.tvs(config.tvs.first().and_then(|server| server.port));
        let device = &self.settings.device;
        let verdict = tvs::ask(&endpoint, self.settings.tls, list, device, &question.certificate)?;
        let said = match (&verdict, question.expected) {
            (Verdict::Valid { roles, ttl }, Expected::Valid) => format!("valid as {roles:?} for {ttl} s"),
            (Verdict::Invalid, Expected::Invalid) => "not valid, as expected".to_owned(),
            (verdict, expected) => {
                let got = if *verdict == Verdict::Invalid { "invalid" } else { "valid" };
                return Err(PhoneError::TvsAnswer { got: got.to_owned(), expected: expected.name() });
            }
        };
        self.held("trust verification", start.elapsed(), said);
        Ok(())
    }

    fn certificate(&mut self, list: &TrustList, config: &DeviceConfig) -> Result<Option<Held>> {
        let auth = match self.wanted(list, config)? {
            Wanted::Nothing => {
                self.state.finish_enrolment()?;
                return self.check_kept(list);
            }
            Wanted::Enrolment(auth) => auth,
        };
        let start = Instant::now();
        let port = config.capf.first().and_then(|server| server.port);
        let mut enrolment = Enrolment::new(self.settings.capf(port), list, &self.settings.device, auth)?;
        enrolment.version = self.settings.capf_version;
        enrolment.tls = self.settings.tls;
        let mut keys = FolderKeys {
            next: self.state.next_key()?.map(Arc::new),
            state: &self.state,
            expected: self.settings.key,
            made: None,
        };
        let outcome = enrol(&enrolment, &mut keys)?;
        let (made, next) = (keys.made, keys.next.take());
        if let Some((spec, took)) = made {
            self.held("key", took, format!("{spec} made"));
        } else if let Some(key) = &next {
            self.held("key", Duration::ZERO, format!("{} of an unfinished enrolment", key.spec()));
        }
        let took = start.elapsed().saturating_sub(made.map(|(_, took)| took).unwrap_or_default());
        match outcome {
            Outcome::Installed(lsc) => {
                self.state.finish_enrolment()?;
                self.held("enrolment", took, format!("certificate {} delivered", lsc.serial));
                self.check_kept(list)
            }
            Outcome::NothingToDo if self.state.certificate()?.is_some() => {
                self.held("enrolment", took, "CAPF has nothing to do".to_owned());
                self.check_kept(list)
            }
            Outcome::NothingToDo | Outcome::Silent(_) => {
                Err(PhoneError::Config("it sends the phone to CAPF, but CAPF has nothing for it".to_owned()))
            }
        }
    }

    fn wanted(&self, list: &TrustList, config: &DeviceConfig) -> Result<Wanted> {
        let string = self.settings.string.clone();
        match config.auth_mode {
            CapfAuthMode::NoOperation => {
                let unused = string.is_some() && self.state.certificate()?.is_none();
                if unused {
                    let why = "a string was typed in, but the configuration has no CAPF operation for this phone";
                    return Err(PhoneError::Config(why.to_owned()));
                }
                Ok(Wanted::Nothing)
            }
            CapfAuthMode::NullString => Ok(Wanted::Enrolment(None)),
            CapfAuthMode::AuthString if string.is_some() => Ok(Wanted::Enrolment(string)),
            // By string the user starts the enrolment: a phone with a valid certificate waits for that.
            CapfAuthMode::AuthString if matches!(self.kept(list), Ok(Some(_))) => Ok(Wanted::Nothing),
            CapfAuthMode::AuthString => {
                Err(PhoneError::Config("CAPF wants an authentication string and the phone has none".to_owned()))
            }
            CapfAuthMode::Lsc | CapfAuthMode::Mic => {
                Err(PhoneError::Config("authentication by certificate is not played by this phone".to_owned()))
            }
        }
    }

    /// The kept certificate, checked against the list and whichever kept key it belongs to.
    fn kept(&self, list: &TrustList) -> Result<Option<(Lsc, Arc<DeviceKey>)>> {
        let Some(der) = self.state.certificate()? else { return Ok(None) };
        let capf = list.with_role(Role::Capf).next().ok_or(PhoneError::List("it has no CAPF record"))?;
        let mut outcome = Err(PhoneError::Lsc("the phone has no key for it"));
        // A phone that died between keeping the certificate and the server's last word has its key under `next`.
        for key in [self.state.key()?, self.state.next_key()?].into_iter().flatten() {
            outcome = Lsc::check(&der, capf, &self.settings.device, key.spki(), SystemTime::now())
                .map(|lsc| Some((lsc, Arc::new(key))));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn check_kept(&mut self, list: &TrustList) -> Result<Option<Held>> {
        let start = Instant::now();
        let Some((lsc, key)) = self.kept(list)? else {
            self.held("certificate", start.elapsed(), "none, and none is wanted".to_owned());
            return Ok(None);
        };
        let held = Held::new(&lsc, key.spec());
        self.held("certificate", start.elapsed(), format!("{} by {}, checked", held.serial, held.issuer));
        Ok(Some(held))
    }
}

enum Wanted {
    Nothing,
    Enrolment(Option<AuthString>),
}

/// Keys and certificate of a phone with a folder.
struct FolderKeys<'a> {
    state: &'a State,
    next: Option<Arc<DeviceKey>>,
    expected: Option<KeySpec>,
    made: Option<(KeySpec, Duration)>,
}

impl KeyHolder for FolderKeys<'_> {
    fn is_ready(&self, spec: KeySpec) -> bool {
        self.next.as_ref().is_some_and(|key| key.spec() == spec)
    }

    fn key(&mut self, spec: KeySpec) -> Result<Arc<DeviceKey>> {
        if let Some(expected) = self.expected.filter(|expected| *expected != spec) {
            return Err(PhoneError::KeyRequest(format!("{spec}, expected {expected}")));
        }
        if let Some(key) = self.next.as_ref().filter(|key| key.spec() == spec) {
            return Ok(Arc::clone(key));
        }
        let start = Instant::now();
        let key = Arc::new(DeviceKey::generate(spec)?);
        self.made = Some((spec, start.elapsed()));
        self.state.keep_next_key(&key)?;
        self.next = Some(Arc::clone(&key));
        Ok(key)
    }

    fn keep(&mut self, lsc: &Lsc) -> Result<()> {
        self.state.keep_certificate(&lsc.der)
    }
}
