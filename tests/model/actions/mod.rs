//! What can happen, and how often.
//!
//! Which action comes next, and all it does, follows from the seed and the files as the app knows
//! them; never from what the agent has done so far, so that a seed always tells the same story.

/// What happens to files.
mod files;
/// What happens to the agent and the endpoint.
mod peers;

use crate::process;
use crate::world::{World, pick};

type Outcome = Result<(), String>;

/// One kind of event.
struct Action {
    name: &'static str,
    /// How often it is drawn, compared to the others. 0 switches it off.
    weight: u32,
    is_possible: fn(&World) -> bool,
    run: fn(&mut World) -> Outcome,
}

const fn action(
    name: &'static str,
    weight: u32,
    is_possible: fn(&World) -> bool,
    run: fn(&mut World) -> Outcome,
) -> Action {
    Action { name, weight, is_possible, run }
}

const ACTIONS: [Action; 34] = [
    // What an app does.
    action("append", 14, has_file, files::append),
    action("append part", 6, has_file, files::append_part),
    action("create", 4, has_room, files::create),
    action("rotate", 7, has_file, files::rotate),
    action("rename", 3, has_file, files::rename),
    action("rename out of the patterns", 3, has_file, files::rename_away),
    action("replace", 3, has_file, files::replace),
    action("delete", 3, has_file, files::delete),
    action("delete and create", 4, has_file, files::recreate),
    action("truncate", 5, has_file, files::truncate),
    action("refill to less", 3, has_file, files::refill_less),
    action("refill to the same size", 3, has_file, files::refill_same),
    action("refill to more", 4, has_file, files::refill_more),
    action("overwrite", 2, |world| has_file(world) && is_down(world), files::overwrite),
    action("point the link elsewhere", 4, |_| true, files::point_elsewhere),
    action("remove the link", 1, |world| world.disk.link.is_some(), files::remove_link),
    action("hard link", 3, has_file, files::hard_link),
    action("symbolic link", 4, has_file, files::symbolic_link),
    action("copy and truncate", 3, has_file, files::copy_and_truncate),
    action("gzip", 8, can_gzip, files::gzip),
    action("chmod", 3, |world| has_file(world) && process::minds_modes(), files::chmod),
    action("move the directory", 2, has_linked_pod, files::move_directory),
    action("chmod the directory", 2, can_forbid_directory, files::chmod_directory),
    // What happens to the agent.
    action("start", 40, is_down, World::start),
    action("freeze", 3, is_awake, peers::freeze),
    action("thaw", 20, |world| world.is_frozen, peers::thaw),
    action("stop", 4, is_up, World::stop),
    action("kill", 5, is_up, World::kill),
    action("kill at the start", 2, is_down, peers::kill_at_start),
    action("kill when all is saved", 3, can_settle, peers::kill_settled),
    action("cut the power", 3, is_up, peers::cut_power),
    // What happens to the endpoint.
    action("endpoint down", 4, |world| world.is_endpoint_up, peers::endpoint_down),
    action("endpoint up", 9, |world| !world.is_endpoint_up, peers::endpoint_up),
    action("endpoint faults", 4, |world| world.is_endpoint_up, peers::faults),
];

/// What the agent is asked for beyond the rest, one line each: what was not delivered of a gzipped
/// log arrives from the archive, whenever that was made.
pub(crate) const FOLLOWS_ARCHIVES: bool = true;
/// A copy of a log is known even if the original is truncated before the agent has looked.
pub(crate) const KNOWS_COPIES_AT_ONCE: bool = true;

/// Most names at once.
const NAMES_MAX: usize = 8;

/// What stands there before the first action.
pub(crate) fn begin(world: &mut World) -> Outcome {
    let link = pick(&mut world.rng, &[Some("a"), Some("a"), Some("a"), Some("b"), None]);
    if link.is_some() {
        world.disk.point(link);
    }
    let count = world.rng.usize(1..=2);
    for name in ["a/app.log", "a/web.log"].into_iter().take(count) {
        let node = world.disk.create(name);
        files::append_to(world, node);
    }
    world.say(format!("begin with {count} files, link {link:?}"));
    if world.rng.u8(..4) > 0 { world.start() } else { Ok(()) }
}

/// One action.
pub(crate) fn act(world: &mut World) -> Outcome {
    let possible: Vec<&Action> =
        ACTIONS.iter().filter(|action| (action.is_possible)(world)).collect();
    let sum: u32 = possible.iter().map(|action| action.weight).sum();
    let mut at = world.rng.u32(..sum);
    let drawn = possible.into_iter().find(|action| {
        let is_it = at < action.weight;
        at = at.saturating_sub(action.weight);
        is_it
    });
    let Action { name, run, .. } = drawn.expect("the weights add up");
    world.say((*name).to_owned());
    world.tally.add(name, 1);
    run(world)
}

fn is_up(world: &World) -> bool {
    world.process.is_some()
}

fn is_down(world: &World) -> bool {
    world.process.is_none()
}

fn has_linked_pod(world: &World) -> bool {
    world.disk.link.is_some() && world.disk.forbidden_pods.is_empty()
}

/// Only root can go on writing there.
fn can_forbid_directory(world: &World) -> bool {
    world.disk.link.is_some() && process::is_root() && process::minds_modes()
}

fn is_awake(world: &World) -> bool {
    is_up(world) && !world.is_frozen
}

fn can_settle(world: &World) -> bool {
    is_awake(world) && world.is_endpoint_up
}

fn has_file(world: &World) -> bool {
    !writable(world).is_empty()
}

fn has_room(world: &World) -> bool {
    world.disk.names.len() < NAMES_MAX
}

fn can_gzip(world: &World) -> bool {
    !archivable(world).is_empty()
}

/// Rotated files of one name: gzip(1) leaves others alone.
fn archivable(world: &World) -> Vec<String> {
    let mut names = writable(world);
    names.retain(|name| {
        let node = world.disk.names[name];
        name.contains(".log.") && world.disk.names_of(node).count() == 1
    });
    names
}

/// Names of files that the app may write to.
fn writable(world: &World) -> Vec<String> {
    let names = world.disk.names.iter();
    let mine = names.filter(|(_, node)| !world.disk.nodes[**node].is_forbidden);
    mine.map(|(name, _)| name.clone()).collect()
}
