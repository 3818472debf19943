/// `text` with control characters spelled out: it comes from strangers and goes to a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// A firmware's version as its maker counts: two numbers of 16 bits, and the rest as it stands.
pub(crate) fn firmware(version: Option<u64>) -> String {
    let Some(version) = version else { return "not told (the TPM disguised it for this attestation key)".to_owned() };
    let (major, minor) = (version >> 48, (version >> 32) & 0xffff);
    format!("{major}.{minor} (0x{version:016x})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_as_the_console_tells_it_and_a_name_cannot_steer_the_terminal() {
        assert_eq!(firmware(Some(0x2019_1023_0016_3636)), "8217.4131 (0x2019102300163636)");
        assert!(firmware(None).starts_with("not told"));
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
