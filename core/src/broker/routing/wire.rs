//! The bytes in which nodes ask one another for their clients, and answer.
//!
//! ```text
//! 0            4        4 + n
//! n, 4 bytes   a frame  payloads or records, one behind the other
//! ```
//!
//! The frame says how long each of what follows it is, so that none of it passes through the
//! codec, and is sliced out of what arrived without a copy.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};

use super::calls::{Answer, Ask, Hops, Told};
use super::{BATCH_ITEMS_MAX, Routed};
use crate::broker::delivery::{AckToken, Delivered};
use crate::broker::replica::{Draft, Envelope, RECORD_BYTES_MAX, Record, Submission, Terms};
use crate::cluster::dht::Route;
use crate::ids::{
    EntryIndex, Epoch, MessageId, Offset, PartitionId, Priority, Source, SubscriptionId, TopicName,
};
use crate::machine::{FetchFrom, Refused, Request, Response, Unreadable, Verdict, WallTime};
use crate::wire::{self, BadFrame};

/// The longest body of a request or an answer between nodes, in bytes: a delivery that was full but
/// for one message, and that message as large as one may be, with room for what names them.
pub const CALL_BYTES_MAX: usize = 80 << 20;
/// How many bytes the messages of one request may take, at most about.
pub(super) const MESSAGES_BYTES_MAX: usize = 72 << 20;
/// How many of them their envelopes may take, which pass through the codec.
pub(super) const ENVELOPES_BYTES_MAX: usize = 32 << 20;
/// The longest wait that is believed, for whatever another node waits.
const WAIT_MAX: Duration = Duration::from_secs(3_600 * 24 * 366);

const _: () = {
    assert!(MESSAGES_BYTES_MAX > RECORD_BYTES_MAX && MESSAGES_BYTES_MAX < CALL_BYTES_MAX);
    assert!(ENVELOPES_BYTES_MAX * 2 <= wire::FRAME_BYTES_MAX);
};

#[derive(Serialize, Deserialize)]
struct AskHead {
    left: u8,
    taken: u8,
    lasts: Duration,
    believed: Vec<(PartitionId, Epoch)>,
    request: RequestHead,
}

#[derive(Serialize, Deserialize)]
enum RequestHead {
    Publish(Parcel),
    Batch(Vec<Parcel>),
    Fetch { topic: TopicName, partition: u32, from: From, count_max: u32, wait: Duration },
    Trim { topic: TopicName, partition: u32, below: Offset },
    Pull { subscription: SubscriptionId, count_max: u32 },
    Settle { subscription: SubscriptionId, tokens: Vec<Token>, verdict: Judgement },
    Await { subscription: SubscriptionId, lasts: Duration },
}

/// A message but its payload.
#[derive(Serialize, Deserialize)]
struct Parcel {
    /// Any number: it stands for an address.
    source: u64,
    topic: TopicName,
    envelope: Envelope,
    ttl: Option<Duration>,
    delay: Duration,
    priority: u8,
    expected: Option<Offset>,
    payload_bytes: u32,
}

#[derive(Serialize, Deserialize)]
enum From {
    Offset(Offset),
    Time(WallTime),
    Id(MessageId),
}

#[derive(Serialize, Deserialize)]
struct Token {
    partition: PartitionId,
    offset: Offset,
    attempt: u32,
}

#[derive(Serialize, Deserialize)]
enum Judgement {
    Ack,
    Nack { delay: Option<Duration>, dead_letter: bool },
    Extend { by: Option<Duration> },
}

#[derive(Serialize, Deserialize)]
struct AnswerHead {
    routes: Vec<(TopicName, u32, Route)>,
    response: ResponseHead,
}

#[derive(Serialize, Deserialize)]
enum ResponseHead {
    Published { partition: u32, offset: Offset, duplicate: bool },
    Batch(Vec<Outcome>),
    Fetched { of: PartitionId, number: u32, records: Vec<u32>, place: (Offset, Offset, Offset) },
    Trimmed { start: Offset },
    Pulled(Vec<Leased>),
    Settled { count: u32, expired: Vec<Token> },
    Available(bool),
    Refused(No),
    Unknown,
}

/// What became of one message of a batch.
#[derive(Serialize, Deserialize)]
enum Outcome {
    Published { partition: u32, offset: Offset, duplicate: bool },
    Refused(No),
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct Leased {
    topic: TopicName,
    partition: u32,
    token: Token,
    record_bytes: u32,
}

/// Why something was refused.
#[derive(Serialize, Deserialize)]
enum No {
    Topic(TopicName),
    Partition(TopicName, u32),
    Subscription(SubscriptionId),
    OffsetMoved(Offset, Offset),
    NumberPassed(u64, u64),
    PayloadTooLarge(TopicName, u32),
    TooLargeToForward,
    ExpiresBeforeDue,
    Message(MessageId),
    Overloaded,
    OverShare(Duration),
    Busy(Duration),
    NotReady,
    DiskFull,
    Frozen,
    Damaged(PartitionId, EntryIndex, String),
}

/// What stands behind a frame.
struct Rest(Bytes);

impl Rest {
    fn take(&mut self, bytes: u32) -> Result<Bytes, BadFrame> {
        let bytes = bytes as usize;
        if bytes > self.0.len() {
            return Err(malformed("less follows than it says"));
        }
        Ok(self.0.split_to(bytes))
    }
}

fn malformed(why: &str) -> BadFrame {
    BadFrame::Malformed(why.to_owned())
}

fn put<T: Serialize>(head: &T, rest: &[&Bytes]) -> Bytes {
    let mut bytes = vec![0; 4];
    wire::encode_behind(head, &mut bytes);
    let length = u32::try_from(bytes.len() - 4).expect("a frame is shorter than 4 GiB");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes.reserve_exact(rest.iter().map(|part| part.len()).sum());
    rest.iter().for_each(|part| bytes.put_slice(part));
    bytes.into()
}

fn take<T: serde::de::DeserializeOwned>(mut bytes: Bytes) -> Result<(T, Rest), BadFrame> {
    if bytes.len() < 4 {
        return Err(BadFrame::Empty);
    }
    let mut rest = Rest(bytes.split_off(4));
    let head = rest.take(bytes.get_u32_le())?;
    Ok((wire::decode(&head)?, rest))
}

/// Encodes what a node asks.
///
/// # Panics
///
/// When it is a request that is never handed on.
#[must_use]
pub fn encode_ask(ask: &Ask) -> Bytes {
    let Ask { hops, lasts, believed, request } = ask;
    let mut rest = Vec::new();
    let request = match &**request {
        Request::Publish(submission) => RequestHead::Publish(parcel(submission, &mut rest)),
        Request::PublishBatch(items, _) => {
            RequestHead::Batch(items.iter().map(|item| parcel(item, &mut rest)).collect())
        }
        Request::Fetch { topic, partition, from, count_max, wait } => {
            let from = match from {
                FetchFrom::Offset(offset) => From::Offset(*offset),
                FetchFrom::Time(at) => From::Time(*at),
                FetchFrom::Id(id) => From::Id(id.clone()),
            };
            let (topic, partition, wait) = (topic.clone(), *partition, *wait);
            RequestHead::Fetch { topic, partition, from, count_max: small(*count_max), wait }
        }
        Request::Trim { topic, partition, below } => {
            RequestHead::Trim { topic: topic.clone(), partition: *partition, below: *below }
        }
        Request::Pull { subscription, count_max, wait: _ } => {
            let (subscription, count_max) = (subscription.clone(), small(*count_max));
            RequestHead::Pull { subscription, count_max }
        }
        Request::Settle { subscription, tokens, verdict } => {
            let verdict = match *verdict {
                Verdict::Ack => Judgement::Ack,
                Verdict::Nack { delay, dead_letter } => Judgement::Nack { delay, dead_letter },
                Verdict::Extend { by } => Judgement::Extend { by },
            };
            let tokens = tokens.iter().map(Token::of).collect();
            RequestHead::Settle { subscription: subscription.clone(), tokens, verdict }
        }
        Request::Await { subscription, lasts } => {
            RequestHead::Await { subscription: subscription.clone(), lasts: *lasts }
        }
        Request::Describe => panic!("a shard describes itself to its own node only"),
    };
    let (left, taken, lasts, believed) = (hops.left, hops.taken, *lasts, believed.clone());
    put(&AskHead { left, taken, lasts, believed, request }, &rest)
}

/// Decodes what another node asks.
///
/// # Errors
///
/// [`BadFrame`] when it is nothing that a node asks; it never panics, whatever the bytes.
pub fn decode_ask(bytes: Bytes) -> Result<Ask, BadFrame> {
    let (AskHead { left, taken, lasts, believed, request }, mut rest) = take(bytes)?;
    let request = match request {
        RequestHead::Publish(parcel) => Request::Publish(parcel.open(&mut rest)?),
        RequestHead::Batch(parcels) if parcels.len() > BATCH_ITEMS_MAX => {
            return Err(malformed("too many messages"));
        }
        RequestHead::Batch(parcels) => {
            let items = parcels.into_iter().map(|parcel| parcel.open(&mut rest));
            Request::PublishBatch(items.collect::<Result<_, _>>()?, Routed::default())
        }
        RequestHead::Fetch { topic, partition, from, count_max, wait } => {
            let from = match from {
                From::Offset(offset) => FetchFrom::Offset(offset),
                From::Time(at) => FetchFrom::Time(at),
                From::Id(id) => FetchFrom::Id(id),
            };
            let (count_max, wait) = (count_max as usize, wait.min(WAIT_MAX));
            Request::Fetch { topic, partition, from, count_max, wait }
        }
        RequestHead::Trim { topic, partition, below } => Request::Trim { topic, partition, below },
        RequestHead::Pull { subscription, count_max } => {
            Request::Pull { subscription, count_max: count_max as usize, wait: Duration::ZERO }
        }
        RequestHead::Settle { subscription, tokens, verdict } => {
            let verdict = match verdict {
                Judgement::Ack => Verdict::Ack,
                Judgement::Nack { delay, dead_letter } => {
                    Verdict::Nack { delay: delay.map(believable), dead_letter }
                }
                Judgement::Extend { by } => Verdict::Extend { by: by.map(believable) },
            };
            let tokens = tokens.into_iter().map(Token::open).collect();
            Request::Settle { subscription, tokens, verdict }
        }
        RequestHead::Await { subscription, lasts } => {
            Request::Await { subscription, lasts: believable(lasts) }
        }
    };
    let (hops, request) = (Hops { left, taken }, Arc::new(request));
    Ok(Ask { hops, lasts: believable(lasts), believed, request })
}

fn believable(span: Duration) -> Duration {
    span.min(WAIT_MAX)
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn parcel<'a>(submission: &'a Submission, rest: &mut Vec<&'a Bytes>) -> Parcel {
    let Submission { source, topic, draft: Draft { envelope, payload }, terms } = submission;
    let Terms { ttl, delay, priority, expected } = *terms;
    rest.push(payload);
    Parcel {
        source: source.0,
        topic: topic.clone(),
        envelope: envelope.clone(),
        ttl,
        delay,
        priority: priority.number(),
        expected,
        payload_bytes: small(payload.len()),
    }
}

impl Parcel {
    fn open(self, rest: &mut Rest) -> Result<Submission, BadFrame> {
        let Self { source, topic, envelope, ttl, delay, priority, expected, payload_bytes } = self;
        let draft = Draft { envelope, payload: rest.take(payload_bytes)? };
        if draft.bytes_about() > RECORD_BYTES_MAX {
            return Err(malformed("a message that is larger than any"));
        }
        let priority = Priority::new(priority).ok_or_else(|| malformed("no such priority"))?;
        let (ttl, delay) = (ttl.map(believable), believable(delay));
        let source = Source(source);
        Ok(Submission { source, topic, draft, terms: Terms { ttl, delay, priority, expected } })
    }
}

impl Token {
    fn of(token: &AckToken) -> Self {
        let AckToken { partition, offset, attempt } = *token;
        Self { partition, offset, attempt }
    }

    fn open(self) -> AckToken {
        let Self { partition, offset, attempt } = self;
        AckToken { partition, offset, attempt }
    }
}

/// Encodes what a node answers.
///
/// # Panics
///
/// When it answers what is never handed on.
#[must_use]
pub fn encode_answer(answer: &Answer) -> Bytes {
    let mut rest = Vec::new();
    let response = match &answer.response {
        &Response::Published { partition, offset, duplicate } => {
            ResponseHead::Published { partition, offset, duplicate }
        }
        Response::Batch(outcomes) => ResponseHead::Batch(outcomes.iter().map(outcome).collect()),
        Response::Fetched { of, partition, records, next, start, end } => {
            rest.extend(records.iter().map(Record::bytes));
            let records = records.iter().map(|record| small(record.len())).collect();
            let (of, number, place) = (*of, *partition, (*next, *start, *end));
            ResponseHead::Fetched { of, number, records, place }
        }
        Response::Trimmed { start } => ResponseHead::Trimmed { start: *start },
        Response::Pulled(messages) => {
            rest.extend(messages.iter().map(|message| message.record.bytes()));
            let leased = |message: &Delivered| Leased {
                topic: message.topic.clone(),
                partition: message.partition,
                token: Token::of(&message.token),
                record_bytes: small(message.record.len()),
            };
            ResponseHead::Pulled(messages.iter().map(leased).collect())
        }
        Response::Settled { count, expired } => {
            let expired = expired.iter().map(Token::of).collect();
            ResponseHead::Settled { count: *count, expired }
        }
        Response::Available(some) => ResponseHead::Available(*some),
        Response::Refused(refused) => ResponseHead::Refused(No::of(refused)),
        Response::Unknown => ResponseHead::Unknown,
        Response::Described(_) => panic!("a shard describes itself to its own node only"),
    };
    let route = |told: &Told| (told.topic.clone(), told.number, told.route.clone());
    put(&AnswerHead { routes: answer.routes.iter().map(route).collect(), response }, &rest)
}

/// Decodes what another node answers. Messages are checked as if a disk had given them.
///
/// # Errors
///
/// [`BadFrame`] when it is nothing that a node answers; it never panics, whatever the bytes.
pub fn decode_answer(bytes: Bytes) -> Result<Answer, BadFrame> {
    let (AnswerHead { routes, response }, mut rest) = take(bytes)?;
    let response = match response {
        ResponseHead::Published { partition, offset, duplicate } => {
            Response::Published { partition, offset, duplicate }
        }
        ResponseHead::Batch(outcomes) => {
            Response::Batch(outcomes.into_iter().map(Outcome::open).collect())
        }
        ResponseHead::Fetched { of, number, records, place: (next, start, end) } => {
            let records = records.into_iter().map(|bytes| record(of, rest.take(bytes)?));
            let records = records.collect::<Result<_, _>>()?;
            Response::Fetched { of, partition: number, records, next, start, end }
        }
        ResponseHead::Trimmed { start } => Response::Trimmed { start },
        ResponseHead::Pulled(leased) => {
            let open = |Leased { topic, partition, token, record_bytes }: Leased| {
                let token = token.open();
                let record = record(token.partition, rest.take(record_bytes)?)?;
                Ok(Delivered { topic, partition, record, token })
            };
            Response::Pulled(leased.into_iter().map(open).collect::<Result<_, BadFrame>>()?)
        }
        ResponseHead::Settled { count, expired } => {
            Response::Settled { count, expired: expired.into_iter().map(Token::open).collect() }
        }
        ResponseHead::Available(some) => Response::Available(some),
        ResponseHead::Refused(no) => Response::Refused(no.open()),
        ResponseHead::Unknown => Response::Unknown,
    };
    let told = |(topic, number, route)| Told { topic, number, route };
    Ok(Answer { routes: routes.into_iter().map(told).collect(), response })
}

fn record(partition: PartitionId, bytes: Bytes) -> Result<Record, BadFrame> {
    let record = Record::open(partition, bytes);
    let record = record.map_err(|error| BadFrame::Malformed(error.to_string()))?;
    match record.body() {
        Ok(crate::broker::replica::Body::Message(_)) => Ok(record),
        Ok(crate::broker::replica::Body::Note(_)) => Err(malformed("an entry that is no message")),
        Err(error) => Err(BadFrame::Malformed(error.to_string())),
    }
}

fn outcome(response: &Response) -> Outcome {
    match response {
        &Response::Published { partition, offset, duplicate } => {
            Outcome::Published { partition, offset, duplicate }
        }
        Response::Refused(refused) => Outcome::Refused(No::of(refused)),
        Response::Batch(_)
        | Response::Fetched { .. }
        | Response::Trimmed { .. }
        | Response::Pulled(_)
        | Response::Settled { .. }
        | Response::Available(_)
        | Response::Described(_)
        | Response::Unknown => Outcome::Unknown,
    }
}

impl Outcome {
    fn open(self) -> Response {
        match self {
            Self::Published { partition, offset, duplicate } => {
                Response::Published { partition, offset, duplicate }
            }
            Self::Refused(no) => Response::Refused(no.open()),
            Self::Unknown => Response::Unknown,
        }
    }
}

impl No {
    fn of(refused: &Refused) -> Self {
        match refused {
            Refused::NoTopic(topic) => Self::Topic(topic.clone()),
            Refused::NoPartition(topic, number) => Self::Partition(topic.clone(), *number),
            Refused::NoSubscription(id) => Self::Subscription(id.clone()),
            Refused::OffsetMoved { expected, end } => Self::OffsetMoved(*expected, *end),
            Refused::NumberPassed { number, newest } => Self::NumberPassed(*number, *newest),
            Refused::PayloadTooLarge(topic, max) => Self::PayloadTooLarge(topic.clone(), *max),
            Refused::TooLargeToForward => Self::TooLargeToForward,
            Refused::ExpiresBeforeDue => Self::ExpiresBeforeDue,
            Refused::NoMessage(id) => Self::Message(id.clone()),
            Refused::Overloaded(_) => Self::Overloaded,
            Refused::OverShare { retry_after } => Self::OverShare(*retry_after),
            Refused::Busy { retry_after } => Self::Busy(*retry_after),
            // Shards do not refuse for these reasons: they are the control plane's.
            Refused::NotReady
            | Refused::SubscriptionDiffers(..)
            | Refused::PartitionsFixed(..)
            | Refused::NoNode(_)
            | Refused::LastNode => Self::NotReady,
            Refused::DiskFull => Self::DiskFull,
            Refused::Frozen => Self::Frozen,
            Refused::Damaged(Unreadable { partition, index, reason }) => {
                Self::Damaged(*partition, *index, reason.clone())
            }
        }
    }

    fn open(self) -> Refused {
        match self {
            Self::Topic(topic) => Refused::NoTopic(topic),
            Self::Partition(topic, number) => Refused::NoPartition(topic, number),
            Self::Subscription(id) => Refused::NoSubscription(id),
            Self::OffsetMoved(expected, end) => Refused::OffsetMoved { expected, end },
            Self::NumberPassed(number, newest) => Refused::NumberPassed { number, newest },
            Self::PayloadTooLarge(topic, max) => Refused::PayloadTooLarge(topic, max),
            Self::TooLargeToForward => Refused::TooLargeToForward,
            Self::ExpiresBeforeDue => Refused::ExpiresBeforeDue,
            Self::Message(id) => Refused::NoMessage(id),
            Self::Overloaded => Refused::Overloaded("the node that leads the partition has enough"),
            Self::OverShare(span) => Refused::OverShare { retry_after: believable(span) },
            Self::Busy(span) => Refused::Busy { retry_after: believable(span) },
            Self::NotReady => Refused::NotReady,
            Self::DiskFull => Refused::DiskFull,
            Self::Frozen => Refused::Frozen,
            Self::Damaged(partition, index, reason) => {
                Refused::Damaged(Unreadable { partition, index, reason })
            }
        }
    }
}
