"""The scenarios: what befalls a pod, played with real containers from the manifests.

Usage: play.py [NAME...]           NAME: only these
       play.py --try MANIFEST      one pod, to look at
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import engine as containers
import kubelet
from pods import Wrong, check, compare, wait_for, written
from scene import KUBERNETES as EXAMPLES
from scene import Scenario

IMAGE_BYTES_MAX = 10_000_000
# Where the endpoint of `try` listens, as README has it.
TRY_PORT = 9200
# The uid and gid of the image.
NOBODY = 65532


def first_start_with_the_agent_before_the_app(scene):
    """The agent is there first: no link, no directory; it is ready all the same, and ships."""
    pod = scene.pod()
    pod.create()
    pod.start("logferry")
    pod.ready()
    check(pod.get("/live")[0] == 200, "an agent that is ready is not alive")
    check(not scene.node.path(f"/data/{pod.name}/logs").exists(), "the app was there first")
    pod.start("app")
    scene.delivered_lines(3)
    tags_are_right(scene, pod)
    mounts_are_read_only(pod)
    scene.say("both mounts read-only")
    codes = pod.delete()
    check(codes == {"app": 0, "logferry": 0}, f"exit codes {codes}")
    scene.settle(pod)


def tags_are_right(scene, pod):
    """The names of node and pod are on every group."""
    facts = scene.node.facts(pod.name)
    expected = {
        "_node_name_": facts["spec.nodeName"],
        "_node_ip_": facts["status.hostIP"],
        "_pod_name_": pod.name,
        "_pod_namespace_": facts["metadata.namespace"],
        "__path__": "/share/logs/app.log",
    }
    for group in scene.endpoint.groups():
        tags = dict(group["tags"])
        found = {key: tags.get(key) for key in expected}
        check(found == expected, f"tags {found}, not {expected}")


def mount_options(pid):
    """The options of each mount that a process sees, by its path."""
    found = {}
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        fields = line.split()
        found[fields[4]] = fields[5].split(",")
    return found


def mounts_are_read_only(pod):
    """The agent can write its state and nothing else."""
    options = mount_options(pod.pid(pod.playable.agent))
    for path in ("/", "/data", "/share"):
        check("ro" in options[path], f"{path} is mounted {','.join(options[path])}")
    check("rw" in options["/var/lib/logferry"], "the state directory cannot be written")


def app_is_killed_and_restarted_twice(scene):
    """The article's crash: the app dies, finds its directory, takes a new one, moves the link."""
    pod = scene.pod().run()
    pod.ready()
    scene.delivered_lines(2)
    for _ in range(2):
        crash_app(pod)
    scene.delivered_lines(6)
    codes = pod.delete()
    check(codes == {"app": 0, "logferry": 0}, f"exit codes {codes}")
    scene.settle(pod)


def crash_app(pod):
    """The app dies by SIGKILL and is started again. It has written two lines then, a second apart, so
    that its next directory has another second in its name."""

    def logs():
        return list((pod.playable.data / pod.name).glob("logs*/app.log"))

    before = len(logs())
    pod.kill("app")
    wait_for("a new directory", lambda: len(logs()) == before + 1)
    wait_for("two lines", lambda: all(log.read_text().count("\n") >= 2 for log in logs()))


def agent_is_killed_under_load(scene):
    """SIGKILL while lines are written: what was in flight comes again, nothing is missing."""
    pod = scene.pod().run()
    pod.ready()
    writer = threading.Thread(target=scene.write_load, args=(pod, 60_000, "0.02"))
    writer.start()
    kills = 0
    while writer.is_alive() or not kills:
        pod.kill("logferry")
        pod.ready()
        kills += 1
    writer.join()
    codes = pod.delete()
    check(codes == {"app": 0, "logferry": 0}, f"exit codes {codes}")
    scene.settle(pod, once=False)
    scene.say(f"{kills} kills")


def pod_is_made_again_under_the_same_name(scene):
    """Deleted and created: the next pod goes on where the one before ended."""
    for life in range(1, 4):
        pod = scene.pod().run()
        scene.write_load(pod, 1_000) if life == 2 else None
        scene.delivered_lines(scene.endpoint.delivered().total() + 2)
        codes = pod.delete()
        check(codes == {"app": 0, "logferry": 0}, f"exit codes {codes}")
    scene.settle(pod)


def pod_is_deleted_while_the_endpoint_is_down(scene):
    """The rest of a dead pod is shipped by the next one that owns its directory."""
    pod = scene.pod().run()
    scene.delivered_lines(2)
    scene.endpoint.kill()
    before = scene.endpoint.delivered().total()
    scene.write_load(pod, 5_000)
    codes = pod.delete()
    check(codes["logferry"] == 75, f"exit codes {codes}")
    check(scene.ledger(pod).total() >= before + 5_000, "the rest is not on the disk")
    scene.endpoint.start()
    pod = scene.pod().run()
    scene.delivered_lines(before + 5_000)
    codes = pod.delete()
    check(codes == {"app": 0, "logferry": 0}, f"exit codes {codes}")
    # What was in flight when the endpoint died may have been stored: at least once.
    scene.settle(pod, once=False)


def data_moves_to_another_disk(scene):
    """The node is lost, its disk copied: other device, other inodes; nothing lost, and twice only what
    stands in a log of fewer than 1,024 bytes, which nothing proves to be the same."""
    pod = scene.pod().run()
    scene.write_load(pod, 2_000)
    scene.delivered_lines(2_002)
    codes = pod.delete()
    check(codes["logferry"] == 0, f"exit codes {codes}")
    with other_disk(scene.directory / "disk") as disk:
        subprocess.run(["cp", "-a", scene.node.path("/data"), disk], check=True)
        (disk / "var/lib").mkdir(parents=True)
        state = scene.node.path("/var/lib/logferry")
        subprocess.run(["cp", "-a", state, disk / "var/lib"], check=True)
        old, new = (os.stat(path / f"{pod.name}/logs/app.log")
                    for path in (scene.node.path("/data"), disk / "data"))
        check(old.st_dev != new.st_dev, "the copy is on the same device")
        node = kubelet.Node(disk, name="node-2", address="192.0.2.11")
        pod = scene.pod(node=node).run()
        scene.delivered_lines(scene.ledger(pod).total() + 2)
        codes = pod.delete()
        check(codes == {"app": 0, "logferry": 0}, f"exit codes {codes}")
        twice = scene.settle(pod, once=False)
        check(new.st_size < 256 and twice == 2, f"{twice} lines arrived again")


@contextlib.contextmanager
def other_disk(path):
    """A file system of its own in memory."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def user_65532_with_a_read_only_root(scene):
    """Nobody, without a capability, ships from a directory of the node's disk."""
    pod = scene.pod("pod-native-sidecar.yaml").run()
    status = Path(f"/proc/{pod.pid(pod.playable.agent)}/status").read_text()
    facts = dict(line.split(":", 1) for line in status.splitlines())
    check(facts["Uid"].split() == [str(NOBODY)] * 4, f"uid {facts['Uid']}")
    check(facts["Gid"].split() == [str(NOBODY)] * 4, f"gid {facts['Gid']}")
    for key in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        check(int(facts[key], 16) == 0, f"{key} {facts[key]}")
    check(facts["NoNewPrivs"].strip() == "1", "it may gain privileges")
    mounts_are_read_only(pod)
    scene.delivered_lines(3)
    state = scene.node.path(f"/var/lib/logferry/{pod.name}").stat()
    check(state.st_uid == NOBODY, "the state is somebody else's")
    check(state.st_mode & 0o777 == 0o700, f"the state is open to others: {state.st_mode:o}")
    codes = pod.delete()
    check(codes["logferry"] == 0, f"exit codes {codes}")
    scene.settle(pod)


def limits_of_64_mib_and_a_tenth_of_a_core(scene):
    """The container's limits count, not the environment's 1024 MB and 2.0 cores."""
    pod = scene.pod(limits={"memory": "64Mi", "cpu": "100m"}).run()
    pod.ready()
    effective = pod.exec("logferry", "/logferry", "check")
    for key, value in (("cpu_usage_limit", "0.1"), ("mem_usage_limit", "64")):
        line = next(line for line in effective.splitlines() if key in line)
        check(re.search(rf"\b{re.escape(value)}\b", line), f"not {value}: {line}")
    lines = 300_000
    scene.write_load(pod, lines)
    scene.delivered_lines(lines)
    status = Path(f"/proc/{pod.pid('logferry')}/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024
    check(peak <= 64 << 20, f"{peak} bytes resident")
    state = pod.inspect("logferry")
    check(state["RestartCount"] == 0 and not state["State"]["OOMKilled"], "it was killed")
    scene.say(f"at most {peak / (1 << 20):.1f} MiB resident")
    codes = pod.delete()
    check(codes["logferry"] == 0, f"exit codes {codes}")
    scene.settle(pod)


def plays(manifest):
    """A scenario: the pod of this manifest starts, ships, ends."""

    def scenario(scene):
        pod = scene.pod(manifest).run()
        scene.delivered_lines(3)
        mounts_are_read_only(pod)
        codes = pod.delete()
        check(set(codes.values()) == {0}, f"exit codes {codes}")
        scene.settle(pod)

    return scenario


def a_job_ends_by_itself(scene):
    """The app is done, and so is the agent, as soon as everything is delivered."""
    pod = scene.pod("job.yaml").run()
    names = pod.playable.others
    wait_for(
        "both containers end",
        lambda: all(not pod.inspect(name)["State"]["Running"] for name in names),
    )
    codes = pod.delete()
    check(set(codes.values()) == {0}, f"exit codes {codes}")
    check(scene.ledger(pod).total() == 1_000, "the job's lines are not on the disk")
    scene.settle(pod)


def a_dead_pods_leftovers_are_shipped(scene):
    """A pod of a Deployment comes back under another name: a job ships what it has left."""
    pod = scene.pod("deployment.yaml").run()
    scene.delivered_lines(2)
    scene.endpoint.kill()
    scene.write_load(pod, 3_000)
    codes = pod.delete()
    check(codes["logferry"] == 75, f"exit codes {codes}")
    scene.endpoint.start()
    job = scene.pod("leftovers.yaml", facts={"_pod_name_": pod.name}).run()
    agent = job.playable.agent
    wait_for("the job ends", lambda: not job.inspect(agent)["State"]["Running"])
    codes = job.delete()
    check(codes[agent] == 0, f"exit codes {codes}")
    scene.settle(pod, once=False)


def leftovers_that_no_agent_saw_are_shipped(scene):
    """The agent has ended, the app goes on and restarts twice: the rest of a directory that the agent
    knew, one in between that it never saw, and the newest."""
    pod = scene.pod("deployment.yaml").run()
    scene.delivered_lines(2)
    scene.engine.podman("stop", "-t", pod.playable.grace, pod.full("logferry"))
    for _ in range(2):
        crash_app(pod)
    pod.delete()
    before = scene.endpoint.delivered().total()
    check(written(pod).total() > before, "nothing was left")
    job = scene.pod("leftovers.yaml", facts={"_pod_name_": pod.name}).run()
    agent = job.playable.agent
    wait_for("the job ends", lambda: not job.inspect(agent)["State"]["Running"])
    codes = job.delete()
    check(codes[agent] == 0, f"exit codes {codes}")
    directories = (pod.playable.data / pod.name).glob("logs*")
    _, between, _ = sorted(directory.name for directory in directories)
    ledger = written(pod, {between: f"/share/older/{between}"})
    compare(ledger, scene.endpoint.delivered())
    scene.say(f"{ledger.total()} lines, {before} of them by the pod itself")


def image_is_one_static_binary(world):
    """What the image is made of: size, user, labels, files."""
    engine = world.engine
    image = engine.inspect(containers.AGENT_IMAGE)
    check(image["Size"] <= IMAGE_BYTES_MAX, f"{image['Size']} bytes")
    config = image["Config"]
    check(config["User"] == f"{NOBODY}:{NOBODY}", f"user {config['User']}")
    check(config["Entrypoint"] == ["/logferry"], f"entry point {config['Entrypoint']}")
    labels = config["Labels"]
    check(labels["org.opencontainers.image.revision"] == world.revision, f"labels {labels}")
    said = engine.podman("run", "--rm", "--read-only", containers.AGENT_IMAGE, "version")
    check(world.revision[:7] in said, f"version says {said}")
    version = labels["org.opencontainers.image.version"]
    check(version in said, f"labelled {version}, says {said}")
    engine.podman("export", world.container, "-o", world.work / "image.tar")
    listed = containers.run("tar", "tvf", world.work / "image.tar")
    files = [line.split()[-1] for line in listed.splitlines() if line.startswith("-")]
    # podman's own, for the container.
    own = {"etc/hosts", "etc/hostname", "etc/resolv.conf", "run/.containerenv"}
    check(set(files) - own == {"logferry"}, f"files {files}")
    state = next(line for line in listed.splitlines() if line.endswith("var/lib/logferry/"))
    check(state.startswith("drwx------"), f"state directory {state}")
    interpreter = containers.run("readelf", "-lW", world.binary)
    check("INTERP" not in interpreter, "the binary is not static")
    return f"{image['Size']:,} bytes"


def image_finds_names(world):
    """A name that only the network's name server knows."""
    engine, network = world.engine, world.engine.network
    start = f"run -d --rm --name {network}-endpoint --network {network} --network-alias"
    serve = f"my-project.sls.test {containers.AGENT_IMAGE} mock --listen 0.0.0.0:9200"
    engine.podman(*start.split(), *serve.split())

    def check_connect(name):
        env = {
            "LOGFERRY_ENDPOINT": f"http://{name}:9200",
            "LOGFERRY_PROJECT": "my-project",
            "LOGFERRY_LOGSTORE": "app-log",
            "ALIBABA_CLOUD_ACCESS_KEY_ID": "id",
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "secret",
        }
        words = [word for key, value in env.items() for word in ("-e", f"{key}={value}")]
        command = (containers.AGENT_IMAGE, "check", "--connect")
        return engine.podman("run", "--rm", "--network", network, *words, *command)

    try:
        check("it takes logs" in check_connect("sls.test"), "a name was not found")
        # And a name that nobody knows is told as what it is.
        try:
            check_connect("nobody.test")
            raise Wrong("a name that nobody knows was found")
        except containers.Failed as error:
            check("my-project.nobody.test" in str(error), str(error))
        return "by the network's name server"
    finally:
        engine.podman("rm", "-f", "-t", "0", f"{network}-endpoint")


IMAGE = {"image": image_is_one_static_binary, "names": image_finds_names}
SCENARIOS = {
    "first-start": first_start_with_the_agent_before_the_app,
    "app-killed": app_is_killed_and_restarted_twice,
    "agent-killed": agent_is_killed_under_load,
    "pod-again": pod_is_made_again_under_the_same_name,
    "endpoint-down": pod_is_deleted_while_the_endpoint_is_down,
    "other-disk": data_moves_to_another_disk,
    "user-65532": user_65532_with_a_read_only_root,
    "limits": limits_of_64_mib_and_a_tenth_of_a_core,
    "deployment": plays("deployment.yaml"),
    "statefulset": plays("statefulset.yaml"),
    "cloud-disk": plays("pod-cloud-disk.yaml"),
    "job": a_job_ends_by_itself,
    "leftovers": a_dead_pods_leftovers_are_shipped,
    "leftovers-unseen": leftovers_that_no_agent_saw_are_shipped,
}


class World:
    """What all scenarios share: the images, the network, the binary that is in the image."""

    def __init__(self, work):
        self.work = work
        self.engine = containers.Engine(work)
        self.revision = self.engine.build_images()
        self.container = f"{self.engine.network}-image"
        self.binary = work / "logferry"
        try:
            self.engine.podman("create", "--name", self.container, containers.AGENT_IMAGE)
            self.engine.podman("cp", f"{self.container}:/logferry", self.binary)
            self.gateway = self.engine.make_network()
        except BaseException:
            self.close()
            raise

    def close(self):
        """Leaves nothing behind, whatever of it was made."""
        for words in (("rm", "-f"), ("network", "rm", "-f")):
            name = self.container if words[0] == "rm" else self.engine.network
            with contextlib.suppress(containers.Failed):
                self.engine.podman(*words, name)


def main(names):
    # By a signal everything ends as it does by Ctrl-C.
    # A shell that starts this in the background has Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        return play(Path(work), names)


def play(work, names):
    known = list(IMAGE | SCENARIOS)
    manifest = names[1] if names[:1] == ["--try"] else None
    if not manifest and (unknown := set(names) - set(known)):
        print(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 64
    if manifest and (reason := obstacle(manifest)):
        print(f"tests/pod/try: {reason}", file=sys.stderr)
        return 64
    try:
        world = World(work)
    except containers.Failed as error:
        print(f"tests/pod: the images cannot be made: {error}", file=sys.stderr)
        return 1
    except containers.Skipped as reason:
        print(f"tests/pod: skipped, nothing was played: {reason}", file=sys.stderr)
        print(f"0 passed, 0 failed, {len(names or known)} skipped")
        return 0
    passed = failed = 0
    try:
        if manifest:
            look_at(world, manifest)
            return 0
        for name in names or known:
            begun = time.monotonic()
            try:
                said = IMAGE[name](world) if name in IMAGE else story(world, name)
                print(f"ok      {name}: {said} ({time.monotonic() - begun:.0f} s)", flush=True)
                passed += 1
            except Exception:
                print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
                failed += 1
    finally:
        world.close()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def obstacle(manifest):
    """What would be in the way after minutes of building, or None."""
    if not (EXAMPLES / manifest).is_file():
        known = ", ".join(sorted(path.name for path in EXAMPLES.glob("*.yaml")))
        return f"there is no manifest {manifest}; there are {known}"
    with socket.socket() as port:
        # As the endpoint will bind it.
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            port.bind(("", TRY_PORT))
        except OSError as error:
            return (f"port {TRY_PORT}, where the endpoint shows what arrives, cannot be had: "
                    f"{error.strerror}; end what listens there (`logferry mock`?) and try again")
    return None


def story(world, name):
    scene = Scenario(world, name)
    try:
        SCENARIOS[name](scene)
        return ", ".join(scene.facts)
    except Exception:
        for pod in sorted(scene.engine.played):
            print(f"-- log of {pod}\n{last_words(scene.engine, pod)}", flush=True)
        if scene.agent_logs:
            print(f"-- log of the agent\n{scene.agent_logs[-1][-4000:]}", flush=True)
        raise
    finally:
        scene.close()


def look_at(world, manifest):
    """Plays one pod until Ctrl-C, then deletes it."""
    scene = Scenario(world, "try", port=TRY_PORT)
    try:
        pod = scene.pod(manifest).run()
        agent = pod.full(pod.playable.agent)
        configuration = scene.engine.env.get("CONTAINERS_CONF")
        podman = f"CONTAINERS_CONF={configuration} podman" if configuration else "podman"
        print(
            f"The pod {pod.name} runs; http://127.0.0.1:{TRY_PORT}/ shows its lines.\n"
            f"  {podman} exec {agent} /logferry status\n"
            f"  {podman} logs {agent}\n"
            "Ctrl-C deletes it.",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        print("deleting the pod", flush=True)
        codes = pod.delete()
        scene.settle(pod)
        print(f"exit codes {codes}; all {scene.facts[0]} were delivered")
    finally:
        scene.close()


def last_words(engine, pod):
    done = subprocess.run(["podman", "pod", "logs", pod], env=engine.env, check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout[-4000:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
