//! Compiles the module that breaks on demand (`module/lib.rs`): a shared library that keyd loads in the place of a token's own. It
//! is no crate of the workspace, for it is nothing but C's calling convention, and nobody links it.
#![forbid(unsafe_code)]

use std::{env, error::Error, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    let source = "module/lib.rs";
    println!("cargo:rerun-if-changed={source}");
    let variable = |name: &str| env::var_os(name).ok_or(format!("cargo sets {name}"));
    let module = PathBuf::from(variable("OUT_DIR")?).join("libcasemate_faulty_module.so");
    let status = Command::new(variable("RUSTC")?)
        .args(["--crate-type", "cdylib", "--crate-name", "casemate_faulty_module", "--edition", "2024"])
        .args(["-C", "opt-level=2", "-C", "panic=abort", "-D", "warnings", source, "-o"])
        .arg(&module)
        .status()?;
    if !status.success() {
        return Err(format!("rustc does not compile {source}: {status}").into());
    }
    println!("cargo:rustc-env=CASEMATE_FAULTY_MODULE={}", module.display());
    Ok(())
}
