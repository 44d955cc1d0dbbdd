//! What other members ask of this one.

use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse};
use sprawl_core::wire;

use super::Raft;
use super::kinds::{Kinds, Snapshot, Vote};
use super::network::{Arriving, Ask, Piece, Told, told};
use super::observed::Observed;
use super::proposals::propose;
use crate::peer::{Answerer, Incoming};

/// What a piece of a snapshot is answered: this, or nothing where more are to come.
type Installed = Option<SnapshotResponse<Kinds>>;

/// Answers other members.
pub(super) struct Serving {
    raft: Raft,
    observed: Observed,
    arriving: Arriving,
}

impl Serving {
    pub(super) fn new(raft: Raft, observed: Observed) -> Self {
        Self { raft, observed, arriving: Arriving::default() }
    }

    /// Answers a request, when openraft has.
    pub(super) fn request(&self, incoming: Incoming) {
        let (Ok(ask), Some(answer)) = (wire::decode::<Ask>(&incoming.body), incoming.answer) else {
            return tracing::debug!("a member asks what nobody understands");
        };
        let (raft, observed) = (self.raft.clone(), self.observed.clone());
        tokio::spawn(async move {
            let told = match ask {
                Ask::Append(request) => {
                    let last = request.entries.last().map(|entry| entry.log_id);
                    let (leader, last) = (request.vote, last.or(request.prev_log_id));
                    let answer = raft.append_entries(request).await;
                    if matches!(answer, Ok(AppendEntriesResponse::Success)) {
                        observed.vouched(&leader, last);
                    }
                    told(answer)
                }
                Ask::Vote(request) => {
                    let vote = request.vote;
                    let answer = raft.vote(request).await;
                    if answer.as_ref().is_ok_and(|answer| answer.vote_granted) {
                        observed.granted(&vote);
                    }
                    told(answer)
                }
                Ask::PreVote(request) => told(raft.pre_vote(request).await),
                Ask::Lead(request) => told(raft.handle_transfer_leader(request).await),
                Ask::Propose(agreed) => {
                    let proposed: Told<_> = Ok(propose(&raft, agreed).await);
                    told(proposed)
                }
                Ask::Piece(_) => told::<(), _>(Err("pieces have a lane of their own")),
            };
            answer.answer(told);
        });
    }

    /// Takes a piece of a snapshot.
    pub(super) fn piece(&mut self, incoming: Incoming) {
        match (wire::decode::<Ask>(&incoming.body), incoming.answer) {
            (Ok(Ask::Piece(piece)), Some(answer)) => self.take(piece, answer),
            _ => tracing::debug!("what comes as a piece of a snapshot is none"),
        }
    }

    fn take(&mut self, piece: Piece, answer: Answerer) {
        let (vote, snapshot) = match self.arriving.take(piece) {
            Ok(Some(whole)) => whole,
            Ok(None) => return answer.answer(told::<Installed, String>(Ok(None))),
            Err(why) => return answer.answer(told::<(), _>(Err(why))),
        };
        let raft = self.raft.clone();
        tokio::spawn(async move { answer.answer(told(install(&raft, vote, snapshot).await)) });
    }
}

/// Has a snapshot installed, unless the log holds its last entry: then it says no more than that
/// this much is committed, and the log behind it stays (Raft, figure 13, rule 6). Openraft would
/// install it all the same, and go back behind what it has handed to the log.
async fn install(
    raft: &Raft,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<Installed, RaftError<Kinds>> {
    let (prev_log_id, entries) = (snapshot.meta.last_log_id, Vec::new());
    let leads_past =
        AppendEntriesRequest { vote, prev_log_id, entries, leader_commit: prev_log_id };
    let vote = match raft.append_entries(leads_past).await? {
        AppendEntriesResponse::Success => vote,
        AppendEntriesResponse::HigherVote(higher) => higher,
        AppendEntriesResponse::PartialSuccess(_) | AppendEntriesResponse::Conflict => {
            return Ok(Some(raft.install_full_snapshot(vote, snapshot).await?));
        }
    };
    Ok(Some(SnapshotResponse { vote }))
}
