//! The sidecar's binary, found next to this program's own.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The sidecar's name.
const NAME: &str = "wechat-with-deepseek";

/// The sidecar's binary of this program's profile. It is built first when this runs under cargo, since
/// `cargo run --example` builds the example alone.
///
/// # Errors
/// One line with a hint.
pub(crate) fn sidecar() -> Result<PathBuf, String> {
    let own = env::current_exe().map_err(|error| format!("cannot find this program's own file: {error}"))?;
    // target/<profile>/examples/<example> or target/<profile>/deps/<bench>
    let folder = own.parent().and_then(|parent| parent.parent()).ok_or("this program is in no target directory")?;
    let binary = folder.join(format!("{NAME}{}", env::consts::EXE_SUFFIX));
    let profile = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (Some(_), Some(target)) = (env::var_os("CARGO"), folder.parent()) else {
        let hint = "run it by cargo, or build the binary first by `cargo build`";
        return if binary.is_file() { Ok(binary) } else { Err(format!("{} is missing; {hint}", binary.display())) };
    };
    let status = cargo()
        .args(["build", "--quiet", "--bin", NAME, "--profile", if profile == "debug" { "dev" } else { profile }])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    match (status.success(), binary.is_file()) {
        (true, true) => Ok(binary),
        (true, false) => Err(format!("{} is missing; build it with the same flags as this program", binary.display())),
        (false, _) => Err(format!("`cargo build --bin {NAME}` failed")),
    }
}

/// Cargo without the variables that it sets for its children: build scripts that read them would run again, and rebuild
/// half the dependencies.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}
