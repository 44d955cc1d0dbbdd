//! Much is published while a follower is dead: what is on its way to it keeps its bound, which
//! BoundsHold judges.

use sprawl_core::cluster::metadata::Partition;
use sprawl_core::ids::{DiskId, TopicName};

use super::goodput::publish;
use super::judgement::live;
use super::world::World;

/// How many messages, one after the other: more than are ever on their way to one follower.
const MESSAGES: u32 = 80;

/// Publishes to a partition of which one of the dead holds a copy; until a message is not taken.
pub(super) async fn grow(world: &World, dead: &[DiskId]) {
    let all = live(world);
    let Some((door, node)) = all.first() else { return };
    let view = node.view();
    let Some(topic) = view.partitions.values().find_map(|one| followed_by(one, dead)) else {
        return;
    };
    for number in 0..MESSAGES {
        let id = format!("backlog-{number}");
        if publish(world.mail.clone(), door.clone(), id, topic.clone()).await.is_none() {
            return;
        }
    }
}

/// The topic of a partition that is published to, where one of these follows.
fn followed_by(partition: &Partition, some: &[DiskId]) -> Option<TopicName> {
    let is_mail = partition.topic.as_str().starts_with("mail.");
    let leads = |disk: &DiskId| partition.led_by() == Some(*disk);
    let mut replicas = partition.replicas.iter();
    let follows = replicas.any(|disk| some.contains(disk) && !leads(disk));
    (is_mail && follows && !partition.frozen).then(|| partition.topic.clone())
}
