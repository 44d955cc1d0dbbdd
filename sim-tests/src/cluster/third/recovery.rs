//! What an operator does when a majority of the voters is lost for good: the survivor whose
//! metadata go furthest goes on, and the others follow it.

use std::time::Duration;

use sprawl_io::raft::recover::{recover as go_on, survey};

use crate::cluster::judgement::{differs, live, until};
use crate::cluster::machine::{Machine, Standing};
use crate::cluster::world::World;

/// How long it may take until all survivors are one cluster again.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// Stops all survivors, has one go on, and starts them again.
pub(super) async fn recover(world: &mut World) {
    let survivors: Vec<Machine> = live(world).into_iter().map(|(machine, _)| machine).collect();
    for machine in &survivors {
        machine.stands(Standing::Struck);
        machine.kill(false);
    }
    world.watch.recovered(survivors.iter().map(|machine| machine.number));
    let mut furthest = None;
    for machine in &survivors {
        match survey(&machine.disk(), &others(&survivors, machine)).await {
            Ok(remains) => furthest = furthest.max(Some((remains.end, machine.number))),
            Err(error) => says_no(world, machine, &error.to_string()),
        }
    }
    let Some((_, number)) = furthest else { return };
    let machine = world.machines[number].clone();
    if let Err(error) = go_on(&machine.disk(), &others(&survivors, &machine)).await {
        says_no(world, &machine, &error.to_string());
    }
    survivors.iter().for_each(Machine::start);
    let limit = world.began.elapsed() + SETTLE_LIMIT;
    if until(world, limit, |world| differs(world).is_none().then_some(())).await.is_none() {
        let why = differs(world).unwrap_or_default();
        world.findings.violated("Converges", format!("{SETTLE_LIMIT:?} after recovery: {why}"));
    }
}

fn says_no(world: &World, machine: &Machine, why: &str) {
    let detail = format!("machine {} is not let go on alone: {why}", machine.number);
    world.findings.violated("Converges", detail);
}

/// The names of the others.
fn others(survivors: &[Machine], but: &Machine) -> Vec<String> {
    let others = survivors.iter().filter(|one| one.number != but.number);
    others.map(Machine::name).collect()
}
