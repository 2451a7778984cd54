//! Instructions that the core spends on one review, from its bytes to those of the answer, counted by valgrind and compared with what was
//! written down. A count does not depend on how busy a machine is, and hardly on which machine it is: so it is a gate, which a time is not.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use guardian_bench_core::{IMAGE, SetupError, answer, case, names, snapshot};
use guardian_core::admission::Settings;

/// A case fails with a hundredth more than this many than were written down.
const MOST: u64 = 110;
/// Reviews of the shorter run, in which what a process does once is counted, and of the longer one. The difference is what is told.
const RUNS: (u64, u64) = (1, 6);

const USAGE: &str = "usage: bench-instructions check FILE | update FILE | run CASE TIMES";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["run", case, times] => run(case, times),
        ["check", file] => check(&PathBuf::from(file)),
        ["update", file] => update(&PathBuf::from(file)),
        _ => Err(CountError::Usage),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench-instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is counted: so many reviews of one case.
fn run(name: &str, times: &str) -> Result<(), CountError> {
    let case = case(name).ok_or(CountError::Usage)?;
    let times: u64 = times.parse().map_err(|_no_number| CountError::Usage)?;
    let (snapshot, settings) = (snapshot()?, Settings { image: IMAGE.to_owned() });
    for _ in 0..times {
        black_box(answer(black_box(&case.review), &snapshot, &settings)?);
    }
    Ok(())
}

/// Compares every case with what `file` has.
fn check(file: &PathBuf) -> Result<(), CountError> {
    let text = std::fs::read_to_string(file).map_err(|source| CountError::File { path: file.clone(), source })?;
    let known: BTreeMap<&str, u64> =
        text.lines().filter_map(|l| l.split_once(' ')).filter_map(|(n, c)| Some((n, c.parse().ok()?))).collect();
    let mut over = Vec::new();
    for case in names() {
        let before = *known.get(case).ok_or_else(|| CountError::Unknown { case, path: file.clone() })?;
        let count = count(case)?;
        let change = (100.0 * count as f64 / before as f64) - 100.0;
        tell(&format!("instructions/{case} {count} ({change:+.1} % of {before})"));
        if count * 100 > before * MOST {
            over.push(case);
        }
    }
    if over.is_empty() { Ok(()) } else { Err(CountError::Over { cases: over.join(", "), path: file.clone() }) }
}

/// Writes the counts down.
fn update(file: &PathBuf) -> Result<(), CountError> {
    let mut text = String::new();
    for case in names() {
        let count = count(case)?;
        tell(&format!("instructions/{case} {count}"));
        text += &format!("{case} {count}\n");
    }
    std::fs::write(file, text).map_err(|source| CountError::File { path: file.clone(), source })
}

fn count(case: &str) -> Result<u64, CountError> {
    let (short, long) = (collected(case, RUNS.0)?, collected(case, RUNS.1)?);
    Ok(long.saturating_sub(short) / (RUNS.1 - RUNS.0))
}

/// Instructions of this program's `run`, all in all.
fn collected(name: &str, times: u64) -> Result<u64, CountError> {
    let own = std::env::current_exe().map_err(CountError::Valgrind)?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(own).args(["run", name, &times.to_string()]);
    let output = valgrind.output().map_err(CountError::Valgrind)?;
    let told = String::from_utf8_lossy(&output.stderr);
    let collected = told.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.filter(|_| output.status.success()).ok_or_else(|| CountError::NoCount(told.into_owned()))
}

fn tell(line: &str) {
    // A reader that is gone has seen enough.
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[derive(Debug, thiserror::Error)]
enum CountError {
    #[error("{USAGE}")]
    Usage,
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("valgrind cannot be started, is it installed? {0}")]
    Valgrind(#[source] std::io::Error),
    #[error("valgrind counted nothing; it said:\n{0}")]
    NoCount(String),
    #[error("{} has no count for {case}: make bench-instructions-update", path.display())]
    Unknown { case: &'static str, path: PathBuf },
    #[error(
        "over a tenth more than {} says: {cases}. Make it cheaper or, where it is worth it, make bench-instructions-update",
        path.display()
    )]
    Over { cases: String, path: PathBuf },
}
