//! What an app does to its files, and what is done to them behind its back.

use super::{Outcome, archivable, is_up, writable};
use crate::disk::{parts, stem};
use crate::text::LINE_BYTES_MIN;
use crate::world::{World, pick};

/// Draws a file. Those that the patterns may find are drawn more often.
fn draw(world: &mut World) -> String {
    let mut all = writable(world);
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
    let (pod, file) = parts(name);
    let name = form
        .replace("NAME", file)
        .replace("STEM", stem(file))
        .replace('#', &world.trace.len().to_string());
    format!("{pod}/{name}")
}

const ROTATED: &str = "STEM.log.#";
const DATED: &str = "STEM-#.log";
const MATCHED: &str = "STEM_new#x.log";
const UNMATCHED: &str = "STEM-#.txt";

pub(super) fn append_to(world: &mut World, node: usize) {
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

pub(super) fn append(world: &mut World) -> Outcome {
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

pub(super) fn append_part(world: &mut World) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    let size = world.rng.usize(LINE_BYTES_MIN..10 * LINE_BYTES_MIN);
    world.disk.append_part(node, size);
    Ok(())
}

pub(super) fn create(world: &mut World) -> Outcome {
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

pub(super) fn rotate(world: &mut World) -> Outcome {
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

pub(super) fn rename(world: &mut World) -> Outcome {
    let name = draw(world);
    let form = pick(&mut world.rng, &[MATCHED, DATED]);
    let to = new_name(world, &name, form);
    world.disk.rename(&name, &to);
    Ok(())
}

pub(super) fn rename_away(world: &mut World) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    notice(world, node)?;
    let form = pick(&mut world.rng, &[ROTATED, UNMATCHED]);
    let to = new_name(world, &name, form);
    world.disk.rename(&name, &to);
    Ok(())
}

/// As editors and some loggers do: a new file takes the name.
pub(super) fn replace(world: &mut World) -> Outcome {
    let name = draw(world);
    let old = world.disk.names[&name];
    notice(world, old)?;
    let temporary = new_name(world, &name, UNMATCHED);
    let node = world.disk.create(&temporary);
    append_some(world, node);
    world.disk.rename(&temporary, &name);
    Ok(())
}

pub(super) fn delete(world: &mut World) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    notice(world, node)?;
    let keeps_writer = is_up(world) && world.rng.bool();
    world.disk.unlink(&name, keeps_writer);
    Ok(())
}

/// The new file often gets the inode of the old one.
pub(super) fn recreate(world: &mut World) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    notice(world, node)?;
    world.disk.unlink(&name, false);
    let node = world.disk.create(&name);
    append_some(world, node);
    Ok(())
}

pub(super) fn truncate(world: &mut World) -> Outcome {
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

pub(super) fn refill_less(world: &mut World) -> Outcome {
    refill(world, |rng, size| rng.u64(..=size * 3 / 4), false)
}

pub(super) fn refill_same(world: &mut World) -> Outcome {
    refill(world, |_, size| size, false)
}

pub(super) fn refill_more(world: &mut World) -> Outcome {
    refill(world, |rng, size| size + rng.u64(LINE_BYTES_MIN as u64..2000), false)
}

/// Without a truncation: only while no agent looks, which could see a line half written over.
pub(super) fn overwrite(world: &mut World) -> Outcome {
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

pub(super) fn point_elsewhere(world: &mut World) -> Outcome {
    let from = world.disk.link;
    let to = if from == Some("a") { "b" } else { "a" };
    if let Some(pod) = from {
        notice_all_of(world, pod)?;
    }
    world.say(format!("    to {to}"));
    world.disk.point(Some(to));
    Ok(())
}

pub(super) fn remove_link(world: &mut World) -> Outcome {
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

pub(super) fn hard_link(world: &mut World) -> Outcome {
    let name = draw(world);
    let form = pick(&mut world.rng, &[ROTATED, MATCHED, UNMATCHED]);
    let other = new_name(world, &name, form);
    world.disk.hard_link(&name, &other);
    Ok(())
}

pub(super) fn symbolic_link(world: &mut World) -> Outcome {
    let name = draw(world);
    let (pod, _) = parts(&name);
    let alias = format!("{pod}/current.log");
    if let Some(&node) = world.disk.aliases.get(&alias).and_then(|to| world.disk.names.get(to)) {
        notice(world, node)?;
    }
    world.disk.symbolic_link(&name, &alias);
    Ok(())
}

pub(super) fn copy_and_truncate(world: &mut World) -> Outcome {
    let name = draw(world);
    let node = world.disk.names[&name];
    notice(world, node)?;
    let copy = new_name(world, &name, "NAME.#");
    world.disk.copy_and_truncate(&name, &copy);
    append_some(world, node);
    Ok(())
}

pub(super) fn gzip(world: &mut World) -> Outcome {
    let rotated = archivable(world);
    let name = &rotated[world.rng.usize(..rotated.len())];
    world.say(format!("    {name}"));
    let node = world.disk.names[name];
    notice(world, node)?;
    world.disk.gzip(name);
    Ok(())
}

pub(super) fn chmod(world: &mut World) -> Outcome {
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

pub(super) fn move_directory(world: &mut World) -> Outcome {
    let pod = world.disk.link.expect("it was asked for");
    notice_all_of(world, pod)?;
    let number = world.trace.len();
    world.say(format!("    {pod} to {pod}.{number}"));
    world.disk.move_directory(pod, number);
    Ok(())
}

pub(super) fn chmod_directory(world: &mut World) -> Outcome {
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
