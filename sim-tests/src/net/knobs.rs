//! How good a directed link is.

use std::time::Duration;

use crate::plan::Draw;

/// What a link does to what goes over it. What is 0 draws nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knobs {
    /// The shortest and the longest time that it usually takes, in microseconds.
    pub(crate) latency_us: (u64, u64),
    /// How many of a thousand take longer.
    pub(crate) tail_permille: u64,
    /// How much longer at most, in microseconds; each order of magnitude alike.
    pub(crate) tail_us_max: u64,
    /// How many of a thousand are lost. On a connection they are sent again.
    pub(crate) loss_permille: u64,
    /// How many of a thousand datagrams come twice.
    pub(crate) duplicate_permille: u64,
    /// Nothing gets through.
    pub(crate) cut: bool,
}

impl Knobs {
    /// A link without fault that takes between so many microseconds.
    pub(crate) fn calm(latency_us: (u64, u64)) -> Self {
        let (tail_permille, tail_us_max, loss_permille, duplicate_permille) = (0, 0, 0, 0);
        Self {
            latency_us,
            tail_permille,
            tail_us_max,
            loss_permille,
            duplicate_permille,
            cut: false,
        }
    }

    pub(super) fn delay(&self, dice: &mut Draw) -> Duration {
        let (min, max) = self.latency_us;
        let mut us = if min == max { min } else { dice.range(min, max) };
        if share(dice, self.tail_permille) {
            us += dice.log_range(1, self.tail_us_max.max(1));
        }
        Duration::from_micros(us)
    }

    pub(super) fn loses(&self, dice: &mut Draw) -> bool {
        share(dice, self.loss_permille)
    }

    pub(super) fn doubles(&self, dice: &mut Draw) -> bool {
        share(dice, self.duplicate_permille)
    }
}

fn share(dice: &mut Draw, permille: u64) -> bool {
    permille > 0 && dice.range(0, 999) < permille
}

/// What has happened on a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Datagrams that were sent.
    pub(crate) datagrams: u64,
    /// Datagrams that did not arrive.
    pub(crate) lost: u64,
    /// Datagrams that came twice.
    pub(crate) doubled: u64,
    /// Connections that were asked for.
    pub(crate) connections: u64,
    /// Connections that were given up because a link or a machine was silent.
    pub(crate) given_up: u64,
    /// Bytes that connections delivered.
    pub(crate) bytes: u64,
}
