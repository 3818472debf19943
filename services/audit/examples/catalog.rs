//! Prints the message catalog, for `image/mkosi.extra/usr/lib/systemd/catalog/casemate.catalog`.
#![forbid(unsafe_code)]

fn main() {
    print!("{}", casemate_audit::catalog());
}
