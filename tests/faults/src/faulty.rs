use std::{fmt, fs, io::ErrorKind, path::PathBuf};

use casemate_harness::{Lab, LabError};

/// The hand on a module that stands between keyd and the lab's PKCS#11 token and breaks on demand. Everything goes to the real
/// token, and comes from it, until an order says otherwise.
pub struct Faulty<'a> {
    lab: &'a Lab,
}

/// What happens at one call, once.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// The module aborts before the token has the call.
    Abort,
    /// The module aborts when the token has done it, and before anybody learns of it.
    AbortAfter,
    /// The token goes before it has the call.
    Remove,
    /// The token goes when it has done it.
    RemoveAfter,
    /// The process's login ends, and then the token has the call.
    Logout,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Abort => "abort",
            Self::AbortAfter => "abort-after",
            Self::Remove => "remove",
            Self::RemoveAfter => "remove-after",
            Self::Logout => "logout",
        })
    }
}

impl<'a> Faulty<'a> {
    /// The module, which `build.rs` compiled; `module/lib.rs` says what it does.
    pub const MODULE: &'static str = env!("CASEMATE_FAULTY_MODULE");

    /// Puts the module between keyd and the token of `lab`, whose daemons were not started yet.
    ///
    /// # Errors
    /// The lab's files are not as they are known here.
    pub fn before_the_token_of(lab: &'a Lab) -> Result<Self, LabError> {
        let faulty = Self { lab };
        let (layout, keyd) = (&lab.layout, lab.layout.owner.uid("keyd"));
        let (orders, module) = (faulty.orders(), layout.root.join("etc/faulty.so"));
        fs::create_dir(&orders).map_err(LabError::file(&orders))?;
        layout.own(&orders, 0o700, Some(keyd))?;
        fs::copy(Self::MODULE, &module).map_err(LabError::file(&module))?;
        layout.own(&module, 0o755, None)?;
        let config = layout.config();
        let text = fs::read_to_string(&config).map_err(LabError::file(&config))?;
        let (own, other) = (lab.module().display().to_string(), module.display().to_string());
        if !text.contains(&own) {
            return Err(LabError::Failed { program: config.display().to_string(), output: format!("no {own} in it") });
        }
        fs::write(&config, text.replace(&own, &other)).map_err(LabError::file(&config))?;
        let variables = layout.root.join("etc/token.env");
        let mut text = match fs::read_to_string(&variables) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(LabError::file(&variables))?,
        };
        text += &format!("CASEMATE_FAULTY_REAL={own}\nCASEMATE_FAULTY_ORDERS={}\n", orders.display());
        fs::write(&variables, text).map_err(LabError::file(&variables))?;
        Ok(faulty)
    }

    fn orders(&self) -> PathBuf {
        self.lab.layout.root.join("orders")
    }

    /// Writes an order, whole from its first moment.
    fn order(&self, name: &str, text: &str) -> Result<(), LabError> {
        let (part, whole) = (self.orders().join("part"), self.orders().join(name));
        fs::write(&part, text).map_err(LabError::file(&part))?;
        self.lab.layout.own(&part, 0o600, Some(self.lab.layout.owner.uid("keyd")))?;
        fs::rename(&part, &whole).map_err(LabError::file(&whole))
    }

    fn withdraw(&self, name: &str) -> Result<(), LabError> {
        let path = self.orders().join(name);
        fs::remove_file(&path).map_err(LabError::file(&path))
    }

    /// At the call of `function` after `skip` others, once.
    ///
    /// # Errors
    /// The order cannot be written.
    pub fn at(&self, function: &str, skip: usize, what: At) -> Result<(), LabError> {
        self.order(&format!("at-{function}"), &format!("{what} {skip}"))
    }

    /// Whether the order at `function` was carried out; if so it is forgotten.
    #[must_use]
    pub fn happened(&self, function: &str) -> bool {
        self.withdraw(&format!("done-{function}")).is_ok()
    }

    /// Pulls the token.
    ///
    /// # Errors
    /// The order cannot be written.
    pub fn pull(&self) -> Result<(), LabError> {
        self.order("absent", "")
    }

    /// Puts the token back that was pulled or went.
    ///
    /// # Errors
    /// It is not away.
    pub fn put_back(&self) -> Result<(), LabError> {
        self.withdraw("absent")
    }

    /// The token opens so many sessions at once, or any number.
    ///
    /// # Errors
    /// The order cannot be written.
    pub fn limit_sessions(&self, sessions: Option<usize>) -> Result<(), LabError> {
        sessions.map_or_else(|| self.withdraw("sessions"), |sessions| self.order("sessions", &sessions.to_string()))
    }

    /// Signatures take these many milliseconds, in turn.
    ///
    /// # Errors
    /// The order cannot be written.
    pub fn slow_down(&self, delays: impl IntoIterator<Item = u128>) -> Result<(), LabError> {
        let delays: Vec<String> = delays.into_iter().map(|delay| delay.to_string()).collect();
        self.order("delays", &delays.join(" "))
    }

    /// Signatures have one wrong bit from now on, or are right again.
    ///
    /// # Errors
    /// The order cannot be written.
    pub fn lie(&self, lying: bool) -> Result<(), LabError> {
        if lying { self.order("wrong", "") } else { self.withdraw("wrong") }
    }
}
