//! How two nodes meet: each learns who the other is, that it may talk to it, and, where there is a
//! cluster key, that it has it.
//!
//! The dialer says hello; the acceptor welcomes; the dialer proves; the acceptor accepts. From the
//! welcome on each parcel bears a seal over all parcels before it, both nonces among them, so that
//! none can be replayed or sent back. Without a key the seals are zeros; with one, a refusal for
//! another cluster or an old boot counts only when it is sealed.

use std::net::SocketAddr;
use std::sync::Arc;

use sprawl_core::wire;
use tokio::io::{AsyncRead, AsyncWrite};

use super::dice::Dice;
use super::hello::{
    Failed, Hello, Reply, read_hello, read_reply, read_versions, receive, send, write_hello,
};
use super::key::{ClusterKey, SEAL_BYTES, Speaker};
use super::{Class, PeerIdentity, Refusal, Runs};

/// One side of a handshake.
pub(super) struct Side<'a> {
    pub(super) me: PeerIdentity,
    pub(super) key: Option<&'a ClusterKey>,
    pub(super) versions: (u16, u16),
    pub(super) runs: Arc<Runs>,
    pub(super) dice: &'a Dice,
}

/// Who has called, and for what.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) peer: PeerIdentity,
    pub(super) class: Class,
    pub(super) dialed: SocketAddr,
}

/// The parcels of one handshake, as one side has them.
struct Talk<'a, R, W> {
    reader: &'a mut R,
    writer: &'a mut W,
    key: Option<&'a ClusterKey>,
    speaker: Speaker,
    /// All parcels so far, in order.
    said: Vec<u8>,
}

impl<R, W> Talk<'_, R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    async fn say(&mut self, reply: &Reply) -> Result<(), Failed> {
        let mut parcel = wire::encode(reply);
        let seal = self.key.map(|key| key.seal(self.speaker, &self.said, &parcel));
        parcel.extend(seal.unwrap_or([0; SEAL_BYTES]));
        send(self.writer, &parcel).await?;
        self.said.extend(parcel);
        Ok(())
    }

    /// Sends the other side away. That it hears of it is not certain.
    async fn refuse(&mut self, refusal: Refusal) -> Failed {
        match self.say(&Reply::Refused(refusal)).await {
            Ok(()) | Err(_) => Failed::SentAway(refusal),
        }
    }

    async fn hear(&mut self) -> Result<Reply, Failed> {
        let parcel = receive(self.reader).await?;
        let (reply, sealed, seal) = read_reply(&parcel)?;
        let fits = |key: &ClusterKey| key.fits(self.speaker.other(), &self.said, sealed, seal);
        let sealed = self.key.is_none_or(fits);
        match reply {
            Reply::Refused(refusal) if sealed || harmless(refusal) => {
                return Err(Failed::Refused(refusal));
            }
            Reply::Refused(_) => return Err(Failed::Nonsense("a refusal without its seal")),
            Reply::Welcome { .. } | Reply::Proof | Reply::Accepted if !sealed => {
                return Err(self.refuse(Refusal::WrongKey).await);
            }
            Reply::Welcome { .. } | Reply::Proof | Reply::Accepted => {}
        }
        self.said.extend(parcel);
        Ok(reply)
    }
}

/// Whether a refusal may come from one who has not proved anything: nobody stops for it.
fn harmless(refusal: Refusal) -> bool {
    match refusal {
        Refusal::NoCommonVersion { .. } | Refusal::WrongKey | Refusal::Full => true,
        Refusal::OtherCluster(_) | Refusal::StaleBoot { .. } | Refusal::Twin => false,
    }
}

impl Side<'_> {
    /// Whether this node talks to the other.
    fn judge(&self, peer: &PeerIdentity) -> Result<(), Refusal> {
        if let (Some(mine), Some(theirs)) = (self.me.cluster, peer.cluster)
            && mine != theirs
        {
            return Err(Refusal::OtherCluster(mine));
        }
        self.runs.judge(peer)
    }

    /// Dials: the other side has accepted when this returns who it is.
    pub(super) async fn dial<R, W>(
        &self,
        (reader, writer): (&mut R, &mut W),
        class: Class,
        dialed: SocketAddr,
    ) -> Result<PeerIdentity, Failed>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let nonce = self.dice.nonce();
        let hello = Hello { me: self.me.clone(), class, dialed, keyed: self.key.is_some(), nonce };
        let said = write_hello(&hello, self.versions);
        send(writer, &said).await?;
        let mut talk = Talk { reader, writer, key: self.key, speaker: Speaker::Dialer, said };
        let Reply::Welcome { me: peer, version, .. } = talk.hear().await? else {
            return Err(Failed::Nonsense("no welcome"));
        };
        if !(self.versions.0..=self.versions.1).contains(&version) {
            return Err(Failed::Nonsense("a version that was not offered"));
        }
        if let Err(refusal) = self.judge(&peer) {
            return Err(talk.refuse(refusal).await);
        }
        talk.say(&Reply::Proof).await?;
        match talk.hear().await? {
            Reply::Accepted => Ok(peer),
            Reply::Refused(_) | Reply::Welcome { .. } | Reply::Proof => {
                Err(Failed::Nonsense("not accepted"))
            }
        }
    }

    /// Takes a call; when this returns, the dialer has proved itself and was told that it is
    /// accepted.
    pub(super) async fn greet<R, W>(
        &self,
        (reader, writer): (&mut R, &mut W),
    ) -> Result<Caller, Failed>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let said = receive(reader).await?;
        let (offered, rest) = read_versions(&said)?;
        let (min, max) = self.versions;
        let version = offered.1.min(max);
        let hello = (version >= offered.0.max(min)).then(|| read_hello(rest)).transpose()?;
        let mut talk = Talk { reader, writer, key: self.key, speaker: Speaker::Acceptor, said };
        let Some(hello) = hello else {
            return Err(talk.refuse(Refusal::NoCommonVersion { min, max }).await);
        };
        if hello.keyed != self.key.is_some() {
            return Err(talk.refuse(Refusal::WrongKey).await);
        }
        let nonce = self.dice.nonce();
        talk.say(&Reply::Welcome { me: self.me.clone(), version, nonce }).await?;
        let Reply::Proof = talk.hear().await? else {
            return Err(Failed::Nonsense("no proof"));
        };
        if let Err(refusal) = self.judge(&hello.me) {
            return Err(talk.refuse(refusal).await);
        }
        talk.say(&Reply::Accepted).await?;
        Ok(Caller { peer: hello.me, class: hello.class, dialed: hello.dialed })
    }
}

/// Sends a caller away before it has said anything.
pub(super) async fn turn_away<W: AsyncWrite + Unpin>(writer: &mut W) {
    let mut parcel = wire::encode(&Reply::Refused(Refusal::Full));
    parcel.extend([0; SEAL_BYTES]);
    // Who hangs up before it hears of it knows as much.
    let _ = send(writer, &parcel).await;
}
