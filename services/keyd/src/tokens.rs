//! The tokens of the node, and who keeps each of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc::Sender},
};

use casemate_audit::Auditor;
use casemate_hsm_api::{HsmError, KeyRole};
use casemate_keyring::{BrokerState, Refusal};

use crate::{
    Broker,
    keys::Recorded,
    token::{Token, TokenParts},
};

/// Every token that is named for a role.
pub(crate) struct Tokens(Vec<Arc<Token>>);

impl Tokens {
    pub(crate) fn new(parts: Vec<TokenParts>, auditor: &Arc<Auditor>) -> Self {
        let places: Arc<BTreeSet<String>> = Arc::new(parts.iter().map(|parts| parts.place.clone()).collect());
        let token = |parts| Arc::new(Token::new(parts, Arc::clone(&places), Arc::clone(auditor)));
        Self(parts.into_iter().map(token).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.0.iter()
    }

    /// The token where the key of `role` is to be made.
    pub(crate) fn of(&self, role: KeyRole) -> Result<&Arc<Token>, Refusal> {
        let none = || Refusal::Failed(format!("role-tokens.toml names no token for {role}"));
        self.0.iter().find(|token| token.holds(role)).ok_or_else(none)
    }

    /// The token that has `key`: the one that made it as long as it is named for any role, also where its own role was put
    /// elsewhere meanwhile.
    pub(crate) fn of_key(&self, key: &Recorded) -> Result<&Arc<Token>, Refusal> {
        self.0.iter().find(|token| token.has(key)).map_or_else(|| self.of(key.role), Ok)
    }

    /// The one token there is.
    pub(crate) fn only(&self) -> Result<&Arc<Token>, Refusal> {
        match self.0.as_slice() {
            [token] => Ok(token),
            _ => Err(Refusal::Failed(format!("there are several tokens, so name one: {}", self.names()))),
        }
    }

    fn names(&self) -> String {
        self.0.iter().map(|token| token.place()).collect::<Vec<_>>().join(", ")
    }

    /// The token of this name.
    pub(crate) fn named(&self, name: &str) -> Result<&Arc<Token>, Refusal> {
        let none = || Refusal::Failed(format!("role-tokens.toml names no token {name:?}; it names {}", self.names()));
        self.0.iter().find(|token| token.place() == name).ok_or_else(none)
    }
}

/// Where all tokens stand together: the worst of them, with its name where there are several.
pub(crate) fn worst<'a>(states: impl Iterator<Item = (&'a str, &'a BrokerState)> + Clone) -> BrokerState {
    let several = states.clone().count() > 1;
    let named = |name: &str, reason: &str| if several { format!("{name}: {reason}") } else { reason.to_owned() };
    let out = states.clone().find_map(|(name, state)| match state {
        BrokerState::OutOfService(reason) => Some(BrokerState::OutOfService(named(name, reason))),
        _ => None,
    });
    let waiting = states.clone().find_map(|(name, state)| match state {
        BrokerState::Waiting(reason) => Some(BrokerState::Waiting(named(name, reason))),
        _ => None,
    });
    out.or(waiting).unwrap_or(BrokerState::Serving)
}

/// Keeps one token: looks for it, tests it, and looks for it again whenever it is lost.
pub struct Keeper {
    broker: Arc<Broker>,
    token: Arc<Token>,
}

/// What a keeper tells of its token while the broker does not listen yet.
pub(crate) enum News {
    /// It had its first attempt.
    Tried,
    /// It serves.
    Serves,
    /// It gave a wrong answer and is not used any more.
    Ended(HsmError),
}

impl Keeper {
    pub(crate) const fn new(broker: Arc<Broker>, token: Arc<Token>) -> Self {
        Self { broker, token }
    }

    /// The token's name in `role-tokens.toml`.
    #[must_use]
    pub fn place(&self) -> &str {
        self.token.place()
    }

    /// Looks for the token once and tests it: it signs with every key that is recorded of its roles, and the answers are verified
    /// here.
    ///
    /// # Errors
    /// What the token said; a wrong answer is for ever.
    pub fn attempt(&self) -> Result<(), HsmError> {
        self.token.attempt(&self.broker.keys)
    }

    /// As [`Keeper::attempt`] until it succeeds: an absent token is waited for, a locked PIN until the security officer unlocked
    /// it, a refused PIN until its file changes.
    ///
    /// # Errors
    /// A wrong answer, which ends the use of the token.
    pub fn bring_back(&self) -> Result<(), HsmError> {
        self.token.bring_back(&self.broker.keys)
    }

    /// Returns when the token was lost, refused the PIN or gave a wrong answer.
    pub fn until_lost(&self) {
        self.token.until_lost();
    }

    /// Keeps the token until it gives a wrong answer: then the broker only tells why its roles sign nothing.
    pub(crate) fn keep(&self, news: &Sender<News>) {
        // Nobody listens to the news once the broker listens.
        let tell = |told| drop(news.send(told));
        // Its outcome is in the token's standing.
        let _ = self.attempt();
        tell(News::Tried);
        loop {
            match self.bring_back() {
                Ok(()) => tell(News::Serves),
                Err(error) => {
                    tracing::error!(token = self.place(), %error, "the token is not used any more");
                    return tell(News::Ended(error));
                }
            }
            self.until_lost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_speaks_for_itself_and_of_several_the_worst_by_its_name() {
        let serving = BrokerState::Serving;
        let waiting = BrokerState::Waiting("away".into());
        let out = BrokerState::OutOfService("wrong PIN".into());
        assert_eq!(worst([("a", &waiting)].into_iter()), waiting);
        assert_eq!(worst([("a", &serving), ("b", &serving)].into_iter()), serving);
        assert_eq!(worst([("a", &serving), ("b", &waiting)].into_iter()), BrokerState::Waiting("b: away".into()));
        let all = [("a", &waiting), ("b", &out), ("c", &serving)];
        assert_eq!(worst(all.into_iter()), BrokerState::OutOfService("b: wrong PIN".into()));
    }
}
