//! GoodputReturns: when all has healed and links are good, many who publish at one node are served
//! together, and not one after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use sprawl_core::ids::TopicName;

use super::judgement::live;
use super::machine::Machine;
use super::mail::Mail;
use super::world::World;

/// At how many nodes is published.
const DOORS: usize = 3;
/// How many messages one client sends one after the other, to find out how long one takes.
const ALONE: u32 = 4;
/// How many clients send one each at once.
const TOGETHER: u32 = 16;
/// How many times longer than one message those may take: one after the other they take more than
/// twice that.
const TIMES_MAX: u32 = TOGETHER / 2;
/// How often it is looked at: the lead may move, or a copy be made meanwhile.
const LOOKS: u32 = 3;
/// Who publishes.
const CLIENT: u64 = 43_000;

/// Publishes at some nodes to every other one that leads a partition, and compares.
pub(super) async fn returns(world: &mut World) {
    let all = live(world);
    let first = world.plan.seed as usize;
    for at in 0..DOORS.min(all.len()) {
        let (door, node) = &all[(first + at) % all.len()];
        let (view, mut asked) = (node.view(), BTreeSet::new());
        for partition in view.partitions.values() {
            let leader = partition.led_by().filter(|disk| *disk != node.identity().disk);
            let is_mail = partition.topic.as_str().starts_with("mail.");
            let Some(leader) = leader.filter(|_| is_mail && !partition.frozen) else { continue };
            if !asked.insert(leader) {
                continue;
            }
            let mut worst = None;
            for look in 0..LOOKS {
                let name = format!("goodput-{at}-{leader}-{look}");
                worst = too_slow(&world.mail, door, (&name, &partition.topic)).await;
                if worst.is_none() {
                    break;
                }
            }
            if let Some((one, many)) = worst {
                let detail = format!(
                    "one message to '{}' through machine {} takes {one:?}, {TOGETHER} at once \
                     take {many:?}",
                    partition.topic, door.number
                );
                world.findings.violated("GoodputReturns", detail);
            }
        }
    }
}

/// How long one takes, and how long many do, where that is too long; nothing where not all are
/// taken, of which others judge.
async fn too_slow(
    mail: &Mail,
    door: &Machine,
    (name, topic): (&str, &TopicName),
) -> Option<(Duration, Duration)> {
    let began = tokio::time::Instant::now();
    for number in 0..ALONE {
        publish(mail.clone(), door.clone(), format!("{name}-a{number}"), topic.clone()).await?;
    }
    let one = began.elapsed() / ALONE;
    let began = tokio::time::Instant::now();
    let send = |number| {
        let id = format!("{name}-t{number}");
        tokio::spawn(publish(mail.clone(), door.clone(), id, topic.clone()))
    };
    let sent: Vec<_> = (0..TOGETHER).map(send).collect();
    for publish in sent {
        publish.await.ok()??;
    }
    let many = began.elapsed();
    is_too_long(one, many).then_some((one, many))
}

/// Whether many took as long as if they had come one after the other.
fn is_too_long(one: Duration, many: Duration) -> bool {
    many > one * TIMES_MAX
}

/// Publishes a message through a node, once; nothing where it is not taken.
pub(super) async fn publish(mail: Mail, door: Machine, id: String, topic: TopicName) -> Option<()> {
    let (mut open, mut doubtful) = (vec![(id, topic)], BTreeSet::new());
    mail.begins(&open);
    mail.attempt(&door, CLIENT, &mut open, &mut doubtful).await;
    let is_done = open.is_empty();
    mail.gives_up(open, &doubtful);
    is_done.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_may_take_longer_than_one_and_not_as_long_as_one_after_the_other() {
        let one = Duration::from_millis(20);
        assert!(!is_too_long(one, one));
        assert!(!is_too_long(one, 3 * one));
        assert!(is_too_long(one, TOGETHER * one));
    }
}
