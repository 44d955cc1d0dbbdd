//! Every option, once: its flag, its variable, its key, and what it is for.

/// Which option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    BindAddr,
    BindPort,
    AdvertiseAddr,
    AdvertisePort,
    HttpAddr,
    HttpPort,
    DataDir,
    NodeId,
    Seeds,
    Secret,
    Found,
    Zone,
    Capacity,
    Config,
    StorageType,
    DiskMaxSize,
    MemoryMaxSize,
    CopyRate,
    BodyMaxSize,
    Shards,
    LogLevel,
    LogFormat,
    /// One that this version does not have.
    Absent,
}

/// An option and its spellings.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) key: Key,
    /// The flag, without its dashes. Go's spelling of it, `bindAddr`, is taken too.
    pub(super) flag: &'static str,
    /// Another flag that means the same, if there is one.
    pub(super) alias: Option<&'static str>,
    /// The environment variable.
    pub(super) variable: &'static str,
    /// The key in the file.
    pub(super) key_name: &'static str,
    /// What the value is, in the help.
    pub(super) value: &'static str,
    /// What it is for, in the help.
    pub(super) help: &'static str,
    /// Whether it stands alone, without a value.
    pub(super) bare: bool,
}

const fn choice(
    key: Key,
    flag: &'static str,
    variable: &'static str,
    key_name: &'static str,
    value: &'static str,
    help: &'static str,
) -> Choice {
    Choice { key, flag, alias: None, variable, key_name, value, help, bare: false }
}

const fn absent(flag: &'static str, variable: &'static str, key_name: &'static str) -> Choice {
    choice(Key::Absent, flag, variable, key_name, "VALUE", "")
}

/// What there is.
pub(super) const OPTIONS: &[Choice] = &[
    choice(
        Key::BindAddr,
        "bind-addr",
        "SPRAWL_BIND_ADDR",
        "bind_addr",
        "IP",
        "The address for other nodes; the HTTP API listens there too, unless told otherwise \
         [default: 127.0.0.1]",
    ),
    choice(
        Key::BindPort,
        "bind-port",
        "SPRAWL_BIND_PORT",
        "bind_port",
        "PORT",
        "The port for other nodes, TCP and UDP; it names the default data directory; 0 takes a \
         free one [default: 7946]",
    ),
    choice(
        Key::AdvertiseAddr,
        "advertise-addr",
        "SPRAWL_ADVERTISE_ADDR",
        "advertise_addr",
        "HOST",
        "The address that the node tells others [default: the bind address]",
    ),
    choice(
        Key::AdvertisePort,
        "advertise-port",
        "SPRAWL_ADVERTISE_PORT",
        "advertise_port",
        "PORT",
        "The port that the node tells others [default: the bind port]",
    ),
    choice(
        Key::HttpAddr,
        "http-addr",
        "SPRAWL_HTTP_ADDR",
        "http_addr",
        "IP",
        "Where the HTTP API listens [default: the bind address]",
    ),
    choice(
        Key::HttpPort,
        "http-port",
        "SPRAWL_HTTP_PORT",
        "http_port",
        "PORT",
        "The port of the HTTP API; 0 takes a free one [default: 9070]",
    ),
    Choice {
        alias: Some("disk-storage-path"),
        ..choice(
            Key::DataDir,
            "data-dir",
            "SPRAWL_DATA_DIR",
            "data_dir",
            "FOLDER",
            "Where the node keeps everything [default: ./data/node-<bind port>]",
        )
    },
    choice(
        Key::NodeId,
        "node-id",
        "SPRAWL_NODE_ID",
        "node_id",
        "NAME",
        "The node's name; a data directory of another name is refused [default: the advertised \
         address at the first start]",
    ),
    choice(
        Key::Seeds,
        "seeds",
        "SPRAWL_CLUSTER_SEEDS",
        "seeds",
        "HOST:PORT,...",
        "Nodes of the cluster, this one among them or not: a node without a cluster joins theirs, \
         or founds one with them; all nodes name the same ones [default: none, which founds]",
    ),
    Choice {
        bare: true,
        ..choice(
            Key::Found,
            "found",
            "SPRAWL_FOUND",
            "found",
            "",
            "Found a cluster though seeds are silent; only for the one node that is to begin",
        )
    },
    choice(
        Key::Secret,
        "cluster-key",
        "SPRAWL_CLUSTER_KEY",
        "cluster_key",
        "SECRET",
        "The secret that the nodes of a cluster share; the variable keeps it out of the list of \
         processes [default: none]",
    ),
    choice(
        Key::Zone,
        "zone",
        "SPRAWL_ZONE",
        "zone",
        "NAME",
        "What the node shares a fate with: a rack, a room; voters and copies are spread over \
         zones [default: none]",
    ),
    choice(
        Key::Capacity,
        "capacity",
        "SPRAWL_CAPACITY",
        "capacity",
        "NUMBER",
        "How much the node is to hold beside others: one of 200 holds twice what one of 100 holds \
         [default: 100]",
    ),
    choice(
        Key::Config,
        "config",
        "SPRAWL_CONFIG",
        "config",
        "FILE",
        "A TOML file with these options, in snake case",
    ),
    choice(
        Key::StorageType,
        "storage-type",
        "SPRAWL_STORAGE_TYPE",
        "storage_type",
        "TYPE",
        "Where messages are kept; this version has disk [default: disk]",
    ),
    choice(
        Key::DiskMaxSize,
        "disk-max-size",
        "SPRAWL_STORAGE_DISK_MAX_SIZE",
        "disk_max_size",
        "SIZE",
        "The bound of the database, such as 20GiB; near it publishes are refused \
         [default: the whole disk]",
    ),
    choice(
        Key::MemoryMaxSize,
        "memory-max-size",
        "SPRAWL_STORAGE_MEMORY_MAX_SIZE",
        "memory_max_size",
        "SIZE",
        "Memory for the newest messages, from which readers are served [default: 64MiB]",
    ),
    choice(
        Key::CopyRate,
        "copy-rate",
        "SPRAWL_STORAGE_COPY_RATE",
        "copy_rate",
        "SIZE",
        "Bytes a second of old messages that new copies take; 0 for as many as come \
         [default: 64MiB]",
    ),
    choice(
        Key::BodyMaxSize,
        "body-max-size",
        "SPRAWL_BODY_MAX_SIZE",
        "body_max_size",
        "SIZE",
        "The largest body of a request [default: 10MiB]",
    ),
    choice(
        Key::Shards,
        "shards",
        "SPRAWL_SHARDS",
        "shards",
        "N",
        "How many shards divide the partitions [default: one for each processor]",
    ),
    choice(
        Key::LogLevel,
        "log-level",
        "SPRAWL_LOG_LEVEL",
        "log_level",
        "LEVEL",
        "off, error, warn, info, debug, trace, or directives of tracing [default: info]",
    ),
    choice(
        Key::LogFormat,
        "log-format",
        "SPRAWL_LOG_FORMAT",
        "log_format",
        "FORMAT",
        "text or json, on standard error [default: text]",
    ),
];

/// What other versions have.
pub(super) const ABSENT: &[Choice] = &[
    absent("health-port", "SPRAWL_HEALTH_PORT", "health_port"),
    absent("memory-to-disk-age", "SPRAWL_STORAGE_MEMORY_TO_DISK_AGE", "memory_to_disk_age"),
    absent("disk-to-cloud-age", "SPRAWL_STORAGE_DISK_TO_CLOUD_AGE", "disk_to_cloud_age"),
    absent("s3-bucket", "SPRAWL_STORAGE_S3_BUCKET", "s3_bucket"),
    absent("s3-endpoint", "MINIO_ENDPOINT", "s3_endpoint"),
    absent("s3-access-key", "MINIO_ACCESS_KEY", "s3_access_key"),
    absent("s3-secret-key", "MINIO_SECRET_KEY", "s3_secret_key"),
    absent("s3-region", "MINIO_REGION", "s3_region"),
];
