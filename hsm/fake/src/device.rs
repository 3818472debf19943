use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use casemate_hsm_api::{Backup, KeyAlgorithm, KeyId, PublicKey};

use crate::signer::Private;

/// One half of a key pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)] // the names say it
pub enum Half {
    Private,
    Public,
}

/// What the token answers to a login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PinFault {
    /// The PIN is wrong; the store reports it as refused before from the second time on.
    Incorrect,
    /// The user PIN is locked.
    Locked,
    /// One try is left, so none is made.
    LastTry,
}

/// How long the token takes for a signature and for a generation. Other calls take no time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[allow(missing_docs)] // said above
pub struct Latency {
    pub sign: Duration,
    pub generate: Duration,
}

/// How long the signatures of a kind of token take, one after the other and from the beginning again: the same each time, for nothing
/// here happens by chance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LatencyProfile(&'static [u64]);

impl LatencyProfile {
    /// A discrete TPM: median 200 ms, and one in twenty takes 600 ms or more.
    pub const TPM: Self =
        Self(&[190, 210, 180, 200, 240, 195, 205, 185, 420, 200, 198, 600, 202, 188, 260, 192, 310, 199, 640, 201]);

    /// A token behind a network: median 8 ms, and now and then a packet is sent again.
    pub const NETWORK: Self = Self(&[7, 8, 9, 7, 8, 12, 8, 7, 10, 8, 7, 8, 60, 9, 8, 7, 8, 11, 250, 8]);

    /// The latencies, in the order in which they come.
    pub fn latencies(self) -> impl ExactSizeIterator<Item = Duration> {
        self.0.iter().copied().map(Duration::from_millis)
    }

    /// The latency of signature number `signature`.
    pub(crate) fn of(self, signature: u64) -> Duration {
        let turn = usize::try_from(signature).unwrap_or_default() % self.0.len();
        self.latencies().nth(turn).unwrap_or_default()
    }
}

/// The device: its keys and its faults. Cheap to clone; all clones are the same device.
#[derive(Clone)]
pub struct FakeToken {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) serial: String,
    state: Mutex<State>,
    /// A hang ended.
    pub(crate) released: Condvar,
}

pub(crate) struct State {
    pub(crate) keys: BTreeMap<KeyId, Vec<Object>>,
    pub(crate) faults: Faults,
    /// Wrong PINs that were tried.
    pub(crate) refused: usize,
    /// Connections end when the token goes away; a store whose connection is older has to connect again.
    pub(crate) connection: u64,
    /// Calls that reached the token.
    pub(crate) calls: u64,
    /// Signatures that it made.
    pub(crate) signatures: u64,
}

/// What stands under one identifier.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) label: String,
    pub(crate) algorithm: KeyAlgorithm,
    pub(crate) backup: Backup,
    pub(crate) private: Option<Arc<Private>>,
    pub(crate) public: Option<PublicKey>,
    /// No key pair of a kind that is known.
    pub(crate) odd: bool,
}

#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) absent: bool,
    pub(crate) absent_after: Option<u64>,
    pub(crate) lying: bool,
    pub(crate) hanging: bool,
    pub(crate) capacity: Option<usize>,
    pub(crate) interrupt: Option<Half>,
    pub(crate) pin: Option<PinFault>,
    pub(crate) unmeasurable: bool,
    pub(crate) latency: Latency,
    pub(crate) profile: Option<LatencyProfile>,
}

impl Faults {
    /// How long the signature takes that comes after `made` others.
    pub(crate) fn sign_latency(&self, made: u64) -> Duration {
        self.profile.map_or(self.latency.sign, |profile| profile.of(made))
    }
}

impl FakeToken {
    /// An empty token.
    #[must_use]
    pub fn new(serial: &str) -> Self {
        let state = State {
            keys: BTreeMap::new(),
            faults: Faults::default(),
            refused: 0,
            connection: 1,
            calls: 0,
            signatures: 0,
        };
        let inner = Inner { serial: serial.to_owned(), state: Mutex::new(state), released: Condvar::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Pulls the token, or puts it back. Stores have to connect again after it was away.
    pub fn set_absent(&self, absent: bool) {
        let mut state = self.inner.state();
        if absent {
            state.pull();
        }
        state.faults.absent = absent;
        state.faults.absent_after = None;
    }

    /// Pulls the token after it has served `calls` more calls.
    pub fn absent_after(&self, calls: u64) {
        self.inner.state().faults.absent_after = Some(calls);
    }

    /// From now on signatures have one wrong bit, or are right again.
    pub fn set_lying(&self, lying: bool) {
        self.inner.state().faults.lying = lying;
    }

    /// From now on no call returns, or all that hang do.
    pub fn set_hanging(&self, hanging: bool) {
        self.inner.state().faults.hanging = hanging;
        self.inner.released.notify_all();
    }

    /// The token has room for so many keys, or for any number.
    pub fn set_capacity(&self, keys: Option<usize>) {
        self.inner.state().faults.capacity = keys;
    }

    /// The next generation is interrupted when it has stored only this half. One generation only.
    pub fn interrupt_generation(&self, stored: Half) {
        self.inner.state().faults.interrupt = Some(stored);
    }

    /// What the token answers to the next logins.
    pub fn set_pin_fault(&self, fault: Option<PinFault>) {
        self.inner.state().faults.pin = fault;
    }

    /// From now on the token makes no temporary key to measure with, or does again.
    pub fn set_unmeasurable(&self, unmeasurable: bool) {
        self.inner.state().faults.unmeasurable = unmeasurable;
    }

    /// How long calls take from now on.
    pub fn set_latency(&self, latency: Latency) {
        let mut state = self.inner.state();
        state.faults.latency = latency;
        state.faults.profile = None;
    }

    /// Signatures take as long as those of such a token from now on.
    pub fn set_profile(&self, profile: LatencyProfile) {
        self.inner.state().faults.profile = Some(profile);
    }

    /// Takes away the other half of a pair; true if there was a pair.
    pub fn keep_half(&self, id: KeyId, half: Half) -> bool {
        let mut state = self.inner.state();
        let Some(object) = state.keys.get_mut(&id).and_then(|objects| objects.last_mut()) else { return false };
        let whole = object.private.is_some() && object.public.is_some();
        match half {
            Half::Private => object.public = None,
            Half::Public => object.private = None,
        }
        whole
    }

    /// Puts a second key pair under `id`, as a stranger with the PIN could.
    pub fn duplicate(&self, id: KeyId) {
        if let Some(objects) = self.inner.state().keys.get_mut(&id)
            && let Some(twin) = objects.first().cloned()
        {
            objects.push(twin);
        }
    }

    /// Makes what stands under `id` something that nobody here understands, as a stranger with the PIN or the vendor's tool could.
    pub fn spoil(&self, id: KeyId) {
        if let Some(object) = self.inner.state().keys.get_mut(&id).and_then(|objects| objects.first_mut()) {
            object.odd = true;
        }
    }

    /// Whether the private key under `id` can never leave; nothing if there is none.
    #[must_use]
    pub fn never_extractable(&self, id: KeyId) -> Option<bool> {
        let state = self.inner.state();
        state.keys.get(&id).and_then(|objects| objects.first()).map(|object| object.backup == Backup::None)
    }

    /// Removes what stands under `id`, as if the token had lost it.
    pub fn lose(&self, id: KeyId) {
        self.inner.state().keys.remove(&id);
    }

    /// Calls that reached the token so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.inner.state().calls
    }

    /// Signatures that the token made so far.
    #[must_use]
    pub fn signatures(&self) -> u64 {
        self.inner.state().signatures
    }

    /// Wrong PINs that were tried on the token.
    #[must_use]
    pub fn refused_pins(&self) -> usize {
        self.inner.state().refused
    }

    /// Objects on the token: each half is one.
    #[must_use]
    pub fn objects(&self) -> usize {
        let state = self.inner.state();
        let halves = |object: &Object| usize::from(object.private.is_some()) + usize::from(object.public.is_some());
        state.keys.values().flatten().map(halves).sum()
    }
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) fn pull(&mut self) {
        self.faults.absent = true;
        self.connection += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_are_what_they_say() {
        let nearest_rank = |profile: LatencyProfile, per_cent: usize| {
            let mut all: Vec<_> = profile.latencies().map(|latency| latency.as_millis()).collect();
            all.sort_unstable();
            all[(all.len() * per_cent).div_ceil(100) - 1]
        };
        let [tpm, network] = [LatencyProfile::TPM, LatencyProfile::NETWORK];
        assert_eq!((nearest_rank(tpm, 50), nearest_rank(tpm, 95)), (200, 600));
        assert_eq!((nearest_rank(network, 50), nearest_rank(network, 95)), (8, 60));
        assert_eq!((tpm.of(0), tpm.of(20), tpm.of(21)), (tpm.of(40), tpm.of(0), Duration::from_millis(210)));
    }
}
