/// `text` with control characters spelled out: names and errors come from a module that nobody knows, and go to a terminal.
pub(crate) fn plain(text: &str) -> String {
    let spelled = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(spelled).collect()
}
