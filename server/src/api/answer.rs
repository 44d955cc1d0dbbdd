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
    match response {
        Response::Published { partition, offset, duplicate } => {
            Ok(Place { partition, offset, duplicate })
        }
        Response::Refused(refused) => Err(refused.into()),
        Response::Unknown => Err(Problem::outcome_unknown()),
        Response::Fetched { .. }
        | Response::Pulled(_)
        | Response::Acknowledged { .. }
        | Response::Described(_) => panic!("a publish was answered in another kind"),
    }
}

/// Messages that were read, and where to go on.
pub(super) struct Page {
    pub(super) partition: u32,
    pub(super) records: Vec<Record>,
    pub(super) next: Offset,
    pub(super) end: Offset,
}

pub(super) fn fetched(response: Response) -> Result<Page, Problem> {
    match response {
        Response::Fetched { partition, records, next, end } => {
            Ok(Page { partition, records, next, end })
        }
        Response::Refused(refused) => Err(refused.into()),
        Response::Unknown => Err(Problem::outcome_unknown()),
        Response::Published { .. }
        | Response::Pulled(_)
        | Response::Acknowledged { .. }
        | Response::Described(_) => panic!("a fetch was answered in another kind"),
    }
}

pub(super) fn pulled(response: Response) -> Result<Vec<Delivered>, Problem> {
    match response {
        Response::Pulled(delivered) => Ok(delivered),
        Response::Refused(refused) => Err(refused.into()),
        Response::Unknown => Err(Problem::outcome_unknown()),
        Response::Published { .. }
        | Response::Fetched { .. }
        | Response::Acknowledged { .. }
        | Response::Described(_) => panic!("a pull was answered in another kind"),
    }
}

pub(super) fn acknowledged(response: Response) -> Result<(u32, Vec<AckToken>), Problem> {
    match response {
        Response::Acknowledged { acked, expired } => Ok((acked, expired)),
        Response::Refused(refused) => Err(refused.into()),
        Response::Unknown => Err(Problem::outcome_unknown()),
        Response::Published { .. }
        | Response::Fetched { .. }
        | Response::Pulled(_)
        | Response::Described(_) => panic!("an acknowledgement was answered in another kind"),
    }
}
