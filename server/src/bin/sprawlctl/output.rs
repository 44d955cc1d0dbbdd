//! Printing: lines for people, JSON for programs.

use std::io::{self, Write as _};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use serde_json::Value;

/// In which form answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON value a line, for programs.
    Json,
}

/// Prints one line.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    bytes(text.as_bytes())
}

/// Prints bytes as one line, unaltered.
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.write_all(b"\n"));
    written.and_then(|()| out.flush()).context("standard output")
}

/// Prints a message that was read: the payload alone as text, all of it as JSON.
pub(crate) fn message(message: &Value, format: Format) -> anyhow::Result<()> {
    match (format, message["payload"].as_str(), message["payload_base64"].as_str()) {
        (Format::Json, _, _) => line(&message.to_string()),
        (Format::Text, Some(text), _) => line(text),
        (Format::Text, None, Some(encoded)) => {
            bytes(&STANDARD.decode(encoded).context("payload_base64")?)
        }
        (Format::Text, None, None) => bail!("a message came without a payload"),
    }
}

/// Prints a table: every column as wide as its widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> anyhow::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// A field of an answer as people read it: text without quotes, nothing as a dash.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
