//! What other members ask of this one.

use openraft::raft::AppendEntriesResponse;
use sprawl_core::wire;

use super::Raft;
use super::network::{Arriving, Ask, Piece, Told, told};
use super::observed::Observed;
use super::proposals::propose;
use crate::peer::{Answerer, Incoming};

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
                    let last = last.or(request.prev_log_id);
                    let answer = raft.append_entries(request).await;
                    if matches!(answer, Ok(AppendEntriesResponse::Success)) {
                        observed.vouched(last);
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
            Ok(None) => return answer.answer(told::<Option<()>, String>(Ok(None))),
            Err(why) => return answer.answer(told::<(), _>(Err(why))),
        };
        let raft = self.raft.clone();
        tokio::spawn(async move {
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            answer.answer(told(installed.map(Some)));
        });
    }
}
