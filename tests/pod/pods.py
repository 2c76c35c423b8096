"""A scenario's parts: the endpoint on the host, a pod that runs, and what was written and delivered."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

DEADLINE = 120
PROJECT, LOGSTORE = "my-project", "app-log"
KEY_ID, KEY_SECRET = "test-access-key-id", "test-access-key-secret"
# `kubectl create secret generic sls`, as the manifests ask for it.
SLS_SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "sls"},
    "stringData": {"id": KEY_ID, "secret": KEY_SECRET},
}


class Wrong(AssertionError):
    """A promise that does not hold."""


def check(holds, what):
    """Fails the scenario unless `holds`."""
    if not holds:
        raise Wrong(what)


def wait_for(what, condition, deadline=DEADLINE):
    """The first true answer of `condition`."""
    end = time.monotonic() + deadline
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Wrong(f"after {deadline} s still not: {what}")
        time.sleep(0.1)


def works_for(container):
    """Whether a process on this machine has this container's identity among its arguments."""

    def arguments(process):
        # It may have ended since it was listed.
        with contextlib.suppress(OSError):
            return process.read_bytes()
        return b""

    return any(container.encode() in arguments(one) for one in Path("/proc").glob("[0-9]*/cmdline"))


class Endpoint:
    """`logferry mock` on the host, the only place that pods send to."""

    def __init__(self, binary, directory, gateway, port=0):
        self.binary, self.directory = binary, directory
        with socket.socket() as free:
            # As the endpoint will bind it.
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("", port))
            self.port = free.getsockname()[1]
        self.url = f"http://{gateway}:{self.port}"
        self.process = None
        self.position, self.accepted = 0, []
        self.start()

    def start(self):
        """Starts it, and waits until it listens; leaves no process behind if it does not."""
        self.process = subprocess.Popen(
            [
                self.binary, "mock", "--listen", f"0.0.0.0:{self.port}", "--dir", self.directory,
                "--access-key", f"{KEY_ID}:{KEY_SECRET}",
                "--project", PROJECT, "--logstore", LOGSTORE,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            # Ctrl-C is not for it: the agent still has something to deliver.
            start_new_session=True,
        )
        try:
            wait_for("the endpoint listens", self._listens)
        except BaseException:
            self.kill()
            raise

    def _listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def kill(self):
        """It is gone; connections are refused."""
        self.process.kill()
        self.process.wait()

    def groups(self):
        """All LogGroups that were accepted, in the order of their arrival."""
        journal = self.directory / "groups.jsonl"
        if journal.exists():
            with journal.open("rb") as file:
                file.seek(self.position)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self.accepted.append(json.loads(line))
                    self.position += len(line)
        return self.accepted

    def delivered(self):
        """How often each (path, line) has arrived."""
        found = Counter()
        for group in self.groups():
            path = dict(group["tags"])["__path__"]
            for log in group["logs"]:
                (key, line), = log["contents"]
                check(key == "content", f"a line has the key {key}")
                found[path, line] += 1
        return found


class Pod:
    """A pod that podman runs in the place of the kubelet."""

    def __init__(self, engine, node, playable, agent_logs):
        self.engine, self.node, self.playable = engine, node, playable
        self.agent_logs = agent_logs
        self.name = playable.name

    def create(self):
        """What the kubelet does before the first container starts."""
        for first in self.playable.first:
            name = self._play(first, start=True)
            container = f"{name}-{first['spec']['containers'][0]['name']}"
            code = int(self.engine.podman("wait", container).strip())
            check(code == 0, f"{container} ended with {code}: {self.log_of(container)}")
            self.engine.podman("pod", "rm", "-f", name)
            self.engine.played.discard(name)
        self._play(self.playable.pod, start=False)
        # The address of a pod is known before its containers are.
        self.engine.podman("start", self.engine.inspect_pod(self.name)["InfraContainerID"])

    def _play(self, pod, start):
        name = pod["metadata"]["name"]
        # Somebody's own: at the end it would be removed.
        check(not self.engine.exists("pod", name), f"podman has a pod {name} already")
        self.playable.make_parts(pod)
        manifest = self.engine.work / f"{name}.json"
        manifest.write_text(json.dumps(pod, indent=1))
        self.engine.played.add(name)
        network = f"--network={self.engine.network}"
        self.engine.podman("kube", "play", network, f"--start={str(start).lower()}", manifest)
        return name

    def start(self, container):
        self.engine.podman("start", self.full(container))

    def run(self):
        """All of it, in the kubelet's order: sidecars are ready before the others start."""
        self.create()
        for container in self.playable.sidecars:
            self.start(container)
            self.ready()
        for container in self.playable.others:
            self.start(container)
        return self

    def full(self, container):
        return f"{self.name}-{container}"

    def inspect(self, container):
        return self.engine.inspect(self.full(container))

    def log(self, container):
        return self.log_of(self.full(container))

    def log_of(self, container):
        done = subprocess.run(
            ["podman", "logs", container], env=self.engine.env, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        return done.stdout

    def pid(self, container):
        return self.inspect(container)["State"]["Pid"]

    def exec(self, container, *command, **options):
        return self.engine.podman("exec", self.full(container), *command, **options)

    def address(self):
        infra = self.engine.inspect_pod(self.name)["InfraContainerID"]
        networks = self.engine.inspect(infra)["NetworkSettings"]["Networks"]
        return next(iter(networks.values()))["IPAddress"]

    def get(self, path):
        """(status, body) of the agent's admin port; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.address()}:9465{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def ready(self):
        """Waits as a start-up probe does."""
        wait_for(f"{self.name} is ready", lambda: self.get("/ready")[0] == 200)

    def kill(self, container):
        """The container's process dies by SIGKILL, and the engine starts it again by itself."""
        before = self.inspect(container)
        os.kill(before["State"]["Pid"], signal.SIGKILL)

        def is_back():
            now = self.inspect(container)["State"]
            return now["Running"] and now["Pid"] not in (0, before["State"]["Pid"])

        wait_for(f"{container} runs again", is_back)

    def delete(self):
        """As `kubectl delete pod`: SIGTERM, the grace period, the agent last. Gives the exit codes.

        The kubelet signals containers that are no sidecars at the same time. podman takes one that is
        stopping for one that has ended; then it stops the whole pod within 10 seconds, whatever
        grace the others were given. So nobody is left who may think so when the agent is stopped.
        """
        names = self.playable.others + list(reversed(self.playable.sidecars))
        for name in sorted(names, key=lambda name: name == self.playable.agent):
            identity = self.inspect(name)["Id"]
            self.engine.podman("stop", "-t", self.playable.grace, self.full(name))
            wait_for(f"podman has cleaned up {name}", lambda: not works_for(identity))
        codes = {name: self.inspect(name)["State"]["ExitCode"] for name in names}
        self.agent_logs.append(self.log(self.playable.agent))
        self.remove()
        return codes

    def remove(self):
        """What is left of it on the node, but for its volumes of the node's disk."""
        self.engine.podman("pod", "rm", "-f", "-t", "0", self.name)
        self.engine.played.discard(self.name)
        shutil.rmtree(self.node.path(f"/var/lib/kubelet/pods/{self.name}"), ignore_errors=True)


def written(pod, places=None):
    """How often each line stands in the logs of a pod: the app appends, nothing is ever removed.

    `places` names directories that the agent finds elsewhere than at the link.
    """
    found = Counter()
    for file in (pod.playable.data / pod.name).glob("logs*/*.log"):
        path = f"{(places or {}).get(file.parent.name, '/share/logs')}/{file.name}"
        for line in file.read_text().splitlines():
            found[path, line] += 1
    return found


def load(first, last):
    """What `Scenario.write_load` writes: lines of which no two are the same."""
    return Counter({("/share/logs/load.log", f"load {n} {'x' * 80}"): 1 for n in range(first, last)})


def compare(ledger, delivered, once=True):
    """Every line that was written has arrived, and no other; `once`: none twice."""
    missing = ledger - delivered
    check(not missing, f"{missing.total()} of {ledger.total()} lines are missing: {some(missing)}")
    foreign = set(delivered) - set(ledger)
    check(not foreign, f"{len(foreign)} lines arrived that nobody wrote: {some(foreign)}")
    twice = delivered - ledger
    check(not once or not twice, f"{twice.total()} lines arrived again: {some(twice)}")
    return twice.total()


def some(lines):
    return ", ".join(repr(line) for line in sorted(lines)[:3])
