//! guardian-hook, the program. All it does is in the library; here is only how a process begins, with or without the standard library.
#![cfg_attr(feature = "freestanding", no_std, no_main)]

#[cfg(feature = "freestanding")]
mod freestanding;

/// For tests and lints: an ordinary program.
#[cfg(not(feature = "freestanding"))]
fn main() -> std::process::ExitCode {
    use std::os::unix::ffi::OsStringExt;

    let args: Vec<_> = std::env::args_os().map(OsStringExt::into_vec).collect();
    let env = std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec()));
    guardian_hook::runner::main(&args, &env.collect()).into()
}
