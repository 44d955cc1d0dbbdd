//! What two nodes say to one another before anything else, and why one may send the other away.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};
use sprawl_core::ids::{Boot, ClusterId, DiskId};
use sprawl_core::wire;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Class;
use super::dice::NONCE_BYTES;
use super::key::SEAL_BYTES;

/// What the first parcel of a connection begins with.
const MAGIC: [u8; 8] = *b"sprawl\0p";
/// The longest parcel, in bytes.
pub(super) const PARCEL_BYTES_MAX: usize = 4 << 10;
/// How long a parcel's head is: the length of what follows, and its CRC32C.
const HEAD_BYTES: usize = 8;
/// The longest name of a node that is sent, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 1 << 10;

/// Who a node is, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// Its data directory.
    pub disk: DiskId,
    /// How often it has started from that.
    pub boot: Boot,
    /// A random number of this run: two runs with the same boot number are copies.
    pub run: u64,
    /// Where it wants to be reached.
    pub address: SocketAddr,
    /// What people call it.
    pub name: String,
    /// The cluster that it belongs to; none before it has founded or joined one.
    pub cluster: Option<ClusterId>,
}

/// Why one node does not talk to another. Nothing was exchanged but who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Refusal {
    /// The two have no version of the protocol in common.
    NoCommonVersion {
        /// The oldest that the refusing node speaks.
        min: u16,
        /// The newest.
        max: u16,
    },
    /// The cluster keys differ, or one of the two has none.
    WrongKey,
    /// The refusing node belongs to another cluster.
    OtherCluster(ClusterId),
    /// A newer run of the same data directory has registered with the cluster.
    StaleBoot {
        /// Its boot number.
        known: Boot,
    },
    /// Another run with the same boot number has registered.
    Twin,
    /// The refusing node holds as many connections as it takes.
    Full,
}

impl Refusal {
    /// Whether it says that this data directory is not the node, or not any more: the metadata name
    /// another run of it.
    pub(super) fn is_final(self) -> bool {
        match self {
            Self::StaleBoot { .. } | Self::Twin => true,
            Self::NoCommonVersion { .. } | Self::WrongKey | Self::OtherCluster(_) | Self::Full => {
                false
            }
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoCommonVersion { min, max } => write!(
                f,
                "no common version: the refusing node speaks {min} to {max}; upgrade the older one"
            ),
            Self::WrongKey => f.write_str(
                "the cluster keys differ, or one side has none; give all nodes the same key",
            ),
            Self::OtherCluster(cluster) => {
                write!(f, "the refusing node belongs to another cluster, {cluster}; look at seeds")
            }
            Self::StaleBoot { known } => write!(
                f,
                "this data directory was copied or rolled back: the cluster has registered a \
                 later start of it, start {known}; start with an empty directory"
            ),
            Self::Twin => f.write_str(
                "this data directory was copied or rolled back: the cluster has registered another \
                 start of it under the same number; start with an empty directory",
            ),
            Self::Full => f.write_str("the refusing node has too many connections"),
        }
    }
}

/// What the dialer begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) me: PeerIdentity,
    /// What the connection is for.
    pub(super) class: Class,
    /// The address that was dialed: a later connection to it takes this one's place.
    pub(super) dialed: SocketAddr,
    pub(super) keyed: bool,
    pub(super) nonce: [u8; NONCE_BYTES],
}

/// What follows. The order of the variants never changes: an older node reads a refusal too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    Refused(Refusal),
    Welcome { me: PeerIdentity, version: u16, nonce: [u8; NONCE_BYTES] },
    Proof,
    Accepted,
}

/// Why a handshake led to nothing.
#[derive(Debug)]
pub(super) enum Failed {
    /// The connection broke, or was not made.
    Io(io::Error),
    /// What came is not a handshake.
    Nonsense(&'static str),
    /// The other side does not talk to this one.
    Refused(Refusal),
    /// This side does not talk to the other one.
    SentAway(Refusal),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The first parcel: magic and versions stand where every version of the protocol looks for them.
pub(super) fn write_hello(hello: &Hello, versions: (u16, u16)) -> Vec<u8> {
    let mut parcel = MAGIC.to_vec();
    parcel.put_u16_le(versions.0);
    parcel.put_u16_le(versions.1);
    parcel.extend(wire::encode(hello));
    parcel
}

/// The versions that a first parcel offers, and the rest of it.
pub(super) fn read_versions(parcel: &[u8]) -> Result<((u16, u16), &[u8]), Failed> {
    let rest = parcel.strip_prefix(&MAGIC).ok_or(Failed::Nonsense("no node dialed"))?;
    let Some((mut versions, rest)) = rest.split_at_checked(4) else {
        return Err(Failed::Nonsense("a hello without versions"));
    };
    Ok(((versions.get_u16_le(), versions.get_u16_le()), rest))
}

/// What a first parcel says behind its versions.
pub(super) fn read_hello(rest: &[u8]) -> Result<Hello, Failed> {
    let hello: Hello = wire::decode(rest).map_err(|_| Failed::Nonsense("a hello is malformed"))?;
    plausible(&hello.me)?;
    Ok(hello)
}

/// Takes a later parcel apart: what it says, the bytes that are sealed, and the seal.
pub(super) fn read_reply(parcel: &[u8]) -> Result<(Reply, &[u8], &[u8]), Failed> {
    let split = parcel.len().checked_sub(SEAL_BYTES).map(|at| parcel.split_at(at));
    let (said, seal) = split.ok_or(Failed::Nonsense("a reply without seal"))?;
    let reply: Reply = wire::decode(said).map_err(|_| Failed::Nonsense("a malformed reply"))?;
    if let Reply::Welcome { me, .. } = &reply {
        plausible(me)?;
    }
    Ok((reply, said, seal))
}

fn plausible(peer: &PeerIdentity) -> Result<(), Failed> {
    let fits = peer.name.len() <= NAME_BYTES_MAX;
    if fits { Ok(()) } else { Err(Failed::Nonsense("a node's name is too long")) }
}

/// Sends a parcel in one piece.
pub(super) async fn send<W>(to: &mut W, parcel: &[u8]) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    assert!(parcel.len() <= PARCEL_BYTES_MAX, "a parcel of {} bytes", parcel.len());
    let mut bytes = Vec::with_capacity(HEAD_BYTES + parcel.len());
    bytes.put_u32_le(parcel.len() as u32);
    bytes.put_u32_le(crc32c::crc32c(parcel));
    bytes.extend_from_slice(parcel);
    to.write_all(&bytes).await?;
    to.flush().await
}

/// Receives a parcel, and not a byte of what follows it.
pub(super) async fn receive<R>(from: &mut R) -> Result<Vec<u8>, Failed>
where
    R: AsyncRead + Unpin,
{
    let mut head = [0; HEAD_BYTES];
    from.read_exact(&mut head).await?;
    let mut fields = &head[..];
    let (length, checksum) = (fields.get_u32_le() as usize, fields.get_u32_le());
    if length > PARCEL_BYTES_MAX {
        return Err(Failed::Nonsense("the first bytes are no handshake"));
    }
    let mut parcel = vec![0; length];
    from.read_exact(&mut parcel).await?;
    if crc32c::crc32c(&parcel) != checksum {
        return Err(Failed::Nonsense("a parcel does not match its checksum"));
    }
    Ok(parcel)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence;

    use super::*;

    const REGRESSIONS: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/hello.txt");

    fn config() -> ProptestConfig {
        let persistence = FileFailurePersistence::Direct(REGRESSIONS);
        ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..Default::default() }
    }

    fn identity() -> PeerIdentity {
        let (address, name) = (([10, 0, 0, 1], 7946).into(), "one".to_owned());
        let (disk, cluster) = (DiskId(1), Some(ClusterId(7)));
        PeerIdentity { disk, boot: Boot(3), run: 9, address, name, cluster }
    }

    fn hello() -> Hello {
        let (me, dialed, nonce) = (identity(), ([10, 0, 0, 2], 1).into(), [5; NONCE_BYTES]);
        Hello { me, class: Class::Raft, dialed, keyed: true, nonce }
    }

    fn reply(reply: &Reply) -> Vec<u8> {
        let mut parcel = wire::encode(reply);
        parcel.extend([7; SEAL_BYTES]);
        parcel
    }

    #[test]
    fn parcels_are_read_as_they_were_written() {
        let parcel = write_hello(&hello(), (2, 5));
        let (versions, rest) = read_versions(&parcel).expect("they stand there");
        assert_eq!(versions, (2, 5));
        assert_eq!(read_hello(rest).expect("it is a hello"), hello());
        let (me, nonce) = (identity(), [1; NONCE_BYTES]);
        for said in [
            Reply::Refused(Refusal::StaleBoot { known: Boot(4) }),
            Reply::Welcome { me, version: 1, nonce },
            Reply::Proof,
            Reply::Accepted,
        ] {
            let parcel = reply(&said);
            let (read, sealed, seal) = read_reply(&parcel).expect("it is a reply");
            assert_eq!((read, sealed.len() + seal.len()), (said, parcel.len()));
            assert_eq!(seal, [7; SEAL_BYTES]);
        }
    }

    #[test]
    fn the_longest_parcel_fits() {
        let name = "n".repeat(NAME_BYTES_MAX);
        let long = Hello { me: PeerIdentity { name, ..identity() }, ..hello() };
        assert!(write_hello(&long, (1, 1)).len() <= PARCEL_BYTES_MAX);
        let longer = PeerIdentity { name: "n".repeat(NAME_BYTES_MAX + 1), ..identity() };
        let parcel = write_hello(&Hello { me: longer, ..hello() }, (1, 1));
        let read = read_versions(&parcel).and_then(|(_, rest)| read_hello(rest));
        assert!(matches!(read, Err(Failed::Nonsense(_))), "{read:?}");
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn no_bytes_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            which in 0..3_usize,
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            // Any bytes, and parcels of which one byte is another.
            let welcome = Reply::Welcome { me: identity(), version: 1, nonce: [1; NONCE_BYTES] };
            let mut parcel =
                vec![bytes, write_hello(&hello(), (1, 1)), reply(&welcome)].swap_remove(which);
            if !parcel.is_empty() {
                let at = at.index(parcel.len());
                parcel[at] = byte;
            }
            let hello = read_versions(&parcel).and_then(|(_, rest)| read_hello(rest));
            prop_assert!(hello.is_err() || which == 1);
            let reply = read_reply(&parcel);
            prop_assert!(reply.is_err() || which != 1);
        }
    }
}
