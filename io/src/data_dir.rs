//! Who a node is: its identity file, the boot number, and the directory that holds both.
//!
//! The file is text that people can read, with its own checksum, and is replaced as a whole. The
//! boot number is raised durably before anything else is done with the directory.

use sprawl_core::ids::{Boot, DiskId, NUMBER_MAX};
use sprawl_core::zoo::{Bug, planted};

use crate::storage::Files;

#[cfg(not(madsim))]
mod folder;
#[cfg(not(madsim))]
pub use folder::{DataDir, DirError};

/// The name of the identity file.
pub const IDENTITY_FILE: &str = "identity";
/// The name of the file that keeps a directory from being started again, once the cluster has said
/// for good that it is not the node: with each start its boot number grows, and would one day pass
/// the registered one, with data that are older all the same.
pub const REFUSED_FILE: &str = "refused";
/// The format of data directories that this build writes and reads.
pub const FORMAT: u32 = 1;

/// A node: its disk, this run of it, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The random identity that the data directory was born with.
    pub disk: DiskId,
    /// How often it has started, this start included.
    pub boot: Boot,
    /// What people call it; kept from the first start on.
    pub name: String,
    /// Whether the run before ended in order, and every one since the last that was registered:
    /// what they were given is on the disk.
    pub clean: bool,
}

/// Why a data directory gives no identity. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file could not be read or replaced.
    #[error("the identity file: {0}")]
    Io(#[from] std::io::Error),
    /// The file is not what was written.
    #[error(
        "the identity file is damaged ({0}): restore it from a copy, or start with an empty \
         directory, which makes a new node"
    )]
    Damaged(String),
    /// The cluster has refused the directory for good.
    #[error("{0}")]
    Refused(String),
    /// There is data but no identity.
    #[error(
        "the directory holds a database but no identity file: restore it from a copy, or start \
         with an empty directory, which makes a new node"
    )]
    Missing,
    /// A newer version of the program wrote the directory.
    #[error("the directory has format {0}; this version reads format {FORMAT}: upgrade it")]
    Newer(u32),
    /// The directory belongs to a node of another name.
    #[error("the directory belongs to node '{found}', not to '{given}'")]
    OtherNode {
        /// The name in the file.
        found: String,
        /// The name that was asked for.
        given: String,
    },
}

/// What a node may call itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Chosen: a directory of a node of another name is refused.
    Given(String),
    /// For a first start only; a directory that has a name keeps it.
    Default(String),
}

/// Takes up the identity of a directory, or makes one, and raises its boot number durably.
///
/// `fresh` are the random bits that a new directory is born with.
///
/// # Errors
///
/// [`IdentityError`]; damage is never read as an empty directory.
pub async fn enter<F: Files>(
    files: &F,
    name: &Name,
    fresh: u128,
) -> Result<Identity, IdentityError> {
    if let Some(why) = files.read(REFUSED_FILE).await? {
        return Err(IdentityError::Refused(String::from_utf8_lossy(&why).into_owned()));
    }
    let mut identity = match files.read(IDENTITY_FILE).await? {
        Some(content) => parse(&content)?,
        None if files.holds_data().await? => return Err(IdentityError::Missing),
        None => {
            let (Name::Given(name) | Name::Default(name)) = name;
            born(name, fresh)
        }
    };
    if let Name::Given(given) = name
        && *given != identity.name
    {
        let (found, given) = (identity.name, given.clone());
        return Err(IdentityError::OtherNode { found, given });
    }
    identity.boot = identity.boot.next();
    files.replace(IDENTITY_FILE, render(&identity, false).as_bytes()).await?;
    Ok(identity)
}

/// Notes that the run has ended in order: all that it was given is durable.
pub(crate) async fn leave<F: Files>(files: &F, identity: &Identity) {
    if let Err(error) = files.replace(IDENTITY_FILE, render(identity, true).as_bytes()).await {
        tracing::warn!(%error, "it is not noted that the node has ended in order");
    }
}

/// The identity of a directory that has none. It is of the disk and never of the name: who comes
/// back with an empty disk is another node.
fn born(name: &str, fresh: u128) -> Identity {
    let name = name.to_owned();
    if planted(Bug::WipedKeepsIdentity) {
        let disk = name.bytes().fold(1, |disk, byte| disk << 8 | u128::from(byte));
        return Identity { disk: DiskId(disk), boot: Boot(fresh as u64 >> 32), name, clean: false };
    }
    Identity { disk: DiskId(fresh), boot: Boot(0), name, clean: false }
}

/// Keeps the directory from being started again.
pub(crate) async fn fence<F: Files>(files: &F, why: &str) {
    if let Err(error) = files.replace(REFUSED_FILE, why.as_bytes()).await {
        tracing::warn!(%error, "the file '{REFUSED_FILE}' is not written");
    }
}

fn render(identity: &Identity, ended: bool) -> String {
    let Identity { disk, boot, name, .. } = identity;
    let (name, ended) = (name.escape_default(), if ended { "in order" } else { "no" });
    let body = format!(
        "format = {FORMAT}\ndisk = {disk}\nboot = {boot}\nname = {name}\nended = {ended}\n"
    );
    let checksum = crc32c::crc32c(body.as_bytes());
    format!("{body}checksum = {checksum:08x}\n")
}

fn parse(content: &[u8]) -> Result<Identity, IdentityError> {
    let damaged = |why: &str| IdentityError::Damaged(why.to_owned());
    let text = std::str::from_utf8(content).map_err(|_| damaged("it is not text"))?;
    let (body, checksum) = text.rsplit_once("checksum = ").ok_or(damaged("no checksum"))?;
    if checksum.trim_end() != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
        return Err(damaged("its checksum does not match"));
    }
    let field = |key: &str| {
        let mut lines = body.lines().filter_map(|line| line.split_once(" = "));
        let found = lines.find(|(name, _)| *name == key).map(|(_, value)| value);
        found.ok_or_else(|| IdentityError::Damaged(format!("it has no {key}")))
    };
    let format = field("format")?.parse().map_err(|_| damaged("its format is no number"))?;
    if format != FORMAT {
        return Err(IdentityError::Newer(format));
    }
    let disk = field("disk")?.parse().map_err(|_| damaged("its disk is no identity"))?;
    let boot: u64 = field("boot")?.parse().map_err(|_| damaged("its boot is no number"))?;
    if boot >= NUMBER_MAX {
        return Err(damaged("its boot is more than any node reaches"));
    }
    let name = unescape(field("name")?).ok_or(damaged("its name is not spelled right"))?;
    let clean = match field("ended")? {
        "in order" => true,
        "no" => false,
        _ => return Err(damaged("how its last run ended is neither 'in order' nor 'no'")),
    };
    Ok(Identity { disk, boot: Boot(boot), name, clean })
}

/// Reads back what `escape_default` wrote.
fn unescape(text: &str) -> Option<String> {
    let (mut name, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        if c != '\\' {
            name.push(c);
            continue;
        }
        name.push(match chars.next()? {
            't' => '\t',
            'r' => '\r',
            'n' => '\n',
            'u' => {
                let hex: String =
                    chars.by_ref().skip(1).take_while(|digit| *digit != '}').collect();
                char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?
            }
            quoted @ ('\\' | '\'' | '"') => quoted,
            _ => return None,
        });
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str) -> Identity {
        Identity { disk: DiskId(0xabc), boot: Boot(7), name: name.to_owned(), clean: true }
    }

    #[test]
    fn an_identity_comes_back_as_it_was() {
        for name in ["127.0.0.1:7946", "a = b", "tab\tquote'\"\\ ünï\n\u{1f980}", ""] {
            for clean in [true, false] {
                let parsed = parse(render(&identity(name), clean).as_bytes());
                assert_eq!(parsed.ok(), Some(Identity { clean, ..identity(name) }));
            }
        }
    }

    #[test]
    fn each_changed_byte_is_noticed() {
        let good = render(&identity("node"), true).into_bytes();
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(parse(&bad).is_err(), "a flip at {at}");
        }
        for end in 0..good.len() - 1 {
            assert!(parse(&good[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_boot_that_no_node_reaches_is_damage() {
        for boot in [NUMBER_MAX, u64::MAX] {
            let rendered = render(&Identity { boot: Boot(boot), ..identity("node") }, true);
            let parsed = parse(rendered.as_bytes());
            assert!(matches!(parsed, Err(IdentityError::Damaged(_))), "{parsed:?}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let body = "format = 2\n";
        let checksum = crc32c::crc32c(body.as_bytes());
        let newer = parse(format!("{body}checksum = {checksum:08x}\n").as_bytes());
        assert!(matches!(newer, Err(IdentityError::Newer(2))), "{newer:?}");
    }
}
