use std::fmt;

use serde::{Deserialize, Serialize};

/// What a phone trusts a record's certificate for: FUNCTION, tag 4 (phone-formats §2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum Role {
    /// System Administrator Security Token: may sign lists.
    Sast,
    /// Call control.
    Ccm,
    /// Call control, and signs files.
    CcmTftp,
    /// Signs files, or serves them over HTTPS.
    Tftp,
    /// Enrolment.
    Capf,
    /// Application server.
    AppServer,
    /// Trust verification.
    Tvs,
    /// A number whose meaning is not known.
    Unknown(u16),
}

impl Role {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Sast => 0,
            Self::Ccm => 1,
            Self::CcmTftp => 2,
            Self::Tftp => 3,
            Self::Capf => 4,
            Self::AppServer => 7,
            Self::Tvs => 21,
            Self::Unknown(number) => number,
        }
    }

    /// Whether its key may sign files.
    #[must_use]
    pub const fn signs_files(self) -> bool {
        matches!(self, Self::CcmTftp | Self::Tftp)
    }
}

impl From<u16> for Role {
    fn from(number: u16) -> Self {
        match number {
            0 => Self::Sast,
            1 => Self::Ccm,
            2 => Self::CcmTftp,
            3 => Self::Tftp,
            4 => Self::Capf,
            7 => Self::AppServer,
            21 => Self::Tvs,
            number => Self::Unknown(number),
        }
    }
}

impl From<Role> for u16 {
    fn from(role: Role) -> Self {
        role.number()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sast => f.write_str("SAST"),
            Self::Ccm => f.write_str("CCM"),
            Self::CcmTftp => f.write_str("CCM+TFTP"),
            Self::Tftp => f.write_str("TFTP"),
            Self::Capf => f.write_str("CAPF"),
            Self::AppServer => f.write_str("APP-SERVER"),
            Self::Tvs => f.write_str("TVS"),
            Self::Unknown(number) => write!(f, "role {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives() {
        for number in 0..=u16::MAX {
            assert_eq!(Role::from(number).number(), number);
        }
    }
}
