"""What the kubelet does with a manifest and podman does not, or not in every version.

podman 4.3 knows one kind of pod, few field references, no `$(VAR)` in values, no `subPath`, no
sidecars, and asks HTTP probes with a `curl` that has to be in the image. So here, as on a node:

- every variable gets its value as a literal, and every `resources.limits` what the scenario says;
- every volume becomes a directory of the node (`hostPath`) with owner and mode as the kubelet
  makes it; a mount of a part of one becomes a volume of its own, made when its containers start;
- containers that run first are pods of their own that have to end with 0; a sidecar among them is a
  container that is started before the others;
- probes are left out: the scenarios ask `/ready` and `/live` themselves. So are `ports`, which podman
  would open on the host.
- images come from `localhost/`.

Everything else goes to podman as the manifest has it. Of that podman has no use for what chooses the
node, makes tokens or waits for the end (`Pod.delete` waits), and `fsGroup` is in the modes of the
volumes only: the agent's own group is the same.
"""

import copy
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import manifests

PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
# Settings of the pod that its containers inherit.
INHERITED = ("runAsUser", "runAsGroup", "runAsNonRoot")


class Node:
    """A directory that stands for the disk of a node."""

    def __init__(self, root, name="node-1", address="192.0.2.10"):
        self.root, self.name, self.address = Path(root), name, address

    def path(self, path):
        """Where what the manifests call `path` is on this machine."""
        return self.root / str(path).lstrip("/")

    def facts(self, pod, namespace="default"):
        """The field references of a pod on this node."""
        return {
            "metadata.name": pod,
            "metadata.namespace": namespace,
            "metadata.uid": f"uid-{pod}",
            "spec.nodeName": self.name,
            "status.hostIP": self.address,
            "status.podIP": "192.0.2.20",
        }

    def directory(self, path, mode, gid=0):
        """Makes a directory of the node, and those above it, as root does."""
        return made(self.path(path), mode, gid)


def made(path, mode, gid=0):
    """The directory, made as root does if it is not there."""
    if not path.exists():
        path.mkdir(parents=True)
        os.chown(path, 0, gid)
        path.chmod(mode)
    return path


def make_part(volume, part):
    """Makes a part of a volume: the last directory gets the volume's mode, those above it the same
    less a strict umask of the kubelet. What is there stays as it is."""
    if (volume / part).exists():
        return
    mode = stat.S_IMODE(volume.stat().st_mode)
    path = volume
    for name in Path(part).parts:
        path = path / name
        if not path.exists():
            path.mkdir()
            path.chmod(mode & ~0o027)
    path.chmod(mode)


@dataclass
class Playable:
    """A pod that podman can play: first each of `first` to its end, then `pod`."""

    name: str
    pod: dict
    first: list = field(default_factory=list)
    # Containers in the order in which the kubelet starts them, and ends them the other way round.
    sidecars: list = field(default_factory=list)
    others: list = field(default_factory=list)
    agent: str = ""
    grace: int = 30
    # The directory of the node that the app sees as /data.
    data: Path = None
    # Volume and part of it, by the name of the volume that stands for the part.
    parts: dict = field(default_factory=dict)

    def make_parts(self, pod):
        """Makes what the containers of one of these pods mount, just before they start."""
        for volume in pod["spec"]["volumes"]:
            if volume["name"] in self.parts:
                make_part(*self.parts[volume["name"]])


def fill(document, documents, node, name, environment, limits=None):
    """The pod of `document` under the name `name` on `node`.

    `environment` is added to that of agents, `limits` replaces their containers' limits.
    """
    metadata, spec = manifests.pod_template(copy.deepcopy(document))
    facts = node.facts(name)
    volumes = _volumes(document, spec, documents, node, name)
    result = Playable(name, {}, grace=spec.get("terminationGracePeriodSeconds", 30))

    def playable(container):
        env = manifests.environment(container, facts, documents)
        if manifests.is_agent(container):
            env.update(environment)
            result.agent = container["name"]
            if limits:
                container["resources"] = {"limits": limits}
        for unknown in (*PROBES, "ports", "envFrom", "restartPolicy"):
            container.pop(unknown, None)
        container["image"] = "localhost/" + container["image"]
        container["env"] = [{"name": key, "value": text} for key, text in env.items()]
        container["args"] = [manifests.expand(text, env) for text in container.get("args", [])]
        context = container.setdefault("securityContext", {})
        for key in INHERITED:
            if key in spec.get("securityContext", {}):
                context.setdefault(key, spec["securityContext"][key])
        for mount in container.get("volumeMounts", []):
            part = mount.pop("subPath", "") or manifests.expand(mount.pop("subPathExpr", ""), env)
            if part:
                whole, mount["name"] = mount["name"], f"part-{len(result.parts)}"
                result.parts[mount["name"]] = (volumes[whole], part)
        return container

    handled = ("initContainers", "containers", "volumes", "securityContext", "restartPolicy")
    rest = {key: value for key, value in spec.items() if key not in handled}
    first = []
    for container in spec.get("initContainers", []):
        is_sidecar = container.get("restartPolicy") == "Always"
        (result.sidecars if is_sidecar else first).append(playable(container))
    result.others = [playable(container) for container in spec["containers"]]

    def pod(name, containers, policy):
        used = {mount["name"] for one in containers for mount in one.get("volumeMounts", [])}
        parts = {key: whole / part for key, (whole, part) in result.parts.items()}
        paths = {key: path for key, path in (volumes | parts).items() if key in used}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": metadata.get("labels", {})},
            "spec": rest | {
                "restartPolicy": policy,
                "containers": containers,
                "volumes": [
                    {"name": key, "hostPath": {"path": str(path)}} for key, path in paths.items()
                ],
            },
        }

    mounts = [mount for one in result.others for mount in one.get("volumeMounts", [])]
    places = volumes | {key: whole / part for key, (whole, part) in result.parts.items()}
    result.data = next(places[one["name"]] for one in mounts if one["mountPath"] == "/data")
    result.first = [pod(f"{name}-{one['name']}", [one], "Never") for one in first]
    policy = spec.get("restartPolicy", "Always")
    result.pod = pod(name, result.sidecars + result.others, policy)
    result.sidecars = [one["name"] for one in result.sidecars]
    result.others = [one["name"] for one in result.others]
    return result


def _volumes(document, spec, documents, node, name):
    """Each volume's directory on the node."""
    group = spec.get("securityContext", {}).get("fsGroup")
    claims = document["spec"].get("volumeClaimTemplates", [])
    own = Path("/var/lib/kubelet/pods") / name / "volumes"
    found = {}
    for claim in claims:
        key = claim["metadata"]["name"]
        found[key] = _disk(node, f"{key}-{name}", group)
    for volume in spec.get("volumes", []):
        key = volume["name"]
        if "hostPath" in volume:
            found[key] = node.directory(volume["hostPath"]["path"], 0o755)
        elif "persistentVolumeClaim" in volume:
            found[key] = _disk(node, volume["persistentVolumeClaim"]["claimName"], group)
        elif "emptyDir" in volume:
            found[key] = node.directory(own / key, 0o777)
        elif "secret" in volume or "configMap" in volume:
            found[key] = _files(volume, documents, node.directory(own / key, 0o755))
        else:
            raise ValueError(f"volume {key}: nothing here makes {', '.join(volume)}")
    return found


def _disk(node, claim, group):
    """A disk that is attached: the kubelet gives it to the pod's group."""
    mode = 0o2775 if group is not None else 0o755
    return node.directory(Path("/disks") / claim, mode, group or 0)


def _files(volume, documents, directory):
    kind = "Secret" if "secret" in volume else "ConfigMap"
    source = volume.get("secret") or volume["configMap"]
    entries = manifests.entries(kind, source.get("secretName") or source["name"], documents)
    mode = source.get("defaultMode", 0o644)
    for item in source.get("items", [{"key": key, "path": key} for key in entries]):
        path = directory / item["path"]
        path.write_text(entries[item["key"]])
        path.chmod(item.get("mode", mode))
    return directory
