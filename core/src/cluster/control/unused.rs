//! Subscriptions that nobody uses: their use is noted now and then, and they are removed when it
//! has been too long ago.

use std::time::Duration;

use super::Control;
use crate::cluster::metadata::Change;
use crate::machine::{ControlEffect, Now};

/// The longest pause between two looks for subscriptions that nobody uses.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// The shortest one.
const SWEEP_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Into how many parts a subscription's lifetime is divided: so exactly its use is noted.
const LIFETIME_PARTS: u32 = 8;

impl Control {
    /// Looks for unused subscriptions a few times within the shortest lifetime of any.
    pub(super) fn plan_sweep(&mut self) {
        let lifetimes = self.view.subscriptions.values().map(|held| held.delivery.expires);
        let Some(shortest) = lifetimes.min() else {
            self.sweep_at = None;
            return;
        };
        let interval = shortest / LIFETIME_PARTS;
        let interval = interval.clamp(SWEEP_INTERVAL_MIN, SWEEP_INTERVAL_MAX);
        let at = self.now + interval;
        self.sweep_at = Some(self.sweep_at.map_or(at, |before| before.min(at)));
    }

    /// Notes who was used, and removes whom nobody used for too long.
    pub(super) fn sweep(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let at = self.clock.at(now);
        // Another node may know of a use that it has not noted yet. Whoever leads removes.
        let removes = self.controller.acts(&self.view, now);
        let grace = if self.view.nodes.len() > 1 { 2 } else { 0 };
        let (mut used, mut unused) = (Vec::new(), Vec::new());
        for (id, subscription) in &self.view.clone().subscriptions {
            let lifetime = subscription.delivery.expires.as_millis() as u64;
            let known = self.used.get(id).copied().unwrap_or_default().max(subscription.used);
            let patience = lifetime + grace * lifetime / u64::from(LIFETIME_PARTS);
            if known.0 + patience < at.0 {
                if removes {
                    unused.push((id.clone(), known));
                }
            } else if known.0 > subscription.used.0 + lifetime / u64::from(LIFETIME_PARTS) {
                used.push(id.clone());
            }
        }
        if !used.is_empty() {
            effects.push(ControlEffect::Propose(Change::Used { subscriptions: used, at }));
        }
        for (id, since) in unused {
            let change = Change::Unsubscribe { id, unused_since: Some(since) };
            effects.push(ControlEffect::Propose(change));
        }
        self.sweep_at = None;
        self.plan_sweep();
    }
}
