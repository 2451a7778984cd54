//! `guardian completion`, and what kubectl asks when its plugin `kubectl guardian` is to be completed.

use std::ffi::OsString;
use std::io::{self, Write as _};

use clap::{Arg, Command, CommandFactory as _, ValueHint};
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  guardian completion bash > /etc/bash_completion.d/guardian")]
pub(super) struct Args {
    /// The shell to write for
    shell: Shell,
}

/// The file that kubectl starts to complete `kubectl guardian`, with the words after it as arguments, the last of them unfinished.
pub(super) const COMPLETER: &str = "kubectl_complete-guardian";

/// What a shell is to do with the words that it gets, in the numbers of cobra, which kubectl is built on: show them, or names of files.
const WORDS_ALONE: u32 = 4;
const FILES: u32 = 0;

pub(super) fn run(args: &Args) -> io::Result<()> {
    let mut script = Vec::new();
    // For the file's own name: `kubectl guardian` asks the program COMPLETER instead.
    let called = super::called();
    clap_complete::generate(args.shell, &mut super::Cli::command(), called, &mut script);
    io::stdout().lock().write_all(&script)
}

/// Answers kubectl: a word and what it means in each line, and at last what to do with them.
pub(super) fn answer(words: &[OsString]) -> io::Result<()> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut command = super::Cli::command();
    command.build();
    let (possible, then) = possible(&command, &words);
    let mut out = io::stdout().lock();
    for (word, meaning) in possible {
        writeln!(out, "{word}\t{meaning}")?;
    }
    writeln!(out, ":{then}")
}

/// What the last word may become.
fn possible(command: &Command, words: &[String]) -> (Vec<(String, String)>, u32) {
    let (last, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let (mut command, mut option) = (command, None);
    for word in before {
        option = option_of(command, word).filter(|arg| arg.get_action().takes_values());
        command = command.find_subcommand(word).unwrap_or(command);
    }
    if let Some(option) = option {
        return values(option, last);
    }
    if last.starts_with('-') {
        let flags = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(|arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            Some((format!("--{}", arg.get_long()?), help))
        });
        return (beginning_with(last, flags), WORDS_ALONE);
    }
    let subcommands = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let subcommands =
        subcommands.map(|sub| (sub.get_name().to_owned(), sub.get_about().map(ToString::to_string).unwrap_or_default()));
    let found = beginning_with(last, subcommands);
    match command.get_positionals().next() {
        Some(positional) if found.is_empty() => values(positional, last),
        _ => (found, WORDS_ALONE),
    }
}

/// The option that `word` is, where its value is the next word.
fn option_of<'c>(command: &'c Command, word: &str) -> Option<&'c Arg> {
    let (long, short) = (word.strip_prefix("--"), word.strip_prefix('-').and_then(|rest| rest.chars().last()));
    command.get_arguments().find(|arg| match long {
        Some(long) => arg.get_long() == Some(long),
        None => short.is_some() && arg.get_short() == short,
    })
}

fn values(arg: &Arg, last: &str) -> (Vec<(String, String)>, u32) {
    let is_path = matches!(arg.get_value_hint(), ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath);
    let values = arg.get_possible_values().into_iter().filter(|value| !value.is_hide_set());
    let values = values.map(|value| (value.get_name().to_owned(), value.get_help().map(ToString::to_string).unwrap_or_default()));
    (beginning_with(last, values), if is_path { FILES } else { WORDS_ALONE })
}

fn beginning_with(start: &str, words: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    words.filter(|(word, _)| word.starts_with(start)).collect()
}
