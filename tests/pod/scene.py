"""The stage of a scenario: a node, an endpoint, pods of the manifests, and a ledger."""

import re
from collections import Counter

import engine as containers
import kubelet
import manifests
from pods import KEY_ID, KEY_SECRET, SLS_SECRET, Endpoint, Pod, check, compare, load, wait_for, written

KUBERNETES = containers.ROOT / "examples/kubernetes"


class Scenario:
    """One story on a node of its own, with an endpoint of its own."""

    def __init__(self, world, name, port=0):
        self.world, self.engine = world, world.engine
        self.directory = world.work / name
        self.directory.mkdir()
        self.node = kubelet.Node(self.directory / "node")
        (self.directory / "endpoint").mkdir()
        self.endpoint = Endpoint(world.binary, self.directory / "endpoint", world.gateway, port)
        self.loaded = Counter()
        self.agent_logs = []
        self.facts = []

    def pod(self, manifest="pod.yaml", node=None, limits=None, facts=None):
        """The pod of a manifest, not yet created; `facts` are filled into its ConfigMap."""
        documents = manifests.load(KUBERNETES / manifest)
        document = next(one for one in documents if manifests.pod_template(one))
        if not any(one["kind"] == "Secret" for one in documents):
            documents.append(SLS_SECRET)
        for one in documents:
            if one["kind"] == "Secret":
                fill_secret(one)
            if one["kind"] == "ConfigMap" and facts:
                one["data"].update(facts)
        environment = {"LOGFERRY_ENDPOINT": self.endpoint.url}
        playable = kubelet.fill(
            document, documents, node or self.node, pod_name(document), environment, limits
        )
        return Pod(self.engine, node or self.node, playable, self.agent_logs)

    def write_load(self, pod, lines, pause=""):
        """Lines of which no two are the same, written in the app's container; waits for the end.

        `pause`: the writer sleeps so long after each hundred.
        """
        first = self.loaded.total() + 1
        end = first + lines
        slowly = f"; [ $((i % 100)) -ne 0 ] || sleep {pause}" if pause else ""
        script = (
            f"i={first}; while [ $i -lt {end} ]; do echo \"load $i {'x' * 80}\" "
            f">> /share/logs/load.log{slowly}; i=$((i + 1)); done"
        )
        pod.exec("app", "sh", "-c", script)
        self.loaded += load(first, end)

    def ledger(self, pod):
        """Every line that was written below the pod's directory; the load as its writer counts it."""
        found = written(pod)
        on_disk = Counter({key: count for key, count in found.items() if "load.log" in key[0]})
        check(on_disk == self.loaded, "the load is not on the disk as it was written")
        return found

    def settle(self, pod, once=True):
        """The app has ended, and the agent has delivered everything, as it says: is it so? The number
        of lines that arrived again."""
        ledger = self.ledger(pod)
        check(ledger, "nothing was written")
        twice = compare(ledger, self.endpoint.delivered(), once)
        self.say(f"{ledger.total()} lines" + (f", {twice} of them again" if twice else ""))
        return twice

    def delivered_lines(self, least, what="lines arrive"):
        wait_for(what, lambda: self.endpoint.delivered().total() >= least)

    def say(self, fact):
        self.facts.append(fact)

    def close(self):
        self.endpoint.kill()
        self.engine.clean()


def fill_secret(secret):
    """The credentials that the endpoint knows, in whatever form the manifest has them."""
    data = secret["stringData"]
    for key, text in data.items():
        if key == "id":
            data[key] = KEY_ID
        elif key == "secret":
            data[key] = KEY_SECRET
        else:
            text = re.sub(r'("access_key_id":\s*)"[^"]*"', rf'\1"{KEY_ID}"', text)
            data[key] = re.sub(r'("access_key_secret":\s*)"[^"]*"', rf'\1"{KEY_SECRET}"', text)


def pod_name(document):
    """A name as the cluster gives it."""
    name = document["metadata"]["name"]
    return {"Pod": name, "StatefulSet": f"{name}-0"}.get(document["kind"], f"{name}-5fqrl")
