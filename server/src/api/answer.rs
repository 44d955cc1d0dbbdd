//! What the machines answer, taken apart by who asked. A request is answered in its own kind, or
//! refused, or left unknown; anything else is a mistake of the program.

use sprawl_core::broker::delivery::{AckToken, Delivered};
use sprawl_core::broker::replica::Record;
use sprawl_core::ids::Offset;
use sprawl_core::machine::Response;

use crate::problem::Problem;

/// Where a message stands.
pub(super) struct Place {
    pub(super) partition: u32,
    pub(super) offset: Offset,
    pub(super) duplicate: bool,
}

pub(super) fn published(response: Response) -> Result<Place, Problem> {
    if let Response::Published { partition, offset, duplicate } = response {
        Ok(Place { partition, offset, duplicate })
    } else {
        Err(otherwise(response))
    }
}

/// Messages that were read, and where to go on.
pub(super) struct Page {
    pub(super) partition: u32,
    pub(super) records: Vec<Record>,
    pub(super) next: Offset,
    pub(super) start: Offset,
    pub(super) end: Offset,
}

pub(super) fn fetched(response: Response) -> Result<Page, Problem> {
    if let Response::Fetched { partition, records, next, start, end, .. } = response {
        Ok(Page { partition, records, next, start, end })
    } else {
        Err(otherwise(response))
    }
}

/// The first offset that is retained.
pub(super) fn trimmed(response: Response) -> Result<Offset, Problem> {
    if let Response::Trimmed { start } = response { Ok(start) } else { Err(otherwise(response)) }
}

pub(super) fn pulled(response: Response) -> Result<Vec<Delivered>, Problem> {
    if let Response::Pulled(delivered) = response {
        Ok(delivered)
    } else {
        Err(otherwise(response))
    }
}

pub(super) fn settled(response: Response) -> Result<(u32, Vec<AckToken>), Problem> {
    if let Response::Settled { count, expired } = response {
        Ok((count, expired))
    } else {
        Err(otherwise(response))
    }
}

/// An answer that brings nothing of what was asked for.
fn otherwise(response: Response) -> Problem {
    match response {
        Response::Refused(refused) => refused.into(),
        Response::Unknown => Problem::outcome_unknown(),
        Response::Published { .. }
        | Response::Batch(_)
        | Response::Fetched { .. }
        | Response::Trimmed { .. }
        | Response::Pulled(_)
        | Response::Settled { .. }
        | Response::Available(_)
        | Response::Described(_) => panic!("a request was answered in another kind"),
    }
}
