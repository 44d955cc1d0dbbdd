//! Randomness from the system: ids that no two commands share, and bytes to fill payloads with.

/// Random bytes.
pub(crate) fn bytes(count: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

/// A new id: 32 hex digits.
pub(crate) fn id() -> anyhow::Result<String> {
    hex(16)
}

/// A short name for one run of a command: 8 hex digits.
pub(crate) fn run() -> anyhow::Result<String> {
    hex(4)
}

fn hex(count: usize) -> anyhow::Result<String> {
    Ok(bytes(count)?.iter().map(|byte| format!("{byte:02x}")).collect())
}
