use casemate_store::sqlx;

use super::{Records, RecordsError, operations::State, strange};
use crate::{
    authentication::Mode,
    control::{DeviceConfig, Phone},
    device::DeviceName,
    key,
};

type PhoneRow = (String, String, String, String, i64, Option<i64>, Option<String>, Option<i64>);

fn phone(row: PhoneRow) -> Result<Phone, RecordsError> {
    let (name, mode, key, state, failures, expires, serial, not_after) = row;
    Ok(Phone {
        mode: Mode::from_name(&mode).ok_or_else(|| strange("mode", &name))?,
        key: key::from_name(&key).ok_or_else(|| strange("key", &name))?,
        operation: State::from_name(&state).ok_or_else(|| strange("state", &name))?.name().to_owned(),
        failures: u32::try_from(failures).map_err(|_| strange("failures", &name))?,
        expires,
        serial,
        not_after,
        name: DeviceName::try_from(name).map_err(|_| strange("name", "a device"))?,
    })
}

impl Records {
    /// At most `limit` devices in the order of names, those after `after`, with their latest operation and the last
    /// certificate that they confirmed. Which was last is told by the operation, for clocks are set back and a second is long.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn phones(&self, after: Option<&DeviceName>, limit: u32) -> Result<Vec<Phone>, RecordsError> {
        let rows: Vec<PhoneRow> = sqlx::query_as(
            "SELECT devices.name, o.mode, o.key, o.state, o.failures, o.expires, c.serial, c.not_after
             FROM devices
             JOIN operations o ON o.id = (SELECT max(id) FROM operations WHERE device = devices.name)
             LEFT JOIN certificates c ON c.serial = (
                 SELECT serial FROM certificates WHERE device = devices.name AND delivered IS NOT NULL
                 ORDER BY operation DESC, delivered DESC LIMIT 1)
             WHERE devices.name > ? ORDER BY devices.name LIMIT ?",
        )
        .bind(after.map_or("", DeviceName::as_str))
        .bind(limit)
        .fetch_all(self.store.readers())
        .await?;
        rows.into_iter().map(phone).collect()
    }

    /// At most `limit` devices that changed after the change `sequence`, in the order of their last changes.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn changed_since(&self, sequence: i64, limit: u32) -> Result<Vec<DeviceConfig>, RecordsError> {
        let rows: Vec<(String, i64, Option<String>)> = sqlx::query_as(
            "SELECT devices.name, devices.sequence, o.mode FROM devices
             LEFT JOIN operations o ON o.device = devices.name AND o.state = 'pending'
             WHERE devices.sequence > ? ORDER BY devices.sequence LIMIT ?",
        )
        .bind(sequence)
        .bind(limit)
        .fetch_all(self.store.readers())
        .await?;
        rows.into_iter()
            .map(|(name, sequence, mode)| {
                Ok(DeviceConfig {
                    mode: mode.map(|mode| Mode::from_name(&mode).ok_or_else(|| strange("mode", &name))).transpose()?,
                    name: DeviceName::try_from(name).map_err(|_| strange("name", "a device"))?,
                    sequence,
                })
            })
            .collect()
    }
}
