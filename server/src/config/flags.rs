//! The command line: clap's flags, and Go's spellings rewritten into them.

use std::collections::BTreeMap;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};

use super::ConfigError;
use super::options::{ABSENT, Choice, OPTIONS};
use crate::VERSION;

/// What a command line says.
pub(super) enum Parsed {
    /// The values of flags, by the name of the flag.
    Flags(BTreeMap<&'static str, String>),
    /// Print this and stop.
    Print(String),
}

/// Reads arguments, the program's name not among them.
pub(super) fn parse(arguments: Vec<String>) -> Result<Parsed, ConfigError> {
    let arguments = arguments.into_iter().map(|argument| modern(&argument).unwrap_or(argument));
    let arguments = ["sprawl".to_owned()].into_iter().chain(arguments);
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    Ok(Parsed::Print(error.to_string()))
                }
                _ => Err(ConfigError::CommandLine(one_line(&error.to_string()))),
            };
        }
    };
    let mut flags = BTreeMap::new();
    for option in OPTIONS.iter().chain(ABSENT) {
        if option.bare {
            if matches.get_flag(option.flag) {
                flags.insert(option.flag, "true".to_owned());
            }
        } else if let Some(value) = matches.get_one::<String>(option.flag) {
            flags.insert(option.flag, value.clone());
        }
    }
    Ok(Parsed::Flags(flags))
}

fn command() -> Command {
    let mut command = Command::new("sprawl")
        .version(VERSION)
        .about("Starts a node of Sprawl, a publish/subscribe broker.")
        .after_help(
            "Every flag has a variable and a key in the file. A flag goes before a variable, a \
             variable before the file, the file before the default. Go's spellings are taken too: \
             -bindAddr=127.0.0.1.",
        );
    for option in OPTIONS {
        let help = format!("{} [variable: {}]", option.help, option.variable);
        command = command.arg(argument(option).help(help));
    }
    for option in ABSENT {
        command = command.arg(argument(option).hide(true));
    }
    command
}

fn argument(option: &'static Choice) -> Arg {
    let argument = Arg::new(option.flag).long(option.flag);
    let argument = match option.alias {
        Some(alias) => argument.alias(alias),
        None => argument,
    };
    if option.bare {
        return argument.action(ArgAction::SetTrue);
    }
    // A value may begin with a dash: then it is refused for what it is, by its own reader.
    argument
        .value_name(option.value)
        .value_parser(ValueParser::string())
        .action(ArgAction::Set)
        .allow_hyphen_values(true)
}

/// The flag that an argument in Go's spelling, `-bindAddr=x` or `-bindAddr`, stands for.
fn modern(argument: &str) -> Option<String> {
    let named = argument.strip_prefix('-')?;
    let named = named.strip_prefix('-').unwrap_or(named);
    let (name, value) = match named.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (named, None),
    };
    let spelt = |flag: &str| camel(flag) == name;
    let mut all = OPTIONS.iter().chain(ABSENT);
    let option = all.find(|option| spelt(option.flag) || option.alias.is_some_and(spelt))?;
    Some(match value {
        Some(value) => format!("--{}={value}", option.flag),
        None => format!("--{}", option.flag),
    })
}

/// `bind-addr` as Go spells it: `bindAddr`.
fn camel(flag: &str) -> String {
    let mut parts = flag.split('-');
    let mut name = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let (first, rest) = part.split_at(part.len().min(1));
        name.push_str(&first.to_ascii_uppercase());
        name.push_str(rest);
    }
    name
}

/// What clap says, without its usage and in one line.
fn one_line(said: &str) -> String {
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let lines = said.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_spellings_are_rewritten() {
        for (given, wanted) in [
            ("-bindAddr=1.2.3.4", Some("--bind-addr=1.2.3.4")),
            ("--httpPort", Some("--http-port")),
            ("-diskStoragePath=/d", Some("--data-dir=/d")),
            ("-s3Bucket=b", Some("--s3-bucket=b")),
            ("-memoryMaxSize=1", Some("--memory-max-size=1")),
            ("-seeds=a=b", Some("--seeds=a=b")),
            ("--bind-addr=1.2.3.4", None),
            ("-unknownFlag", None),
            ("bindAddr", None),
        ] {
            assert_eq!(modern(given).as_deref(), wanted, "{given}");
        }
    }

    #[test]
    fn the_command_is_consistent() {
        command().debug_assert();
    }
}
