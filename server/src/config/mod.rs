//! What a node is told at its start: flags before variables before the file before defaults.
//!
//! Every option stands once, in [`options`]; a flag, a variable and a key of the file are three
//! spellings of it. What the documents of the project know and this version does not serve stands
//! there too, so that it stops the start instead of being passed over.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;

use sprawl_core::broker::ShardOptions;
use sprawl_core::broker::replica::PAYLOAD_BYTES_MAX;
use sprawl_core::cluster::founding::SEEDS_MAX;
use sprawl_core::cluster::metadata::{CAPACITY_MAX, CAPACITY_NORMAL};
use sprawl_core::ids::NAME_BYTES_MAX;
use sprawl_core::node::SHARDS_MAX;
use tracing_subscriber::EnvFilter;

mod file;
mod flags;
mod options;
mod size;

use options::{ABSENT, Key, OPTIONS};

/// The least that the database's bound may be: below it, its own files find no room.
const DISK_BYTES_MIN: u64 = 64 << 20;
/// The most that it may be.
const DISK_BYTES_MAX: u64 = 1 << 50;
/// The least memory for readers.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// The most memory for readers.
const MEMORY_BYTES_MAX: u64 = 1 << 40;
/// The least bound of what new copies take a second.
const COPY_RATE_MIN: NonZeroU64 = NonZeroU64::new(64 << 10).expect("not zero");
/// The least that the limit of a body may be.
const BODY_BYTES_MIN: u64 = 1 << 10;
/// The most that it may be: a body holds little more than one payload.
const BODY_BYTES_MAX: u64 = PAYLOAD_BYTES_MAX as u64;

/// A node's configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where other nodes are to reach this one; its port names the default data directory.
    pub bind: SocketAddr,
    /// The address that the node tells others, `host:port`; port 0 until one is chosen.
    pub advertise: (String, u16),
    /// Where the HTTP API listens; port 0 takes a free one.
    pub http: SocketAddr,
    /// The data directory; none for `./data/node-<bind port>`.
    pub data_dir: Option<PathBuf>,
    /// The node's name; none for the advertised address of its first start.
    pub name: Option<String>,
    /// Where it looks for its cluster, `host:port` each.
    pub seeds: Vec<(String, u16)>,
    /// Whether it founds a cluster though seeds are silent.
    pub founds: bool,
    /// The secret that the nodes of its cluster share.
    pub cluster_key: Option<Secret>,
    /// What it shares a fate with; empty where nobody said.
    pub zone: String,
    /// How much it is to hold beside others.
    pub capacity: u32,
    /// Bytes that the database may take; none for the whole disk.
    pub disk_max_bytes: Option<u64>,
    /// Bytes of messages kept in memory for readers.
    pub memory_max_bytes: usize,
    /// Bytes a second of what is old that new copies are filled with; none for as many as come.
    pub copy_rate: Option<NonZeroU64>,
    /// Bytes of a request's body.
    pub body_max_bytes: usize,
    /// How many shards the node has.
    pub shards: u16,
    /// What is logged, as a filter of tracing.
    pub log_level: String,
    /// In which form it is logged.
    pub log_format: LogFormat,
}

/// A secret that is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// In which form the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Start a node.
    Start(Box<Config>),
    /// Print this, and nothing else: the help or the version.
    Print(String),
}

/// Why there is no configuration. One line; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is not understood.
    #[error("{0}; try --help")]
    CommandLine(String),
    /// The file cannot be read.
    #[error("the configuration file {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// The file is not TOML.
    #[error("the configuration file {0}: {1}")]
    Toml(PathBuf, String),
    /// The file has a key that there is not.
    #[error("the configuration file {file}: unknown key '{key}'; there are: {known}")]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// All keys that there are.
        known: String,
    },
    /// An option of versions to come.
    #[error(
        "{0}: this version keeps messages on disk and does not have this option; \
         leave it out"
    )]
    Absent(Source),
    /// A value that the option cannot have.
    #[error("{0}: {1}")]
    Value(Source, String),
}

/// Where a value comes from, as the user spelt it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// A key of the file.
    Key(&'static str),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "the flag --{name}"),
            Self::Variable(name) => write!(f, "the variable {name}"),
            Self::Key(name) => write!(f, "the key {name} of the configuration file"),
        }
    }
}

/// Reads the configuration of this process: its arguments, its environment, the file they name.
///
/// # Errors
///
/// [`ConfigError`] in one line.
pub fn from_process() -> Result<Asked, ConfigError> {
    let mut arguments = Vec::new();
    for argument in std::env::args_os().skip(1) {
        arguments.push(argument.into_string().map_err(|argument| {
            ConfigError::CommandLine(format!("the argument {argument:?} is not UTF-8"))
        })?);
    }
    read(arguments, &|name| std::env::var_os(name).and_then(|value| value.into_string().ok()))
}

/// Reads a configuration from arguments and an environment.
///
/// # Errors
///
/// [`ConfigError`] in one line.
pub fn read(
    arguments: Vec<String>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Asked, ConfigError> {
    let flags = match flags::parse(arguments)? {
        flags::Parsed::Print(text) => return Ok(Asked::Print(text)),
        flags::Parsed::Flags(flags) => flags,
    };
    let mut given = Given::default();
    let variables = |name: &'static str| variable(name).filter(|value| !value.is_empty());
    let all = || OPTIONS.iter().chain(ABSENT);
    for option in all() {
        if let Some(value) = flags.get(option.flag) {
            given.put(option.key, Source::Flag(option.flag), value.clone());
        } else if let Some(value) = variables(option.variable) {
            given.put(option.key, Source::Variable(option.variable), value);
        }
    }
    if let Some((_, path)) = given.0.get(&Key::Config) {
        for (option, value) in file::read(&PathBuf::from(path))? {
            given.put(option.key, Source::Key(option.key_name), value);
        }
    }
    if let Some((source, _)) = given.0.get(&Key::Absent) {
        return Err(ConfigError::Absent(source.clone()));
    }
    given.check().map(|config| Asked::Start(Box::new(config)))
}

/// What was given, by whoever gave it first.
#[derive(Default)]
struct Given(BTreeMap<Key, (Source, String)>);

impl Given {
    fn put(&mut self, key: Key, source: Source, value: String) {
        self.0.entry(key).or_insert((source, value));
    }

    /// The value of an option, read by `parse`; none when nobody gave it.
    fn take<T, E: std::fmt::Display>(
        &self,
        key: Key,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((source, value)) = self.0.get(&key) else { return Ok(None) };
        parse(value)
            .map(Some)
            .map_err(|error| ConfigError::Value(source.clone(), format!("'{value}': {error}")))
    }

    fn port(&self, key: Key, default: u16) -> Result<u16, ConfigError> {
        let port = self.take(key, |text| {
            text.parse().map_err(|_| "a port is a number from 0 to 65535, 0 for a free one")
        });
        Ok(port?.unwrap_or(default))
    }

    fn address(&self, key: Key) -> Result<Option<IpAddr>, ConfigError> {
        self.take(key, |text| {
            let text = if text == "localhost" { "127.0.0.1" } else { text };
            text.parse().map_err(|_| "an address is an IP address such as 127.0.0.1 or ::")
        })
    }

    fn size(&self, key: Key, least: u64, most: u64) -> Result<Option<u64>, ConfigError> {
        self.take(key, |text| {
            let bytes = size::parse(text)?;
            if (least..=most).contains(&bytes) {
                return Ok(bytes);
            }
            Err(format!("it is from {} to {}", size::render(least), size::render(most)))
        })
    }

    fn check(&self) -> Result<Config, ConfigError> {
        self.take(Key::StorageType, storage_type)?;
        let bind_addr = self.address(Key::BindAddr)?.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let bind = SocketAddr::new(bind_addr, self.port(Key::BindPort, 7946)?);
        let advertise_addr = self.take(Key::AdvertiseAddr, host)?;
        let advertise_addr = advertise_addr.unwrap_or_else(|| bind_addr.to_string());
        let advertise_port = self.port(Key::AdvertisePort, bind.port())?;
        let http_addr = self.address(Key::HttpAddr)?.unwrap_or(bind_addr);
        let http = SocketAddr::new(http_addr, self.port(Key::HttpPort, 9070)?);
        let disk_max_bytes = self.size(Key::DiskMaxSize, DISK_BYTES_MIN, DISK_BYTES_MAX)?;
        let memory_max_bytes = self.size(Key::MemoryMaxSize, MEMORY_BYTES_MIN, MEMORY_BYTES_MAX)?;
        let body_max_bytes = self.size(Key::BodyMaxSize, BODY_BYTES_MIN, BODY_BYTES_MAX)?;
        Ok(Config {
            bind,
            advertise: (advertise_addr, advertise_port),
            http,
            data_dir: self.take(Key::DataDir, path)?,
            name: self.take(Key::NodeId, name)?,
            seeds: self.take(Key::Seeds, seeds)?.unwrap_or_default(),
            founds: self.take(Key::Found, truth)?.unwrap_or(false),
            cluster_key: self.take(Key::Secret, secret)?,
            zone: self.take(Key::Zone, name)?.unwrap_or_default(),
            capacity: self.take(Key::Capacity, capacity)?.unwrap_or(CAPACITY_NORMAL),
            disk_max_bytes,
            memory_max_bytes: memory_max_bytes
                .map_or(ShardOptions::default().cache_bytes, |bytes| bytes as usize),
            copy_rate: self
                .take(Key::CopyRate, copy_rate)?
                .unwrap_or(ShardOptions::default().older_rate),
            body_max_bytes: body_max_bytes.map_or(10 << 20, |bytes| bytes as usize),
            shards: self.take(Key::Shards, shards)?.unwrap_or_else(shards_default),
            log_level: self.take(Key::LogLevel, filter)?.unwrap_or_else(|| "info".to_owned()),
            log_format: self.take(Key::LogFormat, log_format)?.unwrap_or(LogFormat::Text),
        })
    }
}

fn storage_type(text: &str) -> Result<(), &'static str> {
    match text {
        "disk" => Ok(()),
        "s3" | "memory" => Err("this version keeps messages on disk: say disk"),
        _ => Err("the storage type is disk"),
    }
}

fn copy_rate(text: &str) -> Result<Option<NonZeroU64>, String> {
    let rate = NonZeroU64::new(size::parse(text)?);
    match rate {
        Some(rate) if rate < COPY_RATE_MIN => {
            Err(format!("it is at least {}, or 0 for no bound", size::render(COPY_RATE_MIN.get())))
        }
        Some(_) | None => Ok(rate),
    }
}

fn host(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    let port = text.parse::<SocketAddr>().is_ok();
    if text.is_empty() || !text.chars().all(plain) || port {
        return Err("it is an IP address or a host name, without a port");
    }
    Ok(text.to_owned())
}

/// `host:port,host:port`; an IPv6 address stands in brackets.
fn seeds(text: &str) -> Result<Vec<(String, u16)>, String> {
    let all: Vec<&str> = text.split(',').map(str::trim).filter(|seed| !seed.is_empty()).collect();
    if all.len() > SEEDS_MAX {
        return Err(format!("at most {SEEDS_MAX} seeds are named"));
    }
    all.into_iter().map(seed).collect()
}

fn seed(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("'{text}' is no seed: write HOST:PORT, separated by commas");
    let (host_part, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host_part.strip_prefix('[').and_then(|part| part.strip_suffix(']'));
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let host = host(bare.unwrap_or(host_part)).map_err(|_| wrong())?;
    if bare.is_none() && host.contains(':') {
        return Err(wrong());
    }
    Ok((host, port))
}

fn truth(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("it is true or false"),
    }
}

fn secret(text: &str) -> Result<Secret, &'static str> {
    if text.is_empty() { Err("it is empty") } else { Ok(Secret(text.to_owned())) }
}

fn capacity(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=CAPACITY_MAX).contains(number));
    number.ok_or_else(|| format!("a capacity is from 1 to {CAPACITY_MAX}"))
}

fn path(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() { Err("it is empty") } else { Ok(PathBuf::from(text)) }
}

fn name(text: &str) -> Result<String, String> {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    if fits && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes and no control characters"))
}

fn shards(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (1..=SHARDS_MAX).contains(number));
    number.ok_or_else(|| format!("a node has 1 to {SHARDS_MAX} shards"))
}

/// One for each processor.
fn shards_default() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(processors).map_or(SHARDS_MAX, |processors| processors.min(SHARDS_MAX))
}

fn filter(text: &str) -> Result<String, String> {
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    let plain = text.contains(['=', ',']) || known.contains(&text);
    match EnvFilter::try_new(text) {
        Ok(_) if plain => Ok(text.to_owned()),
        Ok(_) => Err("a level is off, error, warn, info, debug or trace".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn log_format(text: &str) -> Result<LogFormat, &'static str> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("a log format is text or json"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Config, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        match read(arguments, &variable).map_err(|error| error.to_string())? {
            Asked::Start(config) => Ok(*config),
            Asked::Print(text) => Err(text),
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("it takes text");
        file
    }

    #[test]
    fn bare_is_one_node_with_defaults() {
        let config = start(&[], &[]).expect("defaults");
        assert_eq!(config.bind.to_string(), "127.0.0.1:7946");
        assert_eq!(config.http.to_string(), "127.0.0.1:9070");
        assert_eq!(config.advertise, ("127.0.0.1".to_owned(), 7946));
        assert_eq!((config.data_dir, config.name), (None, None));
        assert_eq!((config.body_max_bytes, config.disk_max_bytes), (10 << 20, None));
    }

    #[test]
    fn a_flag_goes_before_a_variable_before_the_file() {
        let file = file("http_port = 1\nbind_port = 11\nnode_id = 'of-file'\nshards = 3\n");
        let path = file.path().to_str().expect("UTF-8");
        let variables = [("SPRAWL_HTTP_PORT", "2"), ("SPRAWL_BIND_PORT", "12")];
        let flags = ["--config", path, "-httpPort=3"];
        let config = start(&flags, &variables).expect("all are good");
        assert_eq!((config.http.port(), config.bind.port()), (3, 12));
        assert_eq!((config.name.as_deref(), config.shards), (Some("of-file"), 3));
        let variables = [("SPRAWL_CONFIG", path)];
        assert_eq!(start(&[], &variables).expect("the file").http.port(), 1);
    }

    #[test]
    fn what_is_wrong_is_one_line() {
        let cases: [(&[&str], &str); 16] = [
            (&["--http-port", "x"], "the flag --http-port: 'x': a port is"),
            (&["-httpPort=70000"], "the flag --http-port: '70000'"),
            (&["--bind-addr", "nowhere"], "the flag --bind-addr: 'nowhere': an address is"),
            (&["--seeds", "a,b"], "'a' is no seed: write HOST:PORT"),
            (&["--seeds", "a:1,::1:7946"], "'::1:7946' is no seed"),
            (&["--seeds", "a:0"], "'a:0' is no seed"),
            (&["--capacity", "0"], "a capacity is from 1"),
            (&["-s3Bucket=b"], "the flag --s3-bucket: this version keeps messages on disk"),
            (&["--storage-type", "memory"], "this version keeps messages on disk"),
            (&["-storageType=tape"], "the storage type is disk"),
            (&["--disk-max-size", "1KiB"], "'1KiB': it is from 64MiB"),
            (&["--body-max-size", "1TiB"], "'1TiB': it is from 1KiB to 64MiB"),
            (&["--shards", "0"], "a node has 1 to 256 shards"),
            (&["--log-level", "loud"], "a level is"),
            (&["--nonsense"], "--nonsense"),
            (&["--config", "/nowhere.toml"], "the configuration file /nowhere.toml"),
        ];
        for (arguments, wanted) in cases {
            let said = start(arguments, &[]).expect_err("it is wrong");
            assert!(said.contains(wanted) && !said.contains('\n'), "{arguments:?}: {said:?}");
        }
        let said = start(&[], &[("MINIO_ENDPOINT", "http://x")]).expect_err("absent");
        assert!(said.starts_with("the variable MINIO_ENDPOINT: this version"), "{said}");
    }

    #[test]
    fn what_is_wrong_in_the_file_is_one_line() {
        for (text, wanted) in [
            ("colour = 1", "unknown key 'colour'"),
            ("seeds = 'a'", "the key seeds of the configuration file: 'a'"),
            ("s3_bucket = 'a'", "the key s3_bucket of the configuration file: this version"),
            ("http_port = [1]", "the key 'http_port' is neither"),
            ("http_port = ", "TOML parse error"),
            ("http_port = 'x'", "the key http_port of the configuration file: 'x'"),
        ] {
            let file = file(text);
            let path = file.path().to_str().expect("UTF-8");
            let said = start(&["--config", path], &[]).expect_err("it is wrong");
            assert!(said.contains(wanted) && !said.contains('\n'), "{text}: {said:?}");
        }
    }

    #[test]
    fn a_cluster_is_named_in_either_spelling() {
        let flags = ["-seeds=10.0.0.1:7946, b.example:7,[::1]:8", "--found", "--zone", "a"];
        let config = start(&flags, &[("SPRAWL_CLUSTER_KEY", "secret")]).expect("all are good");
        let seeds = [("10.0.0.1", 7946), ("b.example", 7), ("::1", 8)];
        assert_eq!(config.seeds, seeds.map(|(host, port)| (host.to_owned(), port)));
        assert!(config.founds && config.zone == "a" && config.capacity == CAPACITY_NORMAL);
        assert!(!format!("{config:?}").contains("secret"));
        let config = start(&[], &[("SPRAWL_CLUSTER_SEEDS", "a:1")]).expect("a seed");
        assert_eq!(config.seeds.len(), 1);
    }

    #[test]
    fn help_and_version_are_printed() {
        let said = start(&["--version"], &[]).expect_err("it is printed");
        assert_eq!(said.trim(), format!("sprawl {}", crate::VERSION));
        let said = start(&["--help"], &[]).expect_err("it is printed");
        for option in OPTIONS {
            assert!(said.contains(&format!("--{}", option.flag)), "{}", option.flag);
        }
        assert!(!said.contains("--s3-bucket"));
    }
}
