//! N11: names that are not known yet, name servers that fail, addresses that change, and some of
//! several that are dead.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::support::names::{NameServer, Told};
use crate::support::wire::Wire;
use crate::support::{Agent, Pod, wait_for};

const FAILED: &str = "cannot deliver, trying again";

/// A pod whose endpoint has a name, and one port on several addresses.
struct Scene {
    pod: Pod,
    log: PathBuf,
    names: NameServer,
    /// One for each address.
    wires: Vec<Wire>,
}

impl Scene {
    /// `number` is the test's own; so many addresses lead to the endpoint.
    fn new(number: u8, addresses: u8) -> Option<Self> {
        let names = NameServer::start(number, Told::Unknown)?;
        let (mut pod, log) = Pod::with_log();
        let mut wires: Vec<Wire> = Vec::new();
        for host in 1..=addresses {
            let port = wires.first().map_or(0, |first| first.address().port());
            let at = SocketAddr::from((Ipv4Addr::new(127, 54, number, host), port));
            wires.push(Wire::on(at, pod.mock.address()));
        }
        let port = wires[0].address().port();
        pod.set("LOGFERRY_ENDPOINT", &format!("http://sls.test:{port}"));
        Some(Self { pod, log, names, wires })
    }

    fn start(&self) -> Option<Agent> {
        self.pod.start_with_files(&self.names.files())
    }

    /// The name has the addresses of these wires.
    fn point_to(&self, wires: &[usize]) {
        let address = |&wire: &usize| match self.wires[wire].address() {
            SocketAddr::V4(address) => *address.ip(),
            SocketAddr::V6(_) => unreachable!("all are of IPv4"),
        };
        self.names.tell(Told::Addresses(wires.iter().map(address).collect()));
    }

    fn check(&self) -> String {
        let (code, complaint) =
            self.pod.run_with_files(&["check", "--connect"], &self.names.files());
        assert_eq!(code, 78, "{complaint}");
        complaint
    }
}

#[test]
fn n11_a_name_that_is_not_known_yet_keeps_nobody_from_starting() {
    let Some(mut scene) = Scene::new(1, 1) else { return };
    scene.pod.ledger.append(&scene.log, 100);
    let Some(agent) = scene.start() else { return };

    scene.pod.wait_for_log(FAILED, 1);
    let log = scene.pod.agent_log();
    assert!(log.contains("cannot find the address of test-project.sls.test"), "{log}");
    let complaint = scene.check();
    assert!(complaint.contains("name not found: cannot find the address"), "{complaint}");
    assert!(complaint.contains("check LOGFERRY_ENDPOINT"), "{complaint}");
    scene.point_to(&[0]);

    assert_eq!(scene.pod.finish(agent), 0);
}

#[test]
fn n11_a_name_server_that_fails_for_a_while_is_asked_again() {
    for told in [Told::Failure, Told::Nothing] {
        let Some(mut scene) = Scene::new(2, 1) else { return };
        scene.names.tell(told.clone());
        scene.pod.ledger.append(&scene.log, 100);
        let Some(agent) = scene.start() else { return };

        scene.pod.wait_for_log(FAILED, 1);
        let asked = scene.names.asked();
        assert!(asked > 0);
        if told == Told::Failure {
            let complaint = scene.check();
            assert!(complaint.contains("the name service does not answer"), "{complaint}");
            assert!(complaint.contains("/etc/resolv.conf"), "{complaint}");
        }
        scene.point_to(&[0]);

        assert_eq!(scene.pod.finish(agent), 0, "{told:?}");
        assert!(scene.names.asked() > asked);
    }
}

/// A connection that works stays; when it breaks, the next one goes where the name leads by then.
#[test]
fn n11_a_name_that_moves_is_followed_when_the_old_address_fails() {
    let Some(mut scene) = Scene::new(3, 2) else { return };
    scene.point_to(&[0]);
    scene.pod.ledger.append(&scene.log, 100);
    let Some(agent) = scene.start() else { return };
    scene.pod.expect_all();
    assert_eq!((scene.wires[0].accepted(), scene.wires[1].accepted()), (1, 0));

    scene.point_to(&[1]);
    scene.pod.ledger.append(&scene.log, 100);
    scene.pod.expect_all();
    assert_eq!((scene.wires[0].accepted(), scene.wires[1].accepted()), (1, 0), "no need to move");
    scene.wires[0].down();
    scene.pod.ledger.append(&scene.log, 100);

    scene.pod.expect_all();
    assert!(scene.wires[1].accepted() > 0);
    scene.pod.finish(agent);
}

/// The second refuses; the first and the third lose every packet.
#[test]
fn n11_one_good_address_of_four_is_enough() {
    let Some(mut scene) = Scene::new(4, 4) else { return };
    scene.wires[0].lose_packets(true);
    scene.wires[1].down();
    scene.wires[2].lose_packets(true);
    scene.point_to(&[0, 1, 2, 3]);
    scene.pod.ledger.append(&scene.log, 100);
    let Some(agent) = scene.start() else { return };

    scene.pod.expect_all();

    assert_eq!(scene.pod.finish(agent), 0);
    assert!(!scene.pod.agent_log().contains(FAILED), "{}", scene.pod.agent_log());
}

/// The resolver names it first each time; it takes connections, and never answers.
#[test]
fn n11_an_address_that_takes_everything_and_answers_nothing_is_not_tried_for_ever() {
    let Some(mut scene) = Scene::new(5, 2) else { return };
    scene.wires[0].half_open();
    scene.point_to(&[0, 1]);
    scene.pod.ledger.append(&scene.log, 100);
    let Some(agent) = scene.start() else { return };

    scene.pod.expect_all();

    wait_for("the acknowledgement", || scene.wires[1].open() > 0);
    assert_eq!(scene.pod.finish(agent), 0);
}

/// Whoever shares the limit has used it up by the time the first name must be found.
#[test]
fn p13_a_limit_of_processes_that_is_used_up_keeps_no_name_from_being_found() {
    let Some(mut scene) = Scene::new(6, 1) else { return };
    scene.point_to(&[0]);
    let Some(agent) = scene.pod.start_with_threads(16, &scene.names.files()) else { return };
    wait_for("its threads", || agent.threads() == ["collect", "log", "names"]);

    agent.limit("--nproc=1:1000");
    for _ in 0..3 {
        scene.pod.ledger.append(&scene.log, 100);
        scene.pod.expect_all();
        scene.wires[0].cut();
    }

    assert_eq!(scene.pod.finish(agent), 0);
    assert!(!scene.pod.agent_log().contains("the system refuses"), "{}", scene.pod.agent_log());
}

/// No thread can be had at the start, then one, then as many as it wants.
#[test]
fn p13_threads_that_the_system_refuses_are_asked_for_again() {
    let Some(mut scene) = Scene::new(7, 1) else { return };
    scene.point_to(&[0]);
    scene.pod.ledger.append(&scene.log, 100);
    let Some(agent) = scene.pod.start_with_threads(1, &scene.names.files()) else { return };
    scene.pod.wait_for_log("the system refuses a thread, so nothing is shipped yet", 1);
    assert_eq!(agent.threads(), [""; 0]);

    agent.limit("--nproc=2:1000");
    scene.pod.wait_for_log(FAILED, 1);
    let log = scene.pod.agent_log();
    assert!(log.contains("cannot find the address of"), "{log}");
    assert!(log.contains(": the system refuses a thread: Resource temporarily"), "{log}");
    assert_eq!(agent.threads(), ["collect"]);

    agent.limit("--nproc=16:1000");
    assert_eq!(scene.pod.finish(agent), 0);
}

/// It is told to stop while it waits for a thread.
#[test]
fn p13_without_a_thread_it_stops_and_says_what_is_left() {
    let Some(mut scene) = Scene::new(8, 1) else { return };
    scene.point_to(&[0]);
    scene.pod.ledger.append(&scene.log, 100);
    let Some(agent) = scene.pod.start_with_threads(1, &scene.names.files()) else { return };
    scene.pod.wait_for_log("the system refuses a thread", 1);

    assert_eq!(agent.stop().0, 75, "{}", scene.pod.agent_log());

    assert!(scene.pod.agent_log().contains("stopped before the system gave a thread"));
    let agent = scene.start().expect("as before");
    assert_eq!(scene.pod.finish(agent), 0);
}
