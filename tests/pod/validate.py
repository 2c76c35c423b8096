"""The manifests of examples/kubernetes: valid in each version of Kubernetes, and right beside that.

First each kind of mistake is made in a copy of a manifest and must be found; then the manifests
themselves are looked at. Usage: validate.py LOGFERRY KUBECTL, where an empty KUBECTL leaves the
kustomize base and overlays out.
"""

import copy
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate

from manifests import containers, entries, environment, expand, is_agent, load, pod_template
from manifests import references

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples/kubernetes"
KUSTOMIZATION = "kustomization.yaml"
OVERLAYS = ["kustomize/base"] + [f"kustomize/overlays/{one}" for one in ("staging", "production", "local")]
VERSIONS = ["1.27", "1.29", "1.31", ".".join(kubernetes_validate.latest_version().split(".")[:2])]
# Sidecars among the init containers are on by default from this one on.
SIDECARS_SINCE = "1.29"

# What the reader makes by hand, and its keys.
OUTSIDE = [
    {
        "kind": "Secret",
        "metadata": {"name": "sls"},
        "stringData": {"id": "LTAI0000000000000000", "secret": "not-a-secret"},
    }
]
FACTS = {
    "metadata.name": "app-1",
    "metadata.namespace": "default",
    "spec.nodeName": "node-1",
    "status.hostIP": "192.0.2.10",
    "status.podIP": "192.0.2.77",
}

LOOPBACK = ("127.", "[::1]", "localhost")


# What a schema sees.


def schema_mistakes(documents, version):
    """What the published schemas of this version say, unknown fields included."""
    found = []
    for document in documents:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(part) for part in error.path)
            found.append(f"{document['kind']}: {where}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(error.message)
    return found


def needs_sidecars(documents):
    templates = [template[1] for template in map(pod_template, documents) if template]
    inits = [init for spec in templates for init in spec.get("initContainers", [])]
    return any("restartPolicy" in init for init in inits)


def is_older(version, other):
    return [int(part) for part in version.split(".")] < [int(part) for part in other.split(".")]


# What a schema does not see.


def mistakes(documents, binary):
    """All that is wrong with these documents beside their form."""
    documents = documents + OUTSIDE
    found = []
    agents = 0
    for document in documents:
        template = pod_template(document)
        if template is None:
            continue
        metadata, spec = template
        found += selector_mistakes(document, metadata)
        for container in containers(spec):
            name = container["name"]
            found += [f"{name}: {text}" for text in reference_mistakes(container, spec, documents)]
            if is_agent(container):
                agents += 1
                try:
                    texts = agent_mistakes(container, spec, documents, binary)
                except KeyError as error:
                    texts = [f"its environment lacks {error}"]
                found += [f"{name}: {text}" for text in texts]
    if agents == 0:
        found.append("no container runs logferry")
    return found


def selector_mistakes(document, metadata):
    selector = document.get("spec", {}).get("selector", {}).get("matchLabels", {})
    labels = metadata.get("labels", {})
    wrong = [key for key in selector if labels.get(key) != selector[key]]
    return [f"the selector's {key} is no label" for key in wrong]


def reference_mistakes(container, spec, documents):
    """Variables, volumes, Secrets and ConfigMaps that are named and not there."""
    found = []
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            found.append(f"there is no volume {mount['name']}")
        known = defined(container, documents)
        found += unknown(mount.get("subPathExpr", ""), known, "subPathExpr")
    for text in container.get("command", []) + container.get("args", []):
        found += unknown(text, defined(container, documents), "command or args")
    for index, variable in enumerate(container.get("env", [])):
        known = defined(container, documents, index)
        found += unknown(variable.get("value", ""), known, variable["name"])
        for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            reference = variable.get("valueFrom", {}).get(field)
            if reference is None:
                continue
            name, key = reference["name"], reference["key"]
            if key not in (entries(kind, name, documents) or {}):
                found.append(f"{kind} {name} has no {key}")
    for source in container.get("envFrom", []):
        for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if field in source and entries(kind, source[field]["name"], documents) is None:
                found.append(f"there is no {kind} {source[field]['name']}")
    for volume in volumes.values():
        kind, name = mounted(volume)
        if kind and entries(kind, name, documents) is None:
            found.append(f"there is no {kind} {name}")
    return found


def mounted(volume):
    """Kind and name of what a volume shows as files, or None twice."""
    if "secret" in volume:
        return "Secret", volume["secret"]["secretName"]
    if "configMap" in volume:
        return "ConfigMap", volume["configMap"]["name"]
    return None, None


def defined(container, documents, count=None):
    """Names of the container's variables: all, or those before its own variable of this number."""
    names = {variable["name"] for variable in container.get("env", [])[:count]}
    for source in container.get("envFrom", []):
        for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            data = entries(kind, source[field]["name"], documents) if field in source else None
            names |= {source.get("prefix", "") + key for key in data or {}}
    return names


def unknown(text, known, where):
    """References to no variable. What has a blank in it is a command of the shell."""
    names = [name for name in references(text) if " " not in name and name not in known]
    return [f"{where} refers to $({name}), which is not defined" for name in names]


def agent_mistakes(container, spec, documents, binary):
    found = security_mistakes(container, spec)
    with tempfile.TemporaryDirectory() as directory:
        env = environment(container, FACTS, documents)
        env = with_files(env, container, spec, documents, Path(directory))
        flags = [expand(text, env) for text in container.get("args", [])]
        if flags[:1] == ["run"]:
            flags = flags[1:]
        limit = mebibytes(container.get("resources", {}).get("limits", {}).get("memory", "0"))
        if limit == 0:
            found.append("no memory limit")
        code, output = check(binary, env, flags)
        if code != 0:
            return found + [f"logferry check ends with {code}: {output}"]
        settings = effective(output)
        least = min(limit, int(settings["mem_usage_limit"]))
        code, output = check(binary, env, flags + ["--mem-usage-limit", str(least)])
        if code != 0:
            found.append(f"its memory does not fit into {least} MiB: {output}")
    found += mount_mistakes(container, spec, settings["state_dir"])
    found += link_mistakes(container, settings["link_roots"])
    found += probe_mistakes(container, settings["listen"])
    grace = spec.get("terminationGracePeriodSeconds", 30)
    deadline = seconds(settings["drain_deadline"])
    if grace <= deadline:
        found.append(f"terminationGracePeriodSeconds {grace} is not above drain_deadline {deadline}")
    return found


def with_files(env, container, spec, documents, directory):
    """The environment with paths of mounted Secrets and ConfigMaps led to copies of them."""
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        kind, name = mounted(volumes.get(mount["name"], {}))
        if kind is None:
            continue
        copied = directory / mount["name"]
        copied.mkdir()
        for key, text in (entries(kind, name, documents) or {}).items():
            (copied / key).write_text(text)
        at = mount["mountPath"].rstrip("/") + "/"
        env = {
            key: f"{copied}/{value[len(at):]}" if value.startswith(at) else value
            for key, value in env.items()
        }
    return env


def check(binary, env, flags):
    """Exit code and output of `logferry check` with this environment and nothing else."""
    command = [binary, "check", *flags]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def effective(output):
    """The values in the first table of `logferry check`; an empty one is not set."""
    rows = (re.split(r"\s{2,}", line) for line in output.split("\n\n")[0].splitlines()[1:])
    return {row[0]: row[1] if len(row) > 2 else "" for row in rows}


def seconds(text):
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    parts = re.findall(r"(\d+)(ms|s|m|h)", text)
    assert parts, f"{text} is a time"
    return sum(int(number) * units[unit] for number, unit in parts)


def mebibytes(text):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)?", text).groups()
    return int(number) * {"Mi": 1, "Gi": 1024, None: 0}[unit]


def security_mistakes(container, spec):
    security = container.get("securityContext", {})
    found = []
    if security.get("readOnlyRootFilesystem") is not True:
        found.append("its root file system can be written")
    if security.get("allowPrivilegeEscalation") is not False:
        found.append("it may gain privileges")
    capabilities = security.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        found.append("it has capabilities")
    if spec.get("automountServiceAccountToken") is not False:
        found.append("it has a token for the cluster")
    return found


def mount_mistakes(container, spec, state_dir):
    """Its state outlives the pod; all else is read-only, and where the writer has it."""
    found = []
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    others = [other for other in containers(spec) if not is_agent(other)]
    seen = [mount for other in others for mount in other.get("volumeMounts", [])
            if "subPathExpr" not in mount]
    for mount in container.get("volumeMounts", []):
        name, path = mount["name"], mount["mountPath"]
        if path == state_dir:
            if "emptyDir" in volumes.get(name, {}):
                found.append("its state is lost with the pod")
            found += [f"{who} can write its state" for who in writers(mount, spec, volumes)]
            continue
        if mount.get("readOnly") is not True:
            found.append(f"{path} can be written")
        part = mount.get("subPath")
        places = [one["mountPath"] for one in seen if (one["name"], one.get("subPath")) == (name, part)]
        if places and path not in places:
            found.append(f"{name} is at {path}, and in the app at {', '.join(places)}")
    if state_dir not in [mount["mountPath"] for mount in container.get("volumeMounts", [])]:
        found.append(f"nothing is mounted at {state_dir}")
    return found


def writers(state, spec, volumes):
    """Containers beside the agent that may write where its state is; those that end before it starts
    are the operator's own."""
    sidecars = [one for one in spec.get("initContainers", []) if one.get("restartPolicy") == "Always"]
    place = node_path(state, volumes)
    for container in spec["containers"] + sidecars:
        for mount in [] if is_agent(container) else container.get("volumeMounts", []):
            other = node_path(mount, volumes)
            if mount.get("readOnly") is not True and place[:len(other)] == other:
                yield container["name"]


def node_path(mount, volumes):
    """Where a mount is from, in parts: on the node, or in a volume of its own."""
    volume = volumes.get(mount["name"], {})
    part = mount.get("subPath") or mount.get("subPathExpr") or ""
    if "hostPath" in volume:
        return ("node", *f"{volume['hostPath']['path']}/{part}".strip("/").split("/"))
    return (mount["name"], *filter(None, part.split("/")))


def link_mistakes(container, link_roots):
    """What links may lead to is listed, and is something that this container sees."""
    if not link_roots:
        return ["link_roots is not set: the app's first link would decide what may be read"]
    mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
    seen = [root for root in link_roots.split(",")
            if any(f"{root}/".startswith(f"{path}/") for path in mounts)]
    unseen = sorted(set(link_roots.split(",")) - set(seen))
    return [f"link_roots names {root}, where nothing is mounted" for root in unseen]


def probe_mistakes(container, listen):
    found = []
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    paths = {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/live"}
    for kind, path in paths.items():
        get = container.get(kind, {}).get("httpGet")
        if get is None:
            continue
        port = ports.get(get["port"], get["port"])
        if listen.startswith(LOOPBACK) or str(port) != listen.rsplit(":", 1)[-1]:
            found.append(f"{kind} asks port {port}, and it listens on {listen or 'nothing'}")
        if get["path"] != path:
            found.append(f"{kind} asks for {get['path']}, not {path}")
    return found


# Mistakes that must be found: manifest, mistake, who makes it, part of what is then said.


def agent(documents):
    templates = [template[1] for template in map(pod_template, documents) if template]
    return next(one for spec in templates for one in containers(spec) if is_agent(one))


def pod_spec(documents):
    return next(template[1] for template in map(pod_template, documents) if template)


def remove_volume(documents):
    pod_spec(documents)["volumes"] = []


def volume_of(documents, name):
    return next(one for one in pod_spec(documents)["volumes"] if one["name"] == name)


def state_in_memory(documents):
    volume = volume_of(documents, "state")
    volume.pop("hostPath")
    volume["emptyDir"] = {}


def state_mount(documents):
    return next(one for one in agent(documents)["volumeMounts"] if one["mountPath"] == "/var/lib/logferry")


def app(documents):
    return next(one for one in pod_spec(documents)["containers"] if one["name"] == "app")


def without(documents, variable):
    env = agent(documents)["env"]
    env[:] = [one for one in env if one["name"] != variable]


SCHEMA_MISTAKES = [
    ("pod.yaml", "an unknown field", lambda d: agent(d).update(volumeMount=[]), "volumeMount"),
    ("pod.yaml", "a field in the wrong place", lambda d: d[0].update(containers=[]), "containers"),
    ("deployment.yaml", "a wrong type", lambda d: d[2]["spec"].update(replicas="two"), "two"),
    ("job.yaml", "a missing field", lambda d: agent(d).pop("name"), "name"),
    ("job.yaml", "an unknown version", lambda d: d[0].update(apiVersion="batch/v9"), "batch/v9"),
]

MISTAKES = [
    ("pod.yaml", "an unknown variable in subPathExpr",
     lambda d: agent(d)["volumeMounts"][2].update(subPathExpr="$(POD)"), "$(POD)"),
    ("leftovers.yaml", "a variable that is defined later",
     lambda d: agent(d)["env"].insert(0, {"name": "A", "value": "$(B)"}) or
     agent(d)["env"].append({"name": "B", "value": ""}), "A refers to $(B)"),
    ("pod.yaml", "a mount without a volume", remove_volume, "no volume share"),
    ("pod.yaml", "a key that the Secret lacks",
     lambda d: agent(d)["env"][-1]["valueFrom"]["secretKeyRef"].update(key="key"),
     "Secret sls has no key"),
    ("deployment.yaml", "a Secret that is not there", lambda d: d.pop(0), "no Secret sls-credentials"),
    ("deployment.yaml", "a ConfigMap that is not there", lambda d: d.pop(1), "no ConfigMap logferry"),
    ("deployment.yaml", "a selector that selects nothing",
     lambda d: d[2]["spec"]["selector"]["matchLabels"].update(app="x"), "selector"),
    ("pod.yaml", "too little time to end",
     lambda d: pod_spec(d).update(terminationGracePeriodSeconds=25), "not above drain_deadline"),
    ("pod.yaml", "the default time, and a longer deadline",
     lambda d: (pod_spec(d).pop("terminationGracePeriodSeconds"),
                agent(d)["args"].extend(["--drain-deadline", "1m"])), "30 is not above"),
    ("pod.yaml", "logs that can be written",
     lambda d: agent(d)["volumeMounts"][0].pop("readOnly"), "/data can be written"),
    ("pod.yaml", "links that can be written",
     lambda d: agent(d)["volumeMounts"][1].update(readOnly=False), "/share can be written"),
    ("pod.yaml", "logs that are elsewhere",
     lambda d: agent(d)["volumeMounts"][0].update(mountPath="/logs"), "in the app at /data"),
    ("pod.yaml", "a state that is lost", state_in_memory, "lost with the pod"),
    ("pod.yaml", "a state among the logs",
     lambda d: state_mount(d).update(name="data", subPathExpr="$(_pod_name_)/logferry"),
     "app can write its state"),
    ("deployment.yaml", "a state that the app mounts",
     lambda d: app(d)["volumeMounts"].append({"name": "state", "mountPath": "/mnt"}),
     "app can write its state"),
    ("statefulset.yaml", "a state below what the app mounts of the node",
     lambda d: volume_of(d, "state")["hostPath"].update(path="/data/.state"), "app can write its state"),
    ("pod-cloud-disk.yaml", "an app that mounts the whole disk",
     lambda d: app(d)["volumeMounts"][0].pop("subPath"), "app can write its state"),
    ("pod-native-sidecar.yaml", "a sidecar that mounts the state",
     lambda d: pod_spec(d)["initContainers"].append(
         {**app(d), "name": "other", "restartPolicy": "Always",
          "volumeMounts": [{"name": "state", "mountPath": "/state"}]}), "other can write its state"),
    ("pod.yaml", "links that may lead anywhere",
     lambda d: without(d, "LOGFERRY_LINK_ROOTS"), "link_roots is not set"),
    ("deployment.yaml", "links that may lead anywhere, in the ConfigMap",
     lambda d: d[1]["data"].pop("LOGFERRY_LINK_ROOTS"), "link_roots is not set"),
    ("job.yaml", "links to what is not mounted",
     lambda d: agent(d)["env"].append({"name": "LOGFERRY_LINK_ROOTS", "value": "/mnt"}),
     "link_roots names /mnt"),
    ("pod.yaml", "no place for the state",
     lambda d: agent(d)["volumeMounts"].pop(), "nothing is mounted"),
    ("pod.yaml", "a root file system that can be written",
     lambda d: agent(d)["securityContext"].pop("readOnlyRootFilesystem"), "root file system"),
    ("pod.yaml", "privileges to be gained",
     lambda d: agent(d)["securityContext"].pop("allowPrivilegeEscalation"), "privileges"),
    ("pod.yaml", "capabilities",
     lambda d: agent(d)["securityContext"].pop("capabilities"), "capabilities"),
    ("pod.yaml", "a token",
     lambda d: pod_spec(d).pop("automountServiceAccountToken"), "token"),
    ("pod.yaml", "a probe of another port",
     lambda d: agent(d)["livenessProbe"]["httpGet"].update(port=9466), "livenessProbe asks port 9466"),
    ("pod.yaml", "probes of a port that the node cannot reach",
     lambda d: agent(d).pop("args"), "it listens on 127.0.0.1:9465"),
    ("pod.yaml", "a probe of another path",
     lambda d: agent(d)["readinessProbe"]["httpGet"].update(path="/"), "not /ready"),
    ("pod.yaml", "a setting that does not exist",
     lambda d: agent(d)["env"].append({"name": "LOGFERRY_LOGSTOER", "value": "x"}),
     "LOGFERRY_LOGSTOER"),
    ("pod.yaml", "no project",
     lambda d: agent(d)["env"].remove({"name": "LOGFERRY_PROJECT", "value": "my-project"}),
     "LOGFERRY_PROJECT"),
    ("deployment.yaml", "credentials that are none",
     lambda d: d[0]["stringData"].update({"credentials.json": "{}"}), "credentials"),
    ("pod.yaml", "less memory than it needs",
     lambda d: agent(d)["resources"]["limits"].update(memory="24Mi"), "does not fit into 24 MiB"),
    ("pod.yaml", "no limit of memory",
     lambda d: agent(d)["resources"].pop("limits"), "no memory limit"),
    ("pod.yaml", "no agent",
     lambda d: agent(d).update(image="busybox"), "no container runs logferry"),
]


# The run.


class Run:
    """Counts and prints."""

    def __init__(self):
        self.passed = self.failed = 0

    def expect(self, what, found):
        """`found` is a list of mistakes."""
        if found:
            self.failed += 1
            print(f"FAILED  {what}: " + "; ".join(found))
        else:
            self.passed += 1
            print(f"passed  {what}")

    def expect_refused(self, what, found, part):
        said = "; ".join(found)
        is_found = part in said
        self.expect(f"{what} is found", [] if is_found else [f"no; said: {said or 'nothing'}"])


def prove_the_checks(run, binary, kubectl):
    for name, mistake, make, part in SCHEMA_MISTAKES:
        documents = copy.deepcopy(load(EXAMPLES / name))
        make(documents)
        for version in VERSIONS:
            found = schema_mistakes(documents, version)
            run.expect_refused(f"{name} {version}: {mistake}", found, part)
    sidecars = load(EXAMPLES / "pod-native-sidecar.yaml")
    too_old = schema_mistakes(sidecars, "1.27")
    run.expect_refused("pod-native-sidecar.yaml 1.27: a version without it", too_old, "restartPolicy")
    for name, mistake, make, part in MISTAKES:
        documents = copy.deepcopy(load(EXAMPLES / name))
        make(documents)
        run.expect_refused(f"{name}: {mistake}", mistakes(documents, binary), part)
    if kubectl:
        with tempfile.TemporaryDirectory() as directory:
            base = EXAMPLES / "kustomize/base"
            for file in base.iterdir():
                text = file.read_text() + "commonLabels: {a: b}\n" * (file.name == KUSTOMIZATION)
                (Path(directory) / file.name).write_text(text)
            _, found = build(kubectl, directory)
            run.expect_refused("kustomize/base: a deprecated field", found, "deprecated")


def build(kubectl, directory):
    """The documents that kustomize makes, and what it complained about."""
    done = subprocess.run([kubectl, "kustomize", str(directory)], capture_output=True, text=True,
                          timeout=60, check=False)
    complaints = done.stderr.strip().splitlines()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(done.stdout)
        file.flush()
        documents = load(file.name)
    if not documents:
        complaints.append("nothing was built")
    return documents, complaints


def expect_right(run, name, documents, binary):
    versions = VERSIONS
    if needs_sidecars(documents):
        versions = [version for version in VERSIONS if not is_older(version, SIDECARS_SINCE)]
    for version in versions:
        run.expect(f"{name} {version}", schema_mistakes(documents, version))
    run.expect(f"{name}: references, settings, security", mistakes(documents, binary))


def main(binary, kubectl):
    binary = str(Path(binary).resolve())
    run = Run()
    prove_the_checks(run, binary, kubectl)
    files = sorted(EXAMPLES.glob("*.yaml"))
    run.expect(f"{len(files)} manifests", [] if len(files) >= 7 else ["some are missing"])
    for file in files:
        expect_right(run, file.name, load(file), binary)
    for name in OVERLAYS if kubectl else []:
        documents, complaints = build(kubectl, EXAMPLES / name)
        run.expect(f"{name}: built", complaints)
        if documents:
            expect_right(run, name, documents, binary)
    print(f"{run.passed} passed, {run.failed} failed")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
