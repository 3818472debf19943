use serde::Serialize;

use crate::{ConsoleError, Out};

/// Prints a value as JSON, indented, with a line's end.
pub(crate) fn print(value: &impl Serialize, out: Out<'_>) -> Result<(), ConsoleError> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(writeln!(out, "{text}")?)
}
