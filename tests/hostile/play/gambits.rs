//! The app's plans. Each begins with something that the agent may read, and ends with a name of it
//! that leads to a secret; between the two the agent may be stopped, killed or frozen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::agent::pause;
use super::app::Way;
use super::forgery::{self, Forgery};
use super::ground::Roots;
use super::secrets::known;
use super::world::{Pause, World};
use super::{pick, secrets};

/// Bytes of a secret that the app writes itself; 0 for an empty file.
const KNOWN: [usize; 10] = [0, 1, 1, 1, 2, 28, 255, 300, 1100, 1500];
/// Names of links that the patterns match.
const LINKS: [&str; 4] = ["x0.log", "x1.log", "x.log", "app.log"];

/// Plays one plan.
pub(crate) fn act(world: &mut World) -> Result<(), String> {
    match world.rng.u8(..20) {
        0..=6 => bait(world),
        7 => younger(world),
        8..=9 => flip(world),
        10..=11 => forge(world),
        12 => first_link(world),
        13..=14 => move_base(world),
        15 => point_at_process(world),
        16 => renew_secrets(world),
        _ => {
            for _ in 0..world.rng.usize(2..=6) {
                fumble(world)?;
            }
            if world.rng.bool() {
                let pause = pick(&mut world.rng, &[Pause::Stopped, Pause::Killed, Pause::Frozen]);
                world.interrupt(pause)?;
                fumble(world)?;
                fumble(world)?;
                world.resume()?;
            }
            Ok(())
        }
    }
}

/// A file of the app's, which begins as the secret does and stands under the secret's name in a
/// directory of its own; a link that matches; then the directory, or the file, or the link leads to
/// the secret.
fn bait(world: &mut World) -> Result<(), String> {
    let (vault, below) = world.some_secret();
    let number = world.app.next();
    let dir = match world.rng.u8(..8) {
        0..=1 => world.app.logs.join("sub"),
        2..=3 => world.app.logs.join(format!("g{number}/deep")),
        4 if world.ground.setting.finds_share() => {
            world.ground.path("share").join(format!("g{number}"))
        }
        _ => world.app.logs.join(format!("g{number}")),
    };
    let links = if world.ground.setting.finds_all_logs() { &LINKS[..] } else { &LINKS[..1] };
    let link = world.app.logs.join(pick(&mut world.rng, links));
    let len = pick(&mut world.rng, &KNOWN);
    let way = Way::draw(&mut world.rng);
    let is_linked = world.rng.u8(..5) > 0 || below.extension().is_none_or(|name| name != "log");
    let moment = pick(
        &mut world.rng,
        &[Pause::None, Pause::Stopped, Pause::Stopped, Pause::Killed, Pause::Killed, Pause::Frozen],
    );
    if world.rng.u8(..5) > 0 {
        // What the agent does not find it does not take.
        world.find_base_again()?;
    }
    world.start()?;
    lay(world, &dir, &below, len, is_linked.then_some((&link, way)));
    world.interrupt(moment)?;
    lead_away(world, &dir, &below, &link, &vault);
    if world.rng.u8(..6) == 0 {
        renew_secrets(world)?;
    }
    if world.rng.u8(..4) == 0 {
        fumble(world)?;
    }
    world.resume()
}

/// Writes what is to be shipped, and waits until it was.
pub(crate) fn lay(
    world: &mut World,
    dir: &Path,
    below: &Path,
    len: usize,
    link: Option<(&Path, Way)>,
) {
    let path = dir.join(below);
    let name = below.file_name().unwrap_or_default().to_string_lossy();
    let bytes = &known(&name)[..len];
    // Whatever has the directory's name may be a link by now.
    if dir.is_symlink() {
        world.app.remove(dir);
    }
    let is_written = world.app.write(&path, bytes);
    world.say(format!("write {len} bytes to {}: {is_written}", path.display()));
    if let Some((link, way)) = link {
        let is_made = world.app.link(&path, link, way);
        world.say(format!("link {} -> {} {way:?}: {is_made}", link.display(), path.display()));
    }
    let is_taken = is_written && world.await_delivered(&path, len as u64);
    world.tally.add(if is_taken { "baits taken" } else { "baits not taken" });
}

/// Lets what was shipped lead to the secret.
fn lead_away(world: &mut World, dir: &Path, below: &Path, link: &Path, vault: &Path) {
    let kind = world.rng.u8(..9);
    let way = Way::draw(&mut world.rng);
    let (path, secret) = (dir.join(below), vault.join(below));
    let aside = dir.with_extension("old");
    let app = &mut world.app;
    let (what, is_done) = match kind {
        0..=1 => ("rename it", app.rename(dir, &aside) && app.link(vault, dir, way)),
        2..=3 => ("exchange it", app.link(vault, &aside, way) && app.exchange(dir, &aside)),
        4 => ("remove it", app.remove(dir) && app.link(vault, dir, way)),
        5 => ("another file", app.link(&secret, &path, way)),
        6 => ("another link", app.link(&secret, link, way)),
        7 => {
            let above = path.parent().unwrap_or(dir).to_owned();
            let to = secret.parent().unwrap_or(vault).to_owned();
            let aside = above.with_extension("old");
            ("the nearest directory", app.rename(&above, &aside) && app.link(&to, &above, way))
        }
        _ => {
            let inner = dir.join("inner");
            let is_moved = app.rename(&path, &dir.join("moved.log"));
            let is_linked = app.link(vault, &inner, way);
            ("a link inside", is_moved && is_linked && app.link(&inner.join(below), link, way))
        }
    };
    let (dir, vault) = (dir.display().to_string(), vault.display().to_string());
    world.say(format!("lead {dir} to {vault}, {what}, {way:?}: {is_done}"));
    world.tally.add(if is_done { "led away" } else { "not led away" });
}

/// What has the name of a known file, or of a generation of it, is younger than the last look.
fn younger(world: &mut World) -> Result<(), String> {
    let dir = world.app.logs.join("young");
    world.start()?;
    let name = Path::new(pick(&mut world.rng, &["x.log", "app.log"]));
    lay(world, &dir, name, 300, None);
    let moment = pick(&mut world.rng, &[Pause::None, Pause::Stopped, Pause::Killed]);
    world.interrupt(moment)?;
    let (vault, _) = world.some_secret();
    renew_secrets(world)?;
    let way = Way::draw(&mut world.rng);
    let number = world.app.next();
    let aside = world.app.logs.join(format!("old{number}"));
    let is_done = world.app.rename(&dir, &aside) && world.app.link(&vault, &dir, way);
    world.say(format!("lead {} to {}: {is_done}", dir.display(), vault.display()));
    world.resume()
}

/// A name leads to a file of the app's and to a secret in turn, faster than anybody can look.
fn flip(world: &mut World) -> Result<(), String> {
    let (vault, below) = world.some_secret();
    let own = world.ground.own_files();
    let number = world.app.next();
    let logs = world.app.logs.clone();
    let (name, twin) = (logs.join(format!("flip{number}.log")), logs.join("twin"));
    let way = Way::draw(&mut world.rng);
    let is_of_dirs = world.rng.u8(..3) == 0;
    let target = match world.rng.u8(..3) {
        0 => own[world.rng.usize(..own.len())].clone(),
        _ => vault.join(&below),
    };
    world.start()?;
    let moment = pick(&mut world.rng, &[Pause::None, Pause::None, Pause::Frozen]);
    let (one, other) = if is_of_dirs {
        let dir = logs.join(format!("flip{number}"));
        world.app.write(&dir.join(&below), b"mine\n");
        (dir, vault)
    } else {
        world.app.write(&name, b"mine\n");
        (name, target)
    };
    world.app.remove(&twin);
    let is_made = world.app.link(&other, &twin, way);
    world.say(format!("flip {} and {} {way:?}: {is_made}", one.display(), other.display()));
    world.tally.add("flips");
    let times = pick(&mut world.rng, &[51, 200, 201]);
    for time in 0..times {
        world.app.exchange(&one, &twin);
        // Each time there is something to look at.
        world.app.write(&logs.join(format!("new{}.log", time % 7)), b"");
        if time % 20 == 7 {
            world.interrupt(moment)?;
        }
        if time % 20 == 9 {
            world.thaw();
        }
        pause(Duration::from_micros(world.rng.u64(..400)));
    }
    world.thaw();
    Ok(())
}

/// Somebody writes checkpoints of his own.
fn forge(world: &mut World) -> Result<(), String> {
    let moment = pick(&mut world.rng, &[Pause::Stopped, Pause::Killed]);
    world.interrupt(moment)?;
    let mut forged = Vec::new();
    for _ in 0..world.rng.usize(1..=3) {
        let (vault, below) = world.some_secret();
        let own = world.ground.own_files();
        let number = world.app.next();
        let led = world.app.logs.join(format!("f{number}"));
        let way = Way::draw(&mut world.rng);
        let resolved = match world.rng.u8(..4) {
            0 => own[world.rng.usize(..own.len())].clone(),
            1 => {
                world.app.link(&vault, &led, way);
                led.join(&below)
            }
            2 => real(&vault.join(&below)),
            _ => vault.join(&below),
        };
        let name = pick(&mut world.rng, &["x.log", "app.log", "x0.log", "x.log.1", "shadow"]);
        let path = match world.rng.u8(..3) {
            0 => resolved.clone(),
            _ => world.app.link.join(name),
        };
        forged.push(Forgery::draw(&mut world.rng, path, resolved));
    }
    for one in &forged {
        world.say(format!("{one:?}"));
    }
    let is_planted = forgery::plant(&world.ground.agent("state"), &forged);
    assert!(is_planted, "nobody uses the state directory");
    world.tally.add("forgeries");
    world.start()
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The app's first link leads to what is the agent's own.
fn first_link(world: &mut World) -> Result<(), String> {
    let moment = pick(&mut world.rng, &[Pause::Stopped, Pause::Killed]);
    world.interrupt(moment)?;
    let own = world.ground.own_dirs();
    let to = own[world.rng.usize(..own.len())].clone();
    let link = world.app.link.clone();
    let way = Way::draw(&mut world.rng);
    world.put_base_back();
    let is_made = world.app.link(&to, &link, way);
    world.say(format!("the first link leads to {} {way:?}: {is_made}", to.display()));
    world.tally.add("first links");
    world.start_as_it_is();
    pause(Duration::from_millis(60));
    if world.ground.setting.roots == Roots::Learnt {
        // What it learns afterwards is to be learnt from the app's own directory.
        world.put_base_back();
    }
    Ok(())
}

/// The base of the patterns is pointed elsewhere.
fn move_base(world: &mut World) -> Result<(), String> {
    if world.rng.bool() {
        world.start()?;
    }
    let (vault, _) = world.some_secret();
    let own = world.ground.own_dirs();
    let to = match world.rng.u8(..4) {
        0 => own[world.rng.usize(..own.len())].clone(),
        1 => world.app.some_dir(&mut world.rng),
        2 => vault.join("sub"),
        _ => vault,
    };
    let way = Way::draw(&mut world.rng);
    let is_link = world.rng.u8(..3) > 0;
    if !world.may_move_base()? {
        return Ok(());
    }
    let at = if is_link { world.app.link.clone() } else { world.app.logs.clone() };
    let aside = at.with_extension("aside");
    world.app.remove(&aside);
    let is_aside = world.app.rename(&at, &aside);
    let is_made = world.app.link(&to, &at, way);
    let (from, to) = (at.display().to_string(), to.display().to_string());
    world.say(format!("lead {from} to {to} {way:?}: {is_aside} {is_made}"));
    world.tally.add("bases moved");
    Ok(())
}

/// A link leads to what the kernel says of the agent.
fn point_at_process(world: &mut World) -> Result<(), String> {
    world.start()?;
    let id = world.agent_id().unwrap_or_default();
    let what = pick(&mut world.rng, &["environ", "fd/2", "fd/5", "fd/8", "root/etc/passwd", "cwd"]);
    let is_self = world.rng.bool();
    let name = pick(&mut world.rng, &LINKS);
    let at = world.app.logs.join(name);
    let who = if is_self { "self".to_owned() } else { id.to_string() };
    let is_made = world.app.link(&Path::new("/proc").join(who).join(what), &at, Way::Absolute);
    let who = if is_self { "self" } else { "PID" };
    world.say(format!("link {} -> /proc/{who}/{what}: {is_made}", at.display()));
    Ok(())
}

/// Somebody who may rotates or writes the secrets.
fn renew_secrets(world: &mut World) -> Result<(), String> {
    let at = world.rng.usize(..world.ground.vaults.len());
    let is_appended = world.rng.u8(..3) == 0;
    let name = pick(&mut world.rng, &secrets::NAMES[2..5]);
    let vault = &mut world.ground.vaults[at];
    let what = if is_appended {
        vault.append(name);
        format!("a line is appended to {name} of {}", vault.kind)
    } else {
        vault.renew();
        format!("the secrets of {} are new", vault.kind)
    };
    world.say(what);
    Ok(())
}

/// One move without a plan.
fn fumble(world: &mut World) -> Result<(), String> {
    let kind = world.rng.u8(..14);
    let (one, other) = (world.app.some_path(&mut world.rng), world.app.some_path(&mut world.rng));
    let (vault, below) = world.some_secret();
    let way = Way::draw(&mut world.rng);
    let len = pick(&mut world.rng, &KNOWN);
    let takes_names_away = matches!(kind, 4..=10);
    let is_base = world.is_base(&one) || world.is_base(&other);
    if takes_names_away && is_base && !world.may_move_base()? {
        return Ok(());
    }
    let name = below.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let app = &mut world.app;
    let (what, is_done) = match kind {
        0 => ("write", app.write(&one, &known(&name)[..len])),
        1 => ("write", app.write(&one, format!("mine {len}\n").as_bytes())),
        2 => ("append to", app.append(&one, b"more of mine\n")),
        3 => ("truncate", app.truncate(&one)),
        4 => ("rename", app.rename(&one, &other)),
        5 => ("exchange", app.exchange(&one, &other)),
        6 => ("remove", app.remove(&one)),
        7 => ("link to a secret", app.link(&vault.join(&below), &one, way)),
        8 => ("link to secrets", app.link(&vault, &one, way)),
        9 => ("link to its own", app.link(&other, &one, way)),
        10 => ("compress", app.compress(&one)),
        11 => ("copytruncate", app.copy_and_truncate(&one)),
        12 => ("make directory", app.make_dir(&one)),
        _ => ("hard link", app.hard_link(&other, &one)),
    };
    let (one, other, vault) = (one.display(), other.display(), vault.display());
    let said = format!("{what} {one} ({other}, {vault}/{}, {way:?}): {is_done}", below.display());
    world.say(said);
    world.tally.add(if is_done { "moves" } else { "moves in vain" });
    Ok(())
}
