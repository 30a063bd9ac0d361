#!/usr/bin/env python3
"""manifests.py FOLDER PROGRAMS README - whether Kubernetes manifests fit together.

Not a schema: what a schema cannot see. Selectors match labels of a template, ports and volumes that
are named exist, Secrets and ConfigMaps are those that the README lists, each option of a program of
ours is in its --help, and probes run programs with options that exist."""
import functools
import pathlib
import re
import subprocess
import sys

import yaml

faults = []
KINDS = {
    "Namespace": "v1", "Service": "v1", "PersistentVolumeClaim": "v1", "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1", "PodDisruptionBudget": "policy/v1",
    "NetworkPolicy": "networking.k8s.io/v1", "Kustomization": "kustomize.config.k8s.io/v1beta1"}


def fault(document, text):
    faults.append(f"{document['kind']} {document.get('metadata', {}).get('name', '')}: {text}")


def load(folder):
    found = []
    for path in sorted(pathlib.Path(folder).glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            found.append(document)
            if KINDS.get(document.get("kind")) != document.get("apiVersion"):
                faults.append(f"{path.name}: {document.get('apiVersion')} {document.get('kind')}")
            name = document.get("metadata", {}).get("name", "a")
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
                fault(document, "its name is none")
            if document["kind"] not in ("Namespace", "Kustomization") and \
                    document["metadata"].get("namespace") != "athanor":
                fault(document, "is not in the namespace")
    return found


def pods(documents):
    return [d for d in documents if d["kind"] in ("StatefulSet", "DaemonSet")]


def labels(document):
    return document["spec"]["template"]["metadata"]["labels"]


def matches(selector, document):
    return bool(selector) and selector.items() <= labels(document).items()


def check_selectors(documents):
    workloads = pods(documents)
    for document in documents:
        spec = document.get("spec", {})
        if document in workloads and not matches(spec["selector"]["matchLabels"], document):
            fault(document, "its selector does not match its own template")
        if document in workloads and \
                sum(matches(spec["selector"]["matchLabels"], other) for other in workloads) != 1:
            fault(document, "its selector matches pods of another")
        wanted = {"Service": lambda: spec["selector"],
                  "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
                  "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"]}
        if document["kind"] in wanted and \
                not any(matches(wanted[document["kind"]](), other) for other in workloads):
            fault(document, "its selector matches no pod")
        if document["kind"] == "StatefulSet" and not any(
                d["kind"] == "Service" and d["metadata"]["name"] == spec["serviceName"]
                for d in documents):
            fault(document, "there is no service of this name")


def ports_of(document):
    return {port["name"] for container in document["spec"]["template"]["spec"]["containers"]
            for port in container.get("ports", [])}


def check_ports(documents):
    for document in documents:
        spec = document.get("spec", {})
        named = []
        if document["kind"] == "Service":
            named = [(spec["selector"], port["targetPort"]) for port in spec["ports"]]
        if document["kind"] == "NetworkPolicy":
            named = [(spec["podSelector"]["matchLabels"], port["port"])
                     for rule in spec["ingress"] for port in rule.get("ports", [])]
        for selector, port in named:
            if not any(matches(selector, other) and port in ports_of(other)
                       for other in pods(documents)):
                fault(document, f"no pod that it selects has a port '{port}'")


@functools.cache
def help_of(programs, name):
    run = subprocess.run([f"{programs}/{name}", "--help"], capture_output=True, text=True,
                         check=True)
    return set(re.findall(r"(--[a-z][a-z-]*)", run.stdout))


def check_command(document, where, words, programs):
    ours = [w for w in words if w in ("athanor-coordinator", "athanor-worker")]
    if not ours:
        return
    known = help_of(programs, ours[0])
    for word in words:
        if word.startswith("--") and word.split("=")[0] not in known:
            fault(document, f"{where}: {ours[0]} has no option {word}")


def check_containers(documents, programs):
    for document in pods(documents):
        spec = document["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        used = set()
        for container in spec.get("initContainers", []) + spec["containers"]:
            name = container["name"]
            words = container["command"] + container.get("args", [])
            if words[0] == "sh":
                words = words[-1].split()
            check_command(document, name, words, programs)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container:
                    check_command(document, f"{name} {probe}",
                                  container[probe]["exec"]["command"], programs)
            env = {e["name"] for e in container.get("env", [])}
            for variable in re.findall(r"\$\(?([A-Z_]+)\)?", " ".join(map(str, words))):
                if variable not in env:
                    fault(document, f"{name}: ${variable} is not set")
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            used |= mounts
            if mounts - volumes:
                fault(document, f"{name} mounts {mounts - volumes}, which are no volumes")
            security = container["securityContext"]
            if security["allowPrivilegeEscalation"] or not security["readOnlyRootFilesystem"] or \
                    security["capabilities"]["drop"] != ["ALL"]:
                fault(document, f"{name} is not confined")
        if not spec["securityContext"]["runAsNonRoot"]:
            fault(document, "runs as root")
        if volumes - used:
            fault(document, f"nobody mounts {volumes - used}")
        for container in spec["containers"]:
            if "livenessProbe" not in container:
                fault(document, f"{container['name']} has no probe")


def names_in(value, found):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("secretKeyRef", "configMapKeyRef", "configMap"):
                found.add((inner["name"], inner.get("key")))
            elif key == "secret" and isinstance(inner, dict):
                found.add((inner["secretName"], None))
            elif key == "persistentVolumeClaim":
                found.add(("claim", inner["claimName"]))
            names_in(inner, found)
    if isinstance(value, list):
        for inner in value:
            names_in(inner, found)


def check_references(documents, readme):
    text = pathlib.Path(readme).read_text()
    found = set()
    for document in pods(documents):
        names_in(document, found)
    claims = {d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"}
    for name, key in sorted(found, key=str):
        if name == "claim":
            if key not in claims:
                faults.append(f"there is no claim '{key}'")
        elif f"`{name}`" not in text or (key and f"`{key}`" not in text):
            faults.append(f"the README does not tell of '{name}' {key or ''}")


def main():
    folder, programs, readme = sys.argv[1:4]
    documents = load(folder)
    check_selectors(documents)
    check_ports(documents)
    check_containers(documents, programs)
    check_references(documents, readme)
    listed = next(d for d in documents if d["kind"] == "Kustomization")["resources"]
    present = {p.name for p in pathlib.Path(folder).glob("*.yaml")} - {"kustomization.yaml"}
    if set(listed) != present:
        faults.append(f"kustomization.yaml lists {sorted(listed)}, there are {sorted(present)}")
    for text in faults:
        print(text)
    return 1 if faults else 0


sys.exit(main())
