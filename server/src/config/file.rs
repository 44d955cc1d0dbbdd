//! The configuration file: flat TOML, each key an option in snake case.

use std::path::Path;

use toml::{Table, Value};

use super::ConfigError;
use super::options::{ABSENT, Choice, Key, OPTIONS};

/// Reads a file into options and their values, as text.
pub(super) fn read(path: &Path) -> Result<Vec<(&'static Choice, String)>, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::File(path.to_owned(), error))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let said = error.to_string();
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        ConfigError::Toml(path.to_owned(), lines.join(" "))
    })?;
    let mut values = Vec::new();
    for (key, value) in &table {
        let mut all = OPTIONS.iter().chain(ABSENT).filter(|option| option.key != Key::Config);
        let Some(option) = all.find(|option| option.key_name == key) else {
            let known = OPTIONS.iter().filter(|option| option.key != Key::Config);
            let known = known.map(|option| option.key_name).collect::<Vec<_>>().join(", ");
            let (file, key) = (path.to_owned(), key.clone());
            return Err(ConfigError::UnknownKey { file, key, known });
        };
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
            Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                let said = format!("the key '{key}' is neither text nor a number");
                return Err(ConfigError::Toml(path.to_owned(), said));
            }
        };
        values.push((option, value));
    }
    Ok(values)
}
