//! Changes on their way to the leader, whoever that is.
//!
//! A proposal that certainly was not taken goes back to the queue, until its time is over; one
//! whose fate is unknown is not repeated, because it may be agreed on yet.

use std::time::Duration;

use futures_util::StreamExt as _;
use openraft::errors::{ClientWriteError, Fatal};
use sprawl_core::wire;
use sprawl_core::zoo::{Bug, planted};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::kinds::{Agreed, Kinds, Place};
use super::network::{Ask, Proposed, Told};
use super::{PROPOSALS_MAX, Proposal, Raft};
use crate::peer::{CallError, Lane, Network};

/// For how long a proposal looks for a leader.
const PROPOSE_MAX: Duration = Duration::from_secs(5);
/// How long the leader may take to say that it is agreed on.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The pause before a proposal that was not taken is handed on again.
const AGAIN_PAUSE: Duration = Duration::from_millis(50);

/// A proposal, and until when it looks for a leader.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    proposal: Proposal,
    until: Instant,
}

/// The proposals that wait.
pub(super) struct Proposals {
    fresh: mpsc::Receiver<Proposal>,
    again: mpsc::Receiver<Pending>,
    put_back: mpsc::Sender<Pending>,
}

impl Proposals {
    pub(super) fn new(fresh: mpsc::Receiver<Proposal>) -> Self {
        let (put_back, again) = mpsc::channel(PROPOSALS_MAX);
        Self { fresh, again, put_back }
    }

    /// The next one that is not too late.
    pub(super) async fn next(&mut self) -> Option<Pending> {
        loop {
            tokio::select! {
                biased;
                Some(pending) = self.again.recv() => {
                    if Instant::now() < pending.until {
                        return Some(pending);
                    }
                }
                proposal = self.fresh.recv() => {
                    let until = Instant::now() + PROPOSE_MAX;
                    return proposal.map(|proposal| Pending { proposal, until });
                }
            }
        }
    }

    /// Hands one to the leader: this node, where there is no place.
    pub(super) fn hand_on<N: Network>(
        &self,
        pending: Pending,
        leader: Option<Place>,
        raft: &Raft,
        network: &N,
    ) {
        let (put_back, raft, network) = (self.put_back.clone(), raft.clone(), network.clone());
        let agreed = Agreed(pending.proposal.change.clone());
        tokio::spawn(async move {
            let proposed = match leader {
                None => propose(&raft, agreed).await,
                // What only this node may decide is not the other's to decide.
                Some(_) if pending.proposal.only_here => return,
                Some(_) if planted(Bug::ProposalNotHandedOn) => return,
                // Apart, so that thousands of proposals at the leader itself take no room for it.
                Some(place) => Box::pin(forward(&network, place, agreed)).await,
            };
            if proposed == Proposed::NotLeader && !pending.proposal.only_here {
                tokio::time::sleep(AGAIN_PAUSE).await;
                // Where there is no room, control's own deadline speaks.
                let _ = put_back.try_send(pending);
            }
        });
    }
}

/// Has a change agreed by the group that this node leads, if it does.
pub(super) async fn propose(raft: &Raft, agreed: Agreed) -> Proposed {
    // What hands it over takes kilobytes, which thousands of proposals need one after the other and
    // not all at once while they wait.
    let answer = match Box::pin(raft.client_write_many([agreed])).await {
        Ok(mut answers) => answers.next().await.unwrap_or(Err(Fatal::Stopped)),
        Err(error) => Err(error),
    };
    match answer {
        Ok(Ok(_)) => Proposed::Agreed,
        Ok(Err(ClientWriteError::ForwardToLeader(_))) => Proposed::NotLeader,
        Ok(Err(error)) => {
            tracing::debug!(%error, "nobody knows whether a change is agreed on");
            Proposed::Unknown
        }
        Err(error) => {
            let error: Fatal<Kinds> = error;
            tracing::debug!(%error, "nobody knows whether a change is agreed on");
            Proposed::Unknown
        }
    }
}

async fn forward<N: Network>(network: &N, place: Place, agreed: Agreed) -> Proposed {
    let ask = wire::encode(&Ask::Propose(agreed)).into();
    match network.call(place.peer(), Lane::Raft, ask, ANSWER_WAIT).await {
        Ok(told) => match wire::decode::<Told<Proposed>>(&told) {
            Ok(Ok(proposed)) => proposed,
            Ok(Err(_)) | Err(_) => Proposed::Unknown,
        },
        Err(CallError::NotDelivered(_)) => Proposed::NotLeader,
        Err(CallError::Unknown(_)) => Proposed::Unknown,
    }
}
