//! What can happen, and how often.
//!
//! Which action comes next, and all it does, follows from the seed and the files as the app knows
//! them; never from what the agent has done so far, so that a seed always tells the same story.

use std::time::Duration;

use logferry::mock::Kind;

use crate::disk::{Pattern, parts};
use crate::process;
use crate::text::LINE_BYTES_MIN;
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
    action("append", 14, has_file, append),
    action("append part", 6, has_file, append_part),
    action("create", 4, has_room, create),
    action("rotate", 7, has_file, rotate),
    action("rename", 3, has_file, rename),
    action("rename out of the patterns", 3, has_file, rename_away),
    action("replace", 3, has_file, replace),
    action("delete", 3, has_file, delete),
    action("delete and create", 4, has_file, recreate),
    action("truncate", 5, has_file, truncate),
    action("refill to less", 3, has_file, refill_less),
    action("refill to the same size", 3, can_refill_same, refill_same),
    action("refill to more", 4, has_file, refill_more),
    action("overwrite", 2, |world| has_file(world) && is_down(world), overwrite),
    action("point the link elsewhere", 4, |_| true, point_elsewhere),
    action("remove the link", 1, |world| world.disk.link.is_some(), remove_link),
    action("hard link", 3, has_file, hard_link),
    action("symbolic link", 4, has_file, symbolic_link),
    action("copy and truncate", 3, can_copy, copy_and_truncate),
    action("gzip", 2, can_gzip, gzip),
    action("chmod", 3, |world| has_file(world) && process::minds_modes(), chmod),
    action("move the directory", 2, has_linked_pod, move_directory),
    action("chmod the directory", 2, can_forbid_directory, chmod_directory),
    // What happens to the agent.
    action("start", 40, is_down, World::start),
    action("freeze", 3, is_awake, freeze),
    action("thaw", 20, |world| world.is_frozen, thaw),
    action("stop", 4, is_up, World::stop),
    action("kill", 5, is_up, World::kill),
    action("kill at the start", 2, is_down, kill_at_start),
    action("kill when all is saved", 3, can_settle, kill_settled),
    action("cut the power", 3, is_up, cut_power),
    // What happens to the endpoint.
    action("endpoint down", 4, |world| world.is_endpoint_up, endpoint_down),
    action("endpoint up", 9, |world| !world.is_endpoint_up, endpoint_up),
    action("endpoint faults", 4, |world| world.is_endpoint_up, faults),
];

/// What the agent is asked for, one line each. The rest of a gzipped log arrives from the archive.
const KNOWS_GZIP: bool = true;
/// A copy of a log is known by what is in it.
const KNOWS_COPIES: bool = true;
/// The same even if the original is truncated before the agent has looked.
const KNOWS_COPIES_AT_ONCE: bool = false;
/// A rewriting to the same size is seen even if no notification tells of it.
const SEES_SAME_SIZE: bool = true;
/// A directory that cannot be looked into is not everything delivered.
pub(crate) const SEES_CLOSED_DIRECTORIES: bool = false;

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
        append_to(world, node);
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

// === when

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
    !files(world).is_empty()
}

fn has_room(world: &World) -> bool {
    world.disk.names.len() < NAMES_MAX
}

fn can_refill_same(world: &World) -> bool {
    (SEES_SAME_SIZE || is_down(world)) && has_file(world)
}

fn can_copy(world: &World) -> bool {
    (KNOWS_COPIES || world.disk.pattern() != Pattern::LinkAndRotated) && has_file(world)
}

fn can_gzip(world: &World) -> bool {
    let is_read_as_text = world.disk.pattern() == Pattern::LinkAndRotated;
    (KNOWS_GZIP || !is_read_as_text) && files(world).iter().any(|name| is_rotated(name))
}

fn is_rotated(name: &str) -> bool {
    name.contains(".log.")
}

/// Names of files that the app may write to.
fn files(world: &World) -> Vec<String> {
    let names = world.disk.names.iter();
    let mine = names.filter(|(_, node)| !world.disk.nodes[**node].is_forbidden);
    mine.map(|(name, _)| name.clone()).collect()
}

// === what

/// Draws a file. Those that the patterns may find are drawn more often.
fn draw(world: &mut World) -> String {
    let mut all = files(world);
    let logs: Vec<String> = all.iter().filter(|name| name.ends_with(".log")).cloned().collect();
    if !logs.is_empty() && world.rng.u8(..4) > 0 {
        all = logs;
    }
    let at = world.rng.usize(..all.len());
    let name = all.swap_remove(at);
    world.say(format!("    {name}, node {}", world.disk.names[&name]));
    name
}

/// A name that no file has had yet, in the same directory.
fn new_name(world: &World, name: &str, form: &str) -> String {
    let (pod, file) = parts(&name);
    let stem = file.split(['.', '-', '_']).next().expect("a first part");
    let name = form.replace("STEM", stem).replace('#', &world.trace.len().to_string());
    format!("{pod}/{name}")
}

const ROTATED: &str = "STEM.log.#";
const DATED: &str = "STEM-#.log";
const MATCHED: &str = "STEM_new#x.log";
const UNMATCHED: &str = "STEM-#.txt";

fn append_to(world: &mut World, node: usize) {
    let most = pick(&mut world.rng, &[2, 5, 5, 60]);
    let count = world.rng.usize(1..=most);
    let sizes: Vec<usize> =
        (0..count).map(|_| world.rng.usize(LINE_BYTES_MIN..10 * LINE_BYTES_MIN)).collect();
    world.disk.append(node, &sizes);
    let bytes: usize = sizes.iter().sum();
    world.say(format!("    append {count} lines, {bytes} bytes to node {node}"));
}

fn append_some(world: &mut World, node: usize) {
    if world.rng.u8(..4) > 0 {
        append_to(world, node);
    }
}

/// Half of the destructions wait until the agent has seen what they destroy; the other half risk
/// it.
fn notice(world: &mut World, node: usize) -> Outcome {
    if world.rng.bool() {
        world.say("    noticed".to_owned());
        world.wait_until_noticed(node)?;
    }
    Ok(())
}

fn append(world: &mut World) -> Outcome {
    let nameless = world.disk.written_without_name();
    let node = if !nameless.is_empty() && world.rng.bool() {
        nameless[world.rng.usize(..nameless.len())]
    } else {
        let name = draw(world);
        world.disk.names[&name]
    };
    append_to(world, node);
    Ok(())
}

fn append_part(world: &mut World) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    let size = world.rng.usize(LINE_BYTES_MIN..10 * LINE_BYTES_MIN);
    world.disk.append_part(node, size);
    Ok(())
}

fn create(world: &mut World) -> Outcome {
    let pod = pick(&mut world.rng, &["a", "b"]);
    let stem = pick(&mut world.rng, &["app", "web", "job"]);
    let usual = format!("{pod}/{stem}.log");
    let name = if world.disk.names.contains_key(&usual) {
        new_name(world, &usual, MATCHED)
    } else {
        usual
    };
    world.say(format!("    {name}"));
    let node = world.disk.create(&name);
    append_some(world, node);
    Ok(())
}

fn rotate(world: &mut World) -> Outcome {
    let name = draw(world);
    let old = world.disk.names[&name];
    notice(world, old)?;
    let to = new_name(world, &name, ROTATED);
    world.disk.rename(&name, &to);
    let new = world.disk.create(&name);
    append_some(world, new);
    if world.rng.bool() {
        // The app has not noticed yet.
        append_to(world, old);
    }
    Ok(())
}

fn rename(world: &mut World) -> Outcome {
    let name = draw(world);
    let form = pick(&mut world.rng, &[MATCHED, DATED]);
    let to = new_name(world, &name, form);
    world.disk.rename(&name, &to);
    Ok(())
}

fn rename_away(world: &mut World) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    notice(world, node)?;
    let form = pick(&mut world.rng, &[ROTATED, UNMATCHED]);
    let to = new_name(world, &name, form);
    world.disk.rename(&name, &to);
    Ok(())
}

/// As editors and some loggers do: a new file takes the name.
fn replace(world: &mut World) -> Outcome {
    let name = draw(world);
    let old = world.disk.names[&name];
    notice(world, old)?;
    let temporary = new_name(world, &name, UNMATCHED);
    let node = world.disk.create(&temporary);
    append_some(world, node);
    world.disk.rename(&temporary, &name);
    Ok(())
}

fn delete(world: &mut World) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    notice(world, node)?;
    let keeps_writer = is_up(world) && world.rng.bool();
    world.disk.unlink(&name, keeps_writer);
    Ok(())
}

/// The new file often gets the inode of the old one.
fn recreate(world: &mut World) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    notice(world, node)?;
    world.disk.unlink(&name, false);
    let node = world.disk.create(&name);
    append_some(world, node);
    Ok(())
}

fn truncate(world: &mut World) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    notice(world, node)?;
    let size = world.rng.u64(..=world.disk.nodes[node].size());
    let within = !world.disk.has_pieces() && world.rng.bool();
    let size = world.disk.place_to_cut(node, size, within);
    world.say(format!("    to {size} of {}", world.disk.nodes[node].size()));
    world.disk.cut(&name, size);
    append_some(world, node);
    Ok(())
}

fn refill_less(world: &mut World) -> Outcome {
    refill(world, |rng, size| rng.u64(..=size * 3 / 4), false)
}

fn refill_same(world: &mut World) -> Outcome {
    refill(world, |_, size| size, false)
}

fn refill_more(world: &mut World) -> Outcome {
    refill(world, |rng, size| size + rng.u64(LINE_BYTES_MIN as u64..2000), false)
}

/// Without a truncation: only while no agent looks, which could see a line half written over.
fn overwrite(world: &mut World) -> Outcome {
    refill(world, |_, size| size, true)
}

fn refill(
    world: &mut World,
    size: impl FnOnce(&mut fastrand::Rng, u64) -> u64,
    is_in_place: bool,
) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    notice(world, node)?;
    let before = world.disk.nodes[node].size();
    let size = size(&mut world.rng, before);
    // The head stays as it was, or a part of it, if there is room for another line behind it.
    let room = size.saturating_sub(LINE_BYTES_MIN as u64);
    let layout = &world.disk.nodes[node].layout;
    let most = layout.iter().take_while(|placed| placed.end <= room).count();
    let kept = world.rng.usize(..=most);
    world.say(format!("    {size} bytes instead of {before}, {kept} lines as before"));
    world.disk.refill(&name, kept, size, is_in_place);
    Ok(())
}

fn point_elsewhere(world: &mut World) -> Outcome {
    let from = world.disk.link;
    let to = if from == Some("a") { "b" } else { "a" };
    if let Some(pod) = from {
        notice_all_of(world, pod)?;
    }
    world.say(format!("    to {to}"));
    world.disk.point(Some(to));
    Ok(())
}

fn remove_link(world: &mut World) -> Outcome {
    if let Some(pod) = world.disk.link {
        notice_all_of(world, pod)?;
    }
    world.disk.point(None);
    Ok(())
}

fn notice_all_of(world: &mut World, pod: &str) -> Outcome {
    let names: Vec<(String, usize)> =
        world.disk.names.iter().map(|(name, node)| (name.clone(), *node)).collect();
    for (_, node) in names.into_iter().filter(|(name, _)| parts(name).0 == pod) {
        notice(world, node)?;
    }
    Ok(())
}

fn hard_link(world: &mut World) -> Outcome {
    let name = draw(world);
    let form = pick(&mut world.rng, &[ROTATED, MATCHED, UNMATCHED]);
    let other = new_name(world, &name, form);
    world.disk.hard_link(&name, &other);
    Ok(())
}

fn symbolic_link(world: &mut World) -> Outcome {
    let name = draw(world);
    let (pod, _) = parts(&name);
    let alias = format!("{pod}/current.log");
    if let Some(&node) = world.disk.aliases.get(&alias).and_then(|to| world.disk.names.get(to)) {
        notice(world, node)?;
    }
    world.disk.symbolic_link(&name, &alias);
    Ok(())
}

fn copy_and_truncate(world: &mut World) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    notice(world, node)?;
    let copy = new_name(world, &name, ROTATED);
    world.disk.copy_and_truncate(&name, &copy, !KNOWS_COPIES_AT_ONCE);
    append_some(world, node);
    Ok(())
}

fn gzip(world: &mut World) -> Outcome {
    let rotated: Vec<String> = files(world).into_iter().filter(|name| is_rotated(name)).collect();
    let name = &rotated[world.rng.usize(..rotated.len())];
    world.say(format!("    {name}"));
    let node = world.disk.names[name];
    notice(world, node)?;
    world.disk.gzip(name, KNOWS_GZIP);
    Ok(())
}

fn chmod(world: &mut World) -> Outcome {
    let forbidden: Vec<String> = world
        .disk
        .names
        .iter()
        .filter(|(_, node)| world.disk.nodes[**node].is_forbidden)
        .map(|(name, _)| name.clone())
        .collect();
    match forbidden.first() {
        Some(name) => {
            world.say(format!("    644 {name}"));
            world.disk.forbid(name, false);
        }
        None => {
            let name = draw(world);
            world.say(format!("    000 {name}"));
            world.disk.forbid(&name, true);
        }
    }
    Ok(())
}

fn freeze(world: &mut World) -> Outcome {
    world.set_frozen(true);
    Ok(())
}

fn thaw(world: &mut World) -> Outcome {
    world.set_frozen(false);
    Ok(())
}

fn move_directory(world: &mut World) -> Outcome {
    let pod = world.disk.link.expect("it was asked for");
    notice_all_of(world, pod)?;
    let number = world.trace.len();
    world.say(format!("    {pod} to {pod}.{number}"));
    world.disk.move_directory(pod, number);
    Ok(())
}

fn chmod_directory(world: &mut World) -> Outcome {
    if let Some(pod) = world.disk.forbidden_pods.first().cloned() {
        world.say(format!("    755 {pod}"));
        world.disk.forbid_directory(&pod, false);
    } else {
        let pod = world.disk.link.expect("it was asked for");
        notice_all_of(world, pod)?;
        world.say(format!("    000 {pod}"));
        world.disk.forbid_directory(pod, true);
    }
    Ok(())
}

fn kill_at_start(world: &mut World) -> Outcome {
    let after = Duration::from_millis(world.rng.u64(..40));
    world.kill_at_start(after);
    Ok(())
}

fn kill_settled(world: &mut World) -> Outcome {
    world.settle()?;
    world.kill()
}

fn cut_power(world: &mut World) -> Outcome {
    let is_torn = world.rng.bool();
    world.cut_power(is_torn)
}

fn endpoint_down(world: &mut World) -> Outcome {
    world.set_endpoint(false);
    Ok(())
}

fn endpoint_up(world: &mut World) -> Outcome {
    world.set_endpoint(true);
    Ok(())
}

fn faults(world: &mut World) -> Outcome {
    let error = Kind::Error { code: "ServerBusy".to_owned(), status: None, retry_after: None };
    let all = [Kind::CutBefore, Kind::CutAfter, error, Kind::Delay { ms: 100 }];
    let kind = all[world.rng.usize(..all.len())].clone();
    let times = world.rng.u64(1..=3);
    world.say(format!("    {} {times} times", kind.name()));
    world.set_faults(vec![(kind, times)]);
    Ok(())
}
