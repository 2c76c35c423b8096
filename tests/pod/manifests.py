"""Manifests as the kubelet reads them: documents, pod templates, environments."""

import base64
import re
from pathlib import Path

import yaml

# `$$` is a dollar, `$(NAME)` a variable; what is neither stays.
REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def load(path):
    """All documents of a file, in their order; empty ones left out."""
    return [document for document in yaml.safe_load_all(Path(path).read_text()) if document]


def pod_template(document):
    """(metadata, spec) of the pod that a Pod, Deployment, StatefulSet or Job makes, or None."""
    kind = document.get("kind")
    if kind == "Pod":
        return document.get("metadata", {}), document["spec"]
    if kind in ("Deployment", "StatefulSet", "Job"):
        template = document["spec"]["template"]
        return template.get("metadata", {}), template["spec"]
    return None


def containers(spec):
    """All containers of a pod: those that run first come first."""
    return spec.get("initContainers", []) + spec["containers"]


def is_agent(container):
    """Whether it runs the agent: a container of that image that is told nothing else."""
    image = container["image"].rsplit("/", 1)[-1].split(":", 1)[0]
    does = (container.get("args") or ["run"])[0]
    return image == "logferry" and "command" not in container and does == "run"


def expand(text, env):
    """`$(NAME)` becomes its value, `$$(NAME)` the text `$(NAME)`; an unknown name stays as it is."""

    def value(match):
        if match.group(1) is None:
            return "$"
        return env.get(match.group(1), match.group(0))

    return REFERENCE.sub(value, text)


def references(text):
    """The names that `expand` would look for."""
    return [match.group(1) for match in REFERENCE.finditer(text) if match.group(1) is not None]


def entries(kind, name, documents):
    """The data of the ConfigMap or Secret of this name as text, or None if it is not there."""
    for document in documents:
        if document.get("kind") == kind and document["metadata"]["name"] == name:
            data = dict(document.get("data") or {})
            if kind == "Secret":
                data = {key: base64.b64decode(text).decode() for key, text in data.items()}
                data.update(document.get("stringData") or {})
            return data
    return None


def environment(container, pod_facts, documents):
    """What the container's process finds in its environment, but for what its image sets.

    `pod_facts` maps each fieldPath to its value (`metadata.name`, `spec.nodeName`); ConfigMaps and
    Secrets are taken from `documents`. A fact or key that is missing raises KeyError, unless the
    manifest calls it optional.
    """
    env = {}
    for source in container.get("envFrom", []):
        for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            reference = source.get(field)
            if reference is None:
                continue
            data = entries(kind, reference["name"], documents)
            if data is None and not reference.get("optional"):
                raise KeyError(f"{kind} {reference['name']}")
            prefix = source.get("prefix", "")
            env.update({prefix + key: text for key, text in (data or {}).items()})
    for variable in container.get("env", []):
        text = _value(variable, env, pod_facts, documents)
        if text is not None:
            env[variable["name"]] = text
    return env


def _value(variable, env, pod_facts, documents):
    origin = variable.get("valueFrom")
    if origin is None:
        return expand(variable.get("value", ""), env)
    if "fieldRef" in origin:
        return pod_facts[origin["fieldRef"]["fieldPath"]]
    for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if field in origin:
            reference = origin[field]
            data = entries(kind, reference["name"], documents) or {}
            if reference["key"] in data:
                return data[reference["key"]]
            if reference.get("optional"):
                return None
            raise KeyError(f"{kind} {reference['name']}, key {reference['key']}")
    raise KeyError(f"{variable['name']}: {', '.join(origin)}")
