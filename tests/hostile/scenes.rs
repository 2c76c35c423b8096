//! The plans by name, each played for itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::binary;
use crate::play::agent::{Launch, wait_for};
use crate::play::app::Way;
use crate::play::forgery::{self, Forgery};
use crate::play::gambits::lay;
use crate::play::ground::{Roots, Setting};
use crate::play::secrets::{MARKER, Vault};
use crate::play::world::{Pause, World, scene};

/// Says aloud what cannot be checked here. Not eprintln: the test harness would keep it to itself.
fn skipped(why: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "skipped: {why}").expect("standard error");
}

fn with_patterns(patterns: &'static [&'static str]) -> Setting {
    Setting { patterns, ..Setting::plain(Roots::Learnt) }
}

/// A life of the agent in which it looks at everything, and delivers all that it has opened.
fn live(world: &mut World) -> Result<(), String> {
    world.start()?;
    world.write_honestly();
    world.await_honest()?;
    world.interrupt(Pause::Stopped)?;
    world.look()
}

fn vault(world: &World, kind: &str) -> Vault {
    world.ground.vaults.iter().find(|vault| vault.kind == kind).unwrap().clone()
}

/// `x.log -> sub/NAME`, of which the app knows the first bytes, is shipped. While no agent runs, `sub`
/// becomes a link to a mounted Secret.
fn swaps_a_directory(name: &str, bytes: usize, pause: Pause, launch: Launch) {
    scene(Setting::plain(Roots::Learnt), launch, |world| {
        if !world.ground.has_other_disk() {
            skipped("there is no second disk for the Secret");
        }
        let (dir, link) = (world.app.logs.join("sub"), world.app.logs.join("x.log"));
        world.start()?;
        lay(world, &dir, Path::new(name), bytes, Some((&link, Way::Relative)));
        assert!(world.await_delivered(&dir.join(name), bytes as u64), "it is shipped");
        world.interrupt(pause)?;
        let secrets = vault(world, "mounted").dir.join("..data");
        assert!(world.app.remove(&dir));
        assert!(world.app.link(&secrets, &dir, Way::Absolute));

        live(world)
    });
}

#[test]
fn a_directory_that_became_a_link_to_a_secret_while_no_agent_ran() {
    for pause in [Pause::Stopped, Pause::Killed] {
        for (name, bytes) in
            [("credentials.json", 1), ("tls.key", 1), ("tls.key", 300), ("app.log", 1100)]
        {
            swaps_a_directory(name, bytes, pause, binary);
        }
    }
}

/// Whoever can write the state directory can say what he likes of any file.
#[test]
fn forged_checkpoints_lead_to_nothing() {
    for roots in [Roots::Learnt, Roots::App] {
        // What is the agent's own may lie among what is allowed.
        for agent in ["agent", "data/agent"] {
            let setting = Setting { agent, ..Setting::plain(roots) };
            scene(setting, binary, forges);
        }
    }
}

fn forges(world: &mut World) -> Result<(), String> {
    let mut targets: Vec<PathBuf> = ["mounted", "here", "etc"]
        .iter()
        .flat_map(|kind| {
            let place = vault(world, kind).place();
            ["credentials.json", "app.log", "x.log.1"].map(|name| place.join(name))
        })
        .collect();
    targets.extend(world.ground.own_files().into_iter().filter(|file| file.is_file()));
    let mut all = Vec::new();
    for (is_same_device, is_same_inode) in
        [(true, true), (false, true), (false, false), (true, false)]
    {
        for is_done in [false, true] {
            let forge = |(number, target): (usize, &PathBuf)| {
                let resolved = target.canonicalize().unwrap();
                let dir = world.app.link.join(format!("f{number}"));
                let path = dir.join(resolved.file_name().unwrap());
                Forgery {
                    path,
                    resolved,
                    offset: 1,
                    is_same_device,
                    is_same_inode,
                    is_born_known: is_same_device,
                    is_done,
                    is_old: true,
                }
            };
            all.push(targets.iter().enumerate().map(forge).collect::<Vec<_>>());
        }
    }
    for forged in all {
        assert!(forgery::plant(&world.ground.agent("state"), &forged));
        world.say(format!("{forged:?}"));
        live(world)?;
    }
    Ok(())
}

/// The link is first seen when it leads to what the settings name, or to the state.
#[test]
fn the_first_link_leads_to_what_is_the_agents_own() {
    for dir in ["credentials", "credentials/..data", "credentials/..1", "tls", "conf", "state"] {
        scene(with_patterns(&["share/logs/**"]), binary, |world| {
            let to = world.ground.agent(dir);
            points_first(world, &to)
        });
    }
}

/// The same for the one file of a pattern without wildcards.
#[test]
fn the_first_link_is_a_file_of_the_agents_own() {
    for file in
        ["credentials/credentials.json", "credentials/..1/x.log", "tls/client.key", "state/x.log"]
    {
        scene(with_patterns(&["data/app/logs/app.log", "share/logs/*.log"]), binary, |world| {
            let (to, link) = (world.ground.agent(file), world.app.logs.join("app.log"));
            assert!(world.app.link(&to, &link, Way::Absolute));
            live(world)?;
            assert!(world.app.remove(&link));
            Ok(())
        });
    }
}

/// What is refused as the first link teaches nothing of what is around it.
fn points_first(world: &mut World, to: &Path) -> Result<(), String> {
    let link = world.app.link.clone();
    assert!(world.app.link(to, &link, Way::Absolute));
    world.start_as_it_is();
    world.write_honestly();
    world.await_honest()?;
    world.look()?;
    let secret = vault(world, "etc").place().join("x.log");
    world.put_base_back();
    let bait = world.app.logs.join("x.log");
    assert!(world.app.link(&secret, &bait, Way::Absolute));
    world.write_honestly();
    world.await_honest()?;
    world.interrupt(Pause::Stopped)?;
    world.look()
}

/// What an agent of before has shipped is left alone when it is excluded now.
#[test]
fn a_known_file_that_is_excluded_now() {
    scene(Setting::plain(Roots::Learnt), binary, |world| {
        let log = world.app.logs.join("audit/audit.log");
        assert!(world.app.write(&log, b"of no interest\n"));
        world.start()?;
        assert!(world.await_delivered(&log, 15), "it is shipped");
        world.interrupt(Pause::Stopped)?;
        let audit = world.app.link.join("audit/**").display().to_string();
        world.ground.set("LOGFERRY_EXCLUDE", &audit);
        assert!(world.app.append(&log, format!("{MARKER}excluded\n").as_bytes()));

        live(world)
    });
}

/// A link that leads to /home, /var or a disk of its own allows nothing of what others have there.
#[test]
fn two_levels_above_are_not_all_of_home() {
    for dir in ["/home", "/var"] {
        scene(Setting::plain(Roots::Learnt), where_it_is_mounted, |world| {
            let script = format!(
                "mount -t tmpfs none {dir} && mkdir -p {dir}/app/logs {dir}/other/logs && echo \
                 {MARKER}other > {dir}/other/logs/x.log && ln -s {dir}/other/logs/x.log \
                 {dir}/app/logs/x.log && echo it is the apps > {dir}/app/logs/app.log"
            );
            if !mounts(world, &script) {
                return Ok(());
            }
            let link = world.app.link.clone();
            assert!(world.app.link(&Path::new(dir).join("app/logs"), &link, Way::Absolute));
            world.start_as_it_is();
            wait_for("the app's own log", || world.has_arrived("it is the apps"))?;
            live(world)?;
            mounts(world, "true");
            Ok(())
        });
    }
}

/// The agent's own directory is mounted twice, as by a `subPath` of the volume that holds the logs:
/// the settings name it by one path, and the app's links lead there by the other.
#[test]
fn the_agents_own_files_by_another_mount() {
    for file in ["credentials/..1/credentials.json", "tls/client.key", "tls/x.log", "state/x.log"] {
        scene(Setting::plain(Roots::Learnt), where_it_is_mounted, |world| {
            let (own, again) = (world.ground.agent(""), world.ground.path("data/agent"));
            fs::create_dir(&again).unwrap();
            let script = format!("mount --bind {} {}", own.display(), again.display());
            if !mounts(world, &script) {
                return Ok(());
            }
            let link = world.app.logs.join("x.log");
            assert!(world.app.link(&again.join(file), &link, Way::Absolute));

            live(world)
        });
    }
}

/// Where there is no /proc(5), nobody tells where an opened file really is.
#[test]
fn an_agent_without_proc() {
    scene(Setting::plain(Roots::Learnt), where_it_is_mounted, |world| {
        if !mounts(world, "true") {
            return Ok(());
        }
        let (dir, link) = (world.app.logs.join("sub"), world.app.logs.join("x.log"));
        world.start()?;
        lay(world, &dir, Path::new("app.log"), 300, Some((&link, Way::Relative)));
        assert!(world.await_delivered(&dir.join("app.log"), 300), "it is shipped");
        world.interrupt(Pause::Stopped)?;
        let secrets = vault(world, "mounted").dir.join("..data");
        assert!(world.app.remove(&dir));
        assert!(world.app.link(&secrets, &dir, Way::Absolute));
        assert!(mounts(world, "mount -t tmpfs none /proc"));

        live(world)?;
        assert!(mounts(world, "true"));
        Ok(())
    });
}

/// Lets agents that are started from now on see what a script mounts. `false`, said aloud, where
/// nothing can be mounted.
fn mounts(world: &mut World, script: &str) -> bool {
    let trial = Command::new("unshare").args(["-m", "sh", "-c", script]).status();
    let can = trial.is_ok_and(|status| status.success());
    if can {
        world.ground.set("HOSTILE_SCRIPT", &format!("{script} && exec \"$@\""));
    } else {
        skipped("nothing can be mounted here");
    }
    can
}

/// Starts the agent where the script of its environment has mounted something.
fn where_it_is_mounted() -> Command {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", "eval \"$HOSTILE_SCRIPT\"", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_logferry"));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// A directory that `link_roots` lists lies in the app's own one: it is what it was at first sight.
#[test]
fn a_listed_directory_that_the_app_moves() {
    scene(Setting::plain(Roots::Learnt), binary, |world| {
        let logs = world.app.logs.clone();
        world.ground.set("LOGFERRY_LINK_ROOTS", &logs.display().to_string());
        world.start()?;
        assert!(world.may_move_base()?);
        let secrets = vault(world, "etc").dir;
        assert!(world.app.rename(&logs, &logs.with_extension("old")));
        assert!(world.app.link(&secrets, &logs, Way::Absolute));
        live(world)?;
        world.put_base_back();
        Ok(())
    });
}

/// The descriptor of a file that was shipped has become stale, as on a disk of the network, when its
/// directory leads to a secret.
#[test]
fn what_a_stale_descriptor_stood_for_is_not_followed() {
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success())
    {
        return skipped("there is no strace(1) that may trace");
    }
    scene(Setting::plain(Roots::Learnt), binary, |world| {
        let (dir, link) = (world.app.logs.join("sub"), world.app.logs.join("x.log"));
        let name = "app.log";
        let (aside, calls) = (dir.with_extension("old"), world.ground.path("calls"));
        world.start()?;
        lay(world, &dir, Path::new(name), 1, Some((&link, Way::Relative)));
        assert!(world.await_delivered(&dir.join(name), 1), "it is shipped");
        let secrets = vault(world, "mounted").dir.join("..data");
        assert!(world.app.rename(&dir, &aside) && world.app.link(&secrets, &dir, Way::Absolute));
        let mut saboteur = Command::new("strace")
            .args(["-f", "-p", &world.agent_id().unwrap().to_string()])
            .args(["-e", "inject=pread64,fstat,statx,newfstatat:error=ESTALE", "-o"])
            .arg(&calls)
            .arg("-P")
            .arg(aside.join(name))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert!(world.app.append(&aside.join(name), b"more\n"));
        let is_stale = || fs::read_to_string(&calls).unwrap_or_default().contains("(INJECTED)");
        let waited = wait_for("the descriptor to be stale", is_stale);
        world.write_honestly();
        let arrived = world.await_honest();
        let _ = saboteur.kill();
        let _ = saboteur.wait();
        waited.and(arrived)?;
        world.interrupt(Pause::Stopped)?;
        world.look()
    });
}

/// The same plan by the agent as its image runs it: another user, with no rights of its own.
#[test]
fn the_agent_as_its_image_runs_it() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can start an agent as another user");
    }
    scene(Setting::plain(Roots::Learnt), as_the_image_does, |world| {
        let open = format!(
            "chmod 755 {0} {1}/.. && chown -R 65532 {2}",
            world.ground.root.display(),
            world.ground.vaults[0].dir.display(),
            world.ground.agent("").display(),
        );
        assert!(Command::new("sh").args(["-c", &open]).status().unwrap().success());
        let (dir, link) = (world.app.logs.join("sub"), world.app.logs.join("x.log"));
        world.start()?;
        lay(world, &dir, Path::new("credentials.json"), 1, Some((&link, Way::Relative)));
        assert!(world.await_delivered(&dir.join("credentials.json"), 1), "it is shipped");
        world.interrupt(Pause::Stopped)?;
        let secrets = vault(world, "mounted").dir.join("..data");
        assert!(world.app.remove(&dir));
        assert!(world.app.link(&secrets, &dir, Way::Absolute));

        live(world)
    });
}

/// The binary is opened before root is given up: that user need not find it.
fn as_the_image_does() -> Command {
    let script = "exec 3<\"$0\" setpriv --reuid 65532 --regid 65532 --clear-groups \
                  --inh-caps=-all --bounding-set=-all /proc/self/fd/3 \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_logferry")]);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}
