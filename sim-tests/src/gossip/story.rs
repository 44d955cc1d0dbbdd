//! What happens to the nodes of a run, and when: drawn before it begins.

use std::collections::BTreeSet;

use super::network::{Cut, Weather};
use super::{Profile, SETTLES, Settings};
use crate::plan::Draw;

const SECOND: u64 = 1_000_000;
/// From one change to the next, in calm runs.
const CALM_STEP: u64 = 5 * SECOND;
/// From the last change of four to the first of the next four.
const CALM_REST: u64 = 40 * SECOND;
/// From the death of a third to its return, and from there to the next death.
const THIRD_DEAD: u64 = 15 * SECOND;
const THIRD_WELL: u64 = 25 * SECOND;
/// From one fault to the next, about, in runs with faults.
const CHURN_STEP: (u64, u64) = (200_000, 5 * SECOND);

/// Something that the world does.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    /// The process says farewell and ends.
    Leave(usize),
    /// Where a node has left, another with an identity of its own begins.
    Join(usize),
    /// The process dies.
    Kill(usize),
    /// It runs again, with a raised boot number.
    Start(usize),
    /// The process stands still for so long.
    Pause(usize, u64),
    /// The network changes.
    Weather(Weather),
    /// Whatever is wrong is put right; the dead stay dead.
    Heal,
}

/// All that happens, in order of time.
pub(super) fn expand(settings: &Settings) -> Vec<(u64, Deed)> {
    let mut draw = Draw::new(settings.seed, 2);
    let (from, lasts) = (SETTLES.as_micros() as u64, settings.lasts.as_micros() as u64);
    let (nodes, until) = (settings.nodes, from + lasts);
    let mut deeds = match settings.profile {
        Profile::Calm => calm(&mut draw, nodes, from, until),
        Profile::Third => third(&mut draw, nodes, from, until),
        Profile::Churn => churn(&mut draw, nodes, from, until),
    };
    deeds.sort_by_key(|(at, _)| *at);
    deeds
}

/// One node after the other leaves, is replaced, dies, returns; the others have time to see it.
fn calm(draw: &mut Draw, nodes: usize, from: u64, until: u64) -> Vec<(u64, Deed)> {
    let mut deeds = Vec::new();
    let mut at = from;
    while at + 4 * CALM_STEP + 6 * SECOND <= until {
        // The seeds stay, so that whoever joins finds somebody.
        let any = |draw: &mut Draw| draw.range(1, nodes as u64 - 1) as usize;
        let shift = draw.range(0, SECOND);
        let (leaver, victim) = (any(draw), any(draw));
        deeds.push((at + shift, Deed::Leave(leaver)));
        deeds.push((at + shift + CALM_STEP, Deed::Join(leaver)));
        deeds.push((at + shift + 2 * CALM_STEP, Deed::Kill(victim)));
        deeds.push((at + shift + 3 * CALM_STEP + 3 * SECOND, Deed::Start(victim)));
        at += 4 * CALM_STEP + CALM_REST;
    }
    deeds
}

fn third(draw: &mut Draw, nodes: usize, from: u64, until: u64) -> Vec<(u64, Deed)> {
    let mut deeds = Vec::new();
    let mut at = from;
    while at + THIRD_DEAD + THIRD_WELL <= until {
        let when = at + draw.range(0, SECOND);
        let mut all: Vec<usize> = (0..nodes).collect();
        for place in 0..nodes / 3 {
            let other = draw.range(place as u64, nodes as u64 - 1) as usize;
            all.swap(place, other);
            deeds.push((when, Deed::Kill(all[place])));
            let back = when + THIRD_DEAD + draw.range(0, SECOND);
            deeds.push((back, Deed::Start(all[place])));
        }
        at += THIRD_DEAD + THIRD_WELL;
    }
    deeds
}

/// Each class of faults on or off by seed.
fn churn(draw: &mut Draw, nodes: usize, from: u64, until: u64) -> Vec<(u64, Deed)> {
    let mut deeds = Vec::new();
    let [storms, cuts, pauses, deaths, moves] = [(); 5].map(|()| draw.percent(60));
    let (steps, any) = (draw.log_range(CHURN_STEP.0, CHURN_STEP.1), nodes as u64 - 1);
    let mut at = from;
    loop {
        at += draw.range(steps / 2, steps * 2);
        if at >= until {
            break;
        }
        let node = draw.range(0, any) as usize;
        let later = at + draw.log_range(SECOND / 10, 20 * SECOND);
        match draw.range(0, 4) {
            0 if storms || cuts => {
                let weather = weather(draw, nodes, storms, cuts);
                deeds.push((at, Deed::Weather(weather)));
            }
            1 if pauses => deeds.push((at, Deed::Pause(node, draw.log_range(10_000, 8 * SECOND)))),
            2 | 3 if deaths => {
                deeds.push((at, Deed::Kill(node)));
                deeds.push((later, Deed::Start(node)));
            }
            4 if moves => {
                deeds.push((at, Deed::Leave(node)));
                deeds.push((later + SECOND, Deed::Join(node)));
            }
            _ => {}
        }
    }
    deeds.retain(|(at, _)| *at < until);
    deeds.push((until, Deed::Heal));
    deeds
}

fn weather(draw: &mut Draw, nodes: usize, storms: bool, cuts: bool) -> Weather {
    let mut weather = Weather { loss: 10, ..Weather::default() };
    if storms && draw.percent(60) {
        weather.loss = draw.log_range(10, 300);
        weather.repeats = draw.range(0, 100);
        weather.delays = draw.range(0, 100);
    }
    for _ in 0..if cuts { draw.range(0, 2) } else { 0 } {
        let whole = draw.percent(30);
        let mut side: BTreeSet<usize> = (0..nodes).filter(|_| !whole && draw.percent(50)).collect();
        if side.is_empty() {
            side.insert(draw.range(0, nodes as u64 - 1) as usize);
        }
        weather.cuts.push(Cut { side, one_way: draw.percent(40) });
    }
    weather
}
