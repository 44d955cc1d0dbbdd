//! The command line of `sprawlctl`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::client::Client;
use crate::output::{self, Format};
use crate::{administer, bench, diagnose, fetch, publish, show, subscribe, test};

/// Publishes to Sprawl, subscribes, and looks at its nodes.
#[derive(Debug, Parser)]
#[command(name = "sprawlctl", version = sprawl_server::VERSION)]
struct Line {
    /// The nodes to talk to; when one cannot be reached, the next is tried.
    #[arg(
        short,
        long,
        global = true,
        value_name = "URL",
        value_delimiter = ',',
        env = "SPRAWL_NODES",
        default_value = "http://127.0.0.1:9070"
    )]
    nodes: Vec<String>,
    /// In which form answers are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publishes messages and prints their ids
    Publish(publish::Arguments),
    /// Prints the messages of topics until it is interrupted, and acknowledges them
    Subscribe(subscribe::Arguments),
    /// Prints the messages of a partition from an offset on, without a subscription
    Fetch(fetch::Arguments),
    /// Lists the topics
    Topics,
    /// Lists the durable subscriptions
    Subscriptions,
    /// Shows a node and its cluster
    Status,
    /// Lists the nodes of the cluster, each with its state and its role
    Nodes,
    /// Shows where each topic is, by the hash of its name
    Dht,
    /// Changes which nodes the cluster has, and what they hold
    #[command(subcommand)]
    Cluster(administer::Command),
    /// Checks each endpoint of each node, says what is wrong and what to do
    Diagnose,
    /// Publishes at a steady rate, and says how long each message took from when it was due
    Bench(bench::Arguments),
    /// Publishes, reads back, receives and acknowledges; fails when a message is lost or altered
    Test(test::Arguments),
    /// Prints what makes a shell complete the words of this command
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// Does what the command line says. The exit code is 0 when all of it was done.
pub(crate) fn run() -> ExitCode {
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => return refuse(&error),
    };
    match carry_out(line) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sprawlctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Help and version are asked for; anything else is one line on standard error.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print!("{error}");
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprintln!("sprawlctl: say what to do; try sprawlctl --help");
            ExitCode::from(2)
        }
        _ => {
            let said = error.to_string();
            let said = said.strip_prefix("error: ").unwrap_or(&said);
            let lines = said.lines().map(str::trim);
            let lines = lines.take_while(|line| !line.starts_with("Usage:"));
            let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
            eprintln!("sprawlctl: {}; try --help", lines.join(" "));
            ExitCode::from(2)
        }
    }
}

/// Gives whether everything succeeded.
fn carry_out(line: Line) -> anyhow::Result<bool> {
    if let Command::Completions { shell } = line.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Line::command(), "sprawlctl", &mut script);
        output::bytes(&script)?;
        return Ok(true);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let client = Client::new(line.nodes)?;
    let format = line.output;
    runtime.block_on(async {
        match line.command {
            Command::Publish(arguments) => publish::publish(client, arguments, format).await,
            Command::Subscribe(arguments) => subscribe::subscribe(client, arguments, format).await,
            Command::Fetch(arguments) => fetch::fetch(client, arguments, format).await,
            Command::Topics => show::topics(&client, format).await,
            Command::Subscriptions => show::subscriptions(&client, format).await,
            Command::Status => show::status(&client, format).await,
            Command::Nodes => show::nodes(&client, format).await,
            Command::Dht => show::dht(&client, format).await,
            Command::Cluster(command) => administer::administer(&client, command, format).await,
            Command::Diagnose => diagnose::diagnose(&client, format).await,
            Command::Bench(arguments) => bench::bench(client, arguments, format).await,
            Command::Test(arguments) => test::test(client, arguments, format).await,
            Command::Completions { .. } => Ok(true),
        }
    })
}
