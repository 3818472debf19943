//! The loop around one [`Session`].

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use casemate_runtime::refusals::Refusals;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    answers::Answers,
    session::{Action, Session},
    settings::Settings,
    trust::TrustStore,
};

/// Bytes that are read at once: a question with an RSA-2048 certificate fits.
const READ_BYTES: usize = 2048;

/// What every connection shares.
pub struct Service {
    /// The trust store of this moment.
    pub trust: watch::Receiver<Arc<TrustStore>>,
    /// Where answers are recorded.
    pub answers: Answers,
    /// Where refusals are recorded.
    pub refusals: Arc<Refusals>,
    /// Limits.
    pub settings: Settings,
}

/// Why a connection ended before the phone closed it.
enum End {
    Silent(&'static str),
    Refused,
    Broken(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Service {
    /// Serves one connection, of which the TLS handshake is done, until it ends or a limit is reached.
    pub async fn connection(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, peer: String) {
        match self.run(&mut stream, &peer).await {
            Ok(()) | Err(End::Refused) => {}
            Err(End::Silent(step)) => self.refusals.silence(&peer, step),
            Err(End::Broken(error)) => tracing::debug!(%error, peer, "TVS connection broken off"),
        }
        // The peer may be gone; a bounded farewell is all it gets.
        let _ = timeout(Duration::from_millis(self.settings.message_ms), stream.shutdown()).await;
    }

    async fn run(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), peer: &str) -> Result<(), End> {
        let (idle, message) =
            (Duration::from_millis(self.settings.idle_ms), Duration::from_millis(self.settings.message_ms));
        let mut session = Session::new(self.settings.session());
        let mut buffer = [0; READ_BYTES];
        let mut deadline = Instant::now() + idle;
        loop {
            let step = if session.in_message() { "end of a question" } else { "next question" };
            let read = timeout_at(deadline, stream.read(&mut buffer)).await.map_err(|_| End::Silent(step))?;
            let received = match read {
                Ok(0) => return self.ended(&session, peer),
                // Phones close the connection without a TLS farewell.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return self.ended(&session, peer),
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) => return Err(error.into()),
            };
            let was_in_message = session.in_message();
            let trust = Arc::clone(&self.trust.borrow());
            let actions = session.receive(received, &trust, now());
            let answered = !actions.is_empty();
            for action in actions {
                let bytes = self.audited(action, peer)?;
                timeout(message, stream.write_all(&bytes)).await.map_err(|_| End::Silent("taking an answer"))??;
            }
            if answered {
                timeout(message, stream.flush()).await.map_err(|_| End::Silent("taking an answer"))??;
            }
            // The time of a message runs from its first byte, however many pieces it comes in.
            if !session.in_message() {
                deadline = Instant::now() + idle;
            } else if answered || !was_in_message {
                deadline = Instant::now() + message;
            }
        }
    }

    fn ended(&self, session: &Session, peer: &str) -> Result<(), End> {
        if let Some(refusal) = session.end() {
            self.refusals.protocol(peer, &refusal.to_string());
        }
        Ok(())
    }

    /// Records the action; the bytes that are to be sent.
    fn audited(&self, action: Action, peer: &str) -> Result<Vec<u8>, End> {
        match action {
            Action::Answer { request, verdict, bytes } => {
                self.answers.record(request, &verdict, peer);
                Ok(bytes)
            }
            Action::Decline { refusal, bytes } => {
                self.refusals.protocol(peer, &refusal.to_string());
                Ok(bytes)
            }
            Action::Close(refusal) => {
                self.refusals.protocol(peer, &refusal.to_string());
                Err(End::Refused)
            }
        }
    }
}

/// Unix seconds. A clock before 1970 makes every certificate not valid yet.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(-1, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
