//! Scenes: what once went wrong, or could, and needs many things at the right moment. Each ends as a
//! seed does, with all that is owed and with all checks.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use crate::disk::Pattern;
use crate::process::{is_root, minds_modes};
use crate::support::pause;
use crate::support::special::skipped;
use crate::world::{World, scene};

type Outcome = Result<(), String>;

const SIZES: [usize; 4] = [40, 80, 30, 150];

/// Only root can write where the agent may not look.
fn can_close_directories() -> bool {
    let can = is_root() && minds_modes();
    if !can {
        skipped("only root can close a directory to the agent and go on writing there");
    }
    can
}

/// Checkpoints tell the time in seconds.
fn a_second_passes() {
    pause(Duration::from_millis(1100));
}

/// A log with some lines, and the agent has read them.
fn begin(world: &mut World) -> Result<usize, String> {
    world.disk.point(Some("a"));
    let node = world.disk.create("a/app.log");
    world.disk.append(node, &SIZES);
    world.start()?;
    world.wait_until_noticed(node)?;
    Ok(node)
}

/// File systems give the inodes away again that they got back.
#[test]
fn a_dangling_link_with_the_inode_of_a_known_file() {
    scene(Pattern::Link, |world| {
        let node = begin(world)?;
        world.stop()?;
        world.disk.unlink("a/app.log", false);
        let inode = world.disk.nodes[node].inode;
        let is_taken = (0..1000).any(|number| {
            let link = world.disk.path(&format!("a/{number}"));
            std::os::unix::fs::symlink("nowhere", &link).unwrap();
            std::fs::symlink_metadata(link).unwrap().ino() == inode
        });
        world.say(format!("the inode is used again: {is_taken}"));
        world.start()?;
        world.stop()
    });
}

/// Copied and truncated between two looks of the agent.
#[test]
fn a_copy_whose_original_is_truncated_before_the_agent_looks() {
    for pattern in [Pattern::Link, Pattern::LinkAndRotated] {
        scene(pattern, |world| {
            let node = begin(world)?;
            world.set_frozen(true);
            world.disk.copy_and_truncate("a/app.log", "a/app.log.1");
            world.disk.append(node, &SIZES);
            world.set_frozen(false);
            Ok(())
        });
    }
}

/// A rotated log with lines that were not delivered, and the agent is stopped.
fn rotated_and_stopped(world: &mut World) -> Outcome {
    world.set_endpoint(false);
    let node = begin(world)?;
    world.disk.rename("a/app.log", "a/app.log.1");
    let next = world.disk.create("a/app.log");
    world.disk.append(next, &SIZES);
    world.wait_until_noticed(next)?;
    world.disk.append(node, &SIZES);
    world.stop()
}

#[test]
fn an_archive_that_was_made_while_the_agent_was_stopped() {
    scene(Pattern::Link, |world| {
        rotated_and_stopped(world)?;
        world.disk.gzip("a/app.log.1");
        Ok(())
    });
}

/// The second agent takes it for unfinished, and stops; the third must not take it for old.
#[test]
fn an_archive_that_is_young_when_the_next_agent_stops() {
    scene(Pattern::Link, |world| {
        rotated_and_stopped(world)?;
        world.disk.gzip("a/app.log.1");
        world.start()?;
        a_second_passes();
        world.stop()
    });
}

#[test]
fn an_archive_of_what_the_agent_had_open_and_could_not_deliver() {
    scene(Pattern::Link, |world| {
        world.set_endpoint(false);
        let node = begin(world)?;
        world.disk.rename("a/app.log", "a/app.log.1");
        let next = world.disk.create("a/app.log");
        world.disk.append(next, &SIZES);
        world.wait_until_noticed(next)?;
        world.disk.gzip("a/app.log.1");
        world.wait_until_noticed(node)?;
        a_second_passes();
        world.stop()
    });
}

/// gzip makes the archive and writes into it later; the agent is killed between.
#[test]
fn an_archive_that_is_found_empty_at_first() {
    scene(Pattern::LinkAndRotated, |world| {
        begin(world)?;
        world.disk.rename("a/app.log", "a/app.log.1");
        let path = world.disk.path("a/app.log.1.gz");
        std::fs::write(&path, "").unwrap();
        world.wait_for_all()?;
        a_second_passes();
        world.settle()?;
        world.kill()?;
        let mut gzip = std::process::Command::new("gzip");
        let text = gzip.arg("-c").arg(world.disk.path("a/app.log.1")).output();
        std::fs::write(path, text.unwrap().stdout).unwrap();
        world.disk.on_archived("a/app.log.1");
        Ok(())
    });
}

/// The inode that the archived log had is a log again when the next agent starts.
#[test]
fn an_archive_of_a_log_whose_inode_is_used_again() {
    scene(Pattern::Link, |world| {
        world.set_endpoint(false);
        let node = begin(world)?;
        world.disk.rename("a/app.log", "a/app.log.1");
        world.disk.gzip("a/app.log.1");
        world.wait_until_noticed(node)?;
        // A later look: the archive is older than it.
        a_second_passes();
        let job = world.disk.create("a/job.log");
        world.disk.append(job, &SIZES);
        world.wait_until_noticed(job)?;
        a_second_passes();
        world.kill()?;
        let inode = world.disk.nodes[node].inode;
        let is_taken = (0..100).any(|number| {
            let node = world.disk.create(&format!("a/web{number}.log"));
            world.disk.append(node, &SIZES);
            world.disk.nodes[node].inode == inode
        });
        world.say(format!("the inode is used again: {is_taken}"));
        Ok(())
    });
}

#[test]
fn an_archive_in_a_directory_that_is_opened_later() {
    if !can_close_directories() {
        return;
    }
    scene(Pattern::Link, |world| {
        rotated_and_stopped(world)?;
        world.disk.gzip("a/app.log.1");
        world.disk.forbid_directory("a", true);
        world.start()?;
        world.disk.point(Some("b"));
        a_second_passes();
        world.disk.forbid_directory("a", false);
        Ok(())
    });
}

#[test]
fn a_directory_that_cannot_be_looked_into_at_the_stop() {
    if !can_close_directories() {
        return;
    }
    scene(Pattern::Link, |world| {
        let node = begin(world)?;
        world.stop()?;
        world.disk.append(node, &SIZES);
        world.disk.forbid_directory("a", true);
        world.start()?;
        world.stop()
    });
}

/// The directory was not changed for a while when the agent starts, nor when it may be looked into.
#[test]
fn a_renamed_file_in_a_directory_that_is_opened_later() {
    if !can_close_directories() {
        return;
    }
    scene(Pattern::Link, |world| {
        let node = begin(world)?;
        world.stop()?;
        world.disk.rename("a/app.log", "a/app.txt");
        world.disk.append(node, &SIZES);
        pause(Duration::from_millis(3100));
        world.disk.forbid_directory("a", true);
        world.start()?;
        a_second_passes();
        world.disk.forbid_directory("a", false);
        Ok(())
    });
}
