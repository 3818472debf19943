use std::{collections::BTreeMap, time::Duration};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeySpec, KeyState, KeyStore, SignatureRate};
use casemate_hsm_conformance::{Extent, Half, Rig, run_telling, scheme_of};
use casemate_hsm_pkcs11::{Pkcs11Files, Pkcs11Settings};

use crate::{
    error::CheckError,
    opened::Opened,
    options::Options,
    pin::PinFile,
    report::{Case, Report, Tried, VectorSet, Verdict},
    roles::{self, Wanted},
    run::Run,
    vectors,
    view::{Checked, View},
    voice::Voice,
};

/// Nobody waits for the keys of a check, and a slow token may carry a role that is in no hurry.
const GENERATE_TIMEOUT_MS: u64 = 150_000;

/// Threads of the suite, and how many seconds they may have a slow token sign.
const THREADS: u32 = 8;
const SIGNING_SECONDS: u64 = 20;

struct Trial<'a> {
    voice: &'a Voice,
    run: &'a Run,
    view: View,
    opened: Opened,
    rate: Duration,
    all: bool,
    quirks: Vec<String>,
    settings: Vec<String>,
}

/// Tries everything, and takes the keys away again, whatever comes of it.
pub(crate) fn run(options: &Options, pin: &PinFile, voice: &Voice) -> Result<Report, CheckError> {
    let wanted = roles::wanted(&options.etc)?;
    let (view, opened) = open(options, pin, voice)?;
    let run = Run::begin(&options.state, &view.token)?;
    let rate = Duration::from_millis(options.rate_ms);
    let quirks = view.flags.iter().map(|flag| format!("the token says: {flag}")).collect();
    bury(options, &view, voice)?;
    voice.keys(run.label())?;
    let mut trial = Trial { voice, run: &run, view, opened, rate, all: options.all, quirks, settings: Vec::new() };
    let tried = trial.everything(&wanted);
    // Also for a console that is gone.
    let _ = voice.step(&format!("the keys with the label {:?} are removed", run.label()));
    let left = trial.remove_keys();
    if let Ok(left) = &left {
        let _ = voice.left(*left);
    }
    let strange = strange(options, &trial.view);
    if matches!(left, Ok(0)) {
        run.end()?;
    }
    let mut report = tried?;
    (report.left, report.strange) = (left?, strange?);
    report.module = options.module.display().to_string();
    report.verdict = report.judge();
    Ok(report)
}

/// Removes what checks that died left on the token.
pub(crate) fn remove(options: &Options, pin: &PinFile, voice: &Voice) -> Result<(), CheckError> {
    let (view, _login) = open(options, pin, voice)?;
    voice.left(bury(options, &view, voice)?)
}

/// Removes the keys of checks that died; how many objects are left of them.
fn bury(options: &Options, view: &View, voice: &Voice) -> Result<usize, CheckError> {
    let mut all = 0;
    for run in Run::dead(&options.state, &view.token)? {
        voice.step(&format!("the keys of a check that died, with the label {:?}, are removed", run.label()))?;
        match view.remove_keys(run.label())? {
            0 => run.end()?,
            left => all += left,
        }
    }
    Ok(all)
}

/// Keys of checks that are no check's of this machine.
fn strange(options: &Options, view: &View) -> Result<BTreeMap<String, usize>, CheckError> {
    let mut found = view.labels()?;
    let known = Run::labels(&options.state)?;
    // Those of a check that ended in between are gone now.
    let still = view.labels()?;
    found.retain(|label, _| !known.contains(label) && still.contains_key(label));
    Ok(found)
}

/// Finds the token, and logs in.
fn open(options: &Options, pin: &PinFile, voice: &Voice) -> Result<(View, Opened), CheckError> {
    voice.step("the module is loaded")?;
    let view = View::load(&options.module, options.token.as_deref())?;
    let token = view.token.clone();
    voice.step(&format!("login to token {token}"))?;
    let settings =
        Pkcs11Settings { generate_timeout_ms: GENERATE_TIMEOUT_MS, ..Pkcs11Settings::new(&options.module, token) };
    let files = Pkcs11Files { pin: pin.path.clone(), state: options.state.clone() };
    Ok((view, Opened::new(settings, files)?))
}

impl Trial<'_> {
    fn everything(&mut self, wanted: &[Wanted]) -> Result<Report, CheckError> {
        let token = self.opened.store()?.token()?;
        let needed = |algorithm: &KeyAlgorithm| {
            *algorithm == KeyAlgorithm::P256 || wanted.iter().any(|wanted| wanted.spec.algorithm == *algorithm)
        };
        let offered = token.algorithms.iter().copied().filter(|algorithm| self.all || needed(algorithm));
        let offered: Vec<KeyAlgorithm> = offered.collect();
        self.find_usage(&offered)?;
        let algorithms = offered.into_iter().map(|algorithm| self.try_key(algorithm)).collect::<Result<Vec<_>, _>>()?;
        let made = algorithms.iter().filter(|tried| tried.refused.is_none());
        let made: Vec<_> = made.map(|tried| tried.algorithm).collect();
        let refusals = self.wrapped_refusals(wanted, &made)?;
        let cases = self.suite(&algorithms, &made, &refusals)?;
        let vectors = vectors::run(&self.view, self.run.label(), &made, self.voice)?;
        self.note_vectors(&vectors);
        let why_not = |spec| refusals.iter().find(|(refused, _)| *refused == spec).map(|(_, why)| why.clone());
        let roles = wanted.iter().map(|wanted| roles::judge(wanted, &algorithms, &cases, why_not)).collect();
        let (quirks, settings) = (std::mem::take(&mut self.quirks), std::mem::take(&mut self.settings));
        let (module, verdict, left, strange) = (String::new(), Verdict::Wrong, 0, BTreeMap::new());
        Ok(Report { module, verdict, token, algorithms, roles, cases, vectors, quirks, settings, left, strange })
    }

    /// How many objects are left.
    fn remove_keys(&mut self) -> Result<usize, CheckError> {
        match self.view.remove_keys(self.run.label()) {
            Ok(0) => Ok(0),
            // Some modules (tpm2-pkcs11) remove no key with which an operation failed, until they are started anew.
            _ => self.opened.restart_module(&self.view).and_then(|()| self.view.remove_keys(self.run.label())),
        }
    }

    fn find_usage(&mut self, offered: &[KeyAlgorithm]) -> Result<(), CheckError> {
        let Some(algorithm) = offered.first().copied() else { return Ok(()) };
        self.voice.step(&format!("a first key, of {algorithm}"))?;
        if self.opened.takes_keys_that_decrypt(self.run.label(), algorithm)? {
            self.quirks.push("it makes no key that cannot decrypt as well".to_owned());
            self.settings.push("sign-only = false".to_owned());
        }
        Ok(())
    }

    /// Makes a key of `algorithm`, and measures how fast it signs.
    fn try_key(&mut self, algorithm: KeyAlgorithm) -> Result<Tried, CheckError> {
        self.voice.step(&format!("a key of {algorithm}"))?;
        let id = match self.opened.make(self.run.label(), KeySpec { algorithm, backup: Backup::None })? {
            Ok(id) => id,
            Err(refused) => {
                self.quirks.push(format!("it lists {algorithm}, and makes no key of it that can be used"));
                let (refused, is_wrong) = (Some(refused.why), refused.is_wrong);
                return Ok(Tried { algorithm, refused, is_wrong, rate: None, unmeasurable: None });
            }
        };
        self.voice.step(&format!("how fast it signs with {algorithm}"))?;
        let store = self.opened.store()?;
        let (rate, unmeasurable) = match store.measure(algorithm, self.rate) {
            Ok(rate) => (rate, None),
            Err(HsmError::Unmeasurable { detail, .. }) => {
                let raw = store.raw_rate(id, scheme_of(algorithm), self.rate)?;
                let micros = u64::try_from(raw.elapsed.as_micros()).unwrap_or(u64::MAX);
                (SignatureRate { signatures: raw.each.len() as u64, micros }, Some(detail))
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(why) = &unmeasurable {
            self.quirks.push(format!("casemate-keyd cannot measure {algorithm} on it: {why}"));
        }
        Ok(Tried { algorithm, refused: None, is_wrong: false, rate: Some(rate), unmeasurable })
    }

    /// The specifications with a backup of which no key can be made, and why: those that a role needs, and the suite's.
    fn wrapped_refusals(
        &mut self,
        wanted: &[Wanted],
        made: &[KeyAlgorithm],
    ) -> Result<Vec<(KeySpec, String)>, CheckError> {
        let mut refusals = Vec::new();
        for spec in made.iter().map(|algorithm| KeySpec { algorithm: *algorithm, backup: Backup::Wrapped }) {
            if cheapest(made) != Some(spec.algorithm) && !wanted.iter().any(|wanted| wanted.spec == spec) {
                continue;
            }
            self.voice.step(&format!("a key of {} with backup", spec.algorithm))?;
            if let Err(refused) = self.opened.make(self.run.label(), spec)? {
                refusals.push((spec, format!("no key with backup \"wrapped\": {}", refused.why)));
            }
        }
        if !refusals.is_empty() {
            self.quirks.push("it makes no key that may be wrapped (backup = \"wrapped\")".to_owned());
        }
        Ok(refusals)
    }

    /// The conformance suite, as far as the token goes.
    fn suite(
        &mut self,
        algorithms: &[Tried],
        made: &[KeyAlgorithm],
        refusals: &[(KeySpec, String)],
    ) -> Result<Vec<Case>, CheckError> {
        let Some(cheapest) = cheapest(made) else { return Ok(Vec::new()) };
        // Some modules keep loaded every key that they ever used (tpm2-pkcs11), and a TPM's resource manager has little room.
        self.opened.restart_module(&self.view)?;
        let wrapped = !refusals.iter().any(|(spec, _)| spec.algorithm == cheapest);
        let halves = self.takes_halves(cheapest)?;
        if let Some(why) = &halves {
            self.quirks.push(format!("half a key cannot be taken away, so that case was not tried: {why}"));
        }
        let slowest = algorithms.iter().filter_map(|tried| tried.rate).map(SignatureRate::per_second).min();
        let each = (slowest.unwrap_or_default() * SIGNING_SECONDS / u64::from(THREADS)).clamp(4, 50);
        let extent = Extent {
            algorithms: made.to_vec(),
            wrapped,
            halves: halves.is_none(),
            threads: usize::try_from(THREADS).unwrap_or(1),
            signatures: usize::try_from(each).unwrap_or(1),
        };
        let rig = Checked { view: &self.view, store: self.opened.store()?, label: self.run.label() };
        // A console that is gone is noticed at the next step of ours.
        let report = run_telling(&rig, &extent, &|case| drop(self.voice.step(case)));
        let case = |case: casemate_hsm_conformance::Case| Case {
            name: case.name,
            algorithm: case.algorithm,
            failure: case.failure,
            milliseconds: case.took.as_millis(),
        };
        Ok(report.cases.into_iter().map(case).collect())
    }

    /// Why no half of a pair can be taken away in this process, if so.
    fn takes_halves(&mut self, algorithm: KeyAlgorithm) -> Result<Option<String>, CheckError> {
        self.voice.step("half a key is taken away")?;
        let Ok(id) = self.opened.make(self.run.label(), KeySpec { algorithm, backup: Backup::None })? else {
            return Ok(None);
        };
        let store = self.opened.store()?;
        if let Err(error) = (Checked { view: &self.view, store, label: self.run.label() }).keep_half(id, Half::Private)
        {
            return Ok(Some(error));
        }
        let state = store.inspect(id, None)?;
        Ok((state != KeyState::Half).then(|| "the module shows the key as before".to_owned()))
    }

    fn note_vectors(&mut self, vectors: &[VectorSet]) {
        let judged = || vectors.iter().filter_map(|set| Some((set, set.token.as_ref()?)));
        let wrong: Vec<_> = judged().filter(|(_, token)| !token.is_right()).map(|(set, _)| set.set.as_str()).collect();
        if !wrong.is_empty() {
            self.quirks.push(format!("C_Verify is wrong on vectors of {}", wrong.join(", ")));
        }
    }
}

/// The algorithm for what costs least.
fn cheapest(made: &[KeyAlgorithm]) -> Option<KeyAlgorithm> {
    made.iter().find(|algorithm| **algorithm == KeyAlgorithm::P256).or(made.first()).copied()
}
