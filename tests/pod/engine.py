"""podman and the images: what can be had here, and how it is asked."""

import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AGENT_IMAGE = "localhost/logferry:0.1.0"
APP_IMAGE = "localhost/logferry-sample-app:0.1.0"
TOOLCHAIN_IMAGE = "localhost/logferry-toolchain:"
BUSYBOX_IMAGE = "localhost/logferry-busybox"

# A process with more open files than the machine's root may give fails to start. These limits are
# podman's own: no manifest asks for them.
WITHOUT_RLIMITS = """\
#!/bin/sh
# runc, without the resource limits that podman adds to containers and to processes in them.
edit() {
  jq "$1" "$2" > "$2.new" && mv "$2.new" "$2"
}
previous=
for word in "$@"; do
  case $previous in
    --bundle | -b) edit 'del(.process.rlimits)' "$word/config.json" ;;
    --process | -p) edit 'del(.rlimits)' "$word" ;;
  esac
  previous=$word
done
exec runc "$@"
"""


class Skipped(Exception):
    """No container can be started here; says why."""


class Failed(Exception):
    """A command ended with an error; says what it said."""


def run(*command, timeout=600, quiet=True, **options):
    """The output of a command that has to succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )
    if done.returncode != 0:
        said = (done.stderr or "").strip()[-2000:]
        raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{said}")
    return done.stdout


class Engine:
    """podman as it is set up here or, where that starts no container, with `runc` and without limits
    that cannot be raised."""

    def __init__(self, work):
        self.work = Path(work)
        self.env = dict(os.environ)
        if os.geteuid() != 0:
            raise Skipped("directories of a node have owners: this needs root")
        if shutil.which("podman") is None:
            raise Skipped("there is no podman")
        # The pods' network, with a name server, and the host's address in it.
        self.network = f"logferry-{os.getpid()}"
        # Pods that were played and not yet removed.
        self.played = set()
        self.empty = self.work / "empty"
        self.empty.mkdir()

    def podman(self, *words, **options):
        """The output of `podman WORDS`.

        In a directory that is empty: `podman play kube` takes what is called like an image where it
        runs, such as a copied binary, for a directory to build that image from.
        """
        return run("podman", *words, env=self.env, cwd=self.empty, **options)

    def inspect(self, name):
        """All that podman knows of a container, image or pod."""
        return json.loads(self.podman("inspect", name))[0]

    def inspect_pod(self, name):
        """All that podman knows of a pod."""
        found = json.loads(self.podman("pod", "inspect", name))
        return found[0] if isinstance(found, list) else found

    def make_network(self):
        """Makes the network; gives the host's address in it."""
        self.podman("network", "create", self.network)
        made = json.loads(self.podman("network", "inspect", self.network))[0]
        return made["subnets"][0]["gateway"]

    def clean(self):
        """Removes the pods that were played."""
        for pod in self.played:
            subprocess.run(
                ["podman", "pod", "rm", "-f", "-t", "0", pod], env=self.env, check=False,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        self.played.clear()

    def exists(self, kind, name):
        """Whether podman has this container, image, pod or network."""
        done = subprocess.run(["podman", kind, "exists", name], env=self.env, check=False)
        return done.returncode == 0

    def build_images(self):
        """Builds both images; on a machine that reaches no registry, on stand-ins for their bases."""
        self.require_containers()
        revision = run("git", "-C", ROOT, "rev-parse", "HEAD").strip()
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        arguments = ["--build-arg", f"REVISION={revision}", "--build-arg", f"CREATED={created}"]
        if not self._has_base(base_of(ROOT / "Dockerfile", "RUST_IMAGE")):
            arguments += self._toolchain_of_this_machine()
        print("building the agent's image", flush=True)
        self.podman("build", *arguments, "-t", AGENT_IMAGE, ROOT, timeout=3000)
        arguments = []
        if not self._has_base(base_of(ROOT / "examples/app/Dockerfile", "BUSYBOX_IMAGE")):
            arguments = ["--build-arg", f"BUSYBOX_IMAGE={BUSYBOX_IMAGE}"]
        print("building the sample app's image", flush=True)
        self.podman("build", *arguments, "-t", APP_IMAGE, ROOT / "examples/app")
        return revision

    def require_containers(self):
        """Makes the stand-in for busybox and runs it once."""
        busybox = shutil.which("busybox")
        if busybox is None:
            raise Skipped("there is no statically linked busybox (Debian package busybox-static)")
        applets = run(busybox, "--list").split()
        image = self.work / "busybox.tar"
        with tarfile.open(image, "w") as tar:
            tar.add(busybox, "bin/busybox")
            for applet in applets:
                if applet != "busybox":
                    _link(tar, f"bin/{applet}", "busybox")
            for name in ("tmp", "etc", "proc", "sys", "dev", "root"):
                _directory(tar, name)
        try:
            self._start_one(image)
        except (Failed, subprocess.TimeoutExpired) as first:
            try:
                self._use_runc_without_rlimits()
                self._start_one(image)
            except (Failed, subprocess.TimeoutExpired) as second:
                raise Skipped(f"no container can be started: {first}\n{second}") from second

    def _start_one(self, image):
        self.podman("import", "--change", 'CMD ["/bin/sh"]', image, BUSYBOX_IMAGE)
        self.podman("run", "--rm", BUSYBOX_IMAGE, "true", timeout=60)

    def _use_runc_without_rlimits(self):
        for tool in ("runc", "jq"):
            if shutil.which(tool) is None:
                raise Failed(f"there is no {tool}")
        wrapper = self.work / "runc-without-rlimits"
        wrapper.write_text(WITHOUT_RLIMITS)
        wrapper.chmod(0o755)
        configuration = self.work / "containers.conf"
        configuration.write_text(
            "[engine]\n"
            'runtime = "wrapped"\n'
            'cgroup_manager = "cgroupfs"\n'
            'events_logger = "file"\n'
            "[engine.runtimes]\n"
            f'wrapped = ["{wrapper}"]\n'
        )
        self.env["CONTAINERS_CONF"] = str(configuration)

    def _has_base(self, image):
        if self.exists("image", image):
            return True
        try:
            self.podman("pull", "--quiet", image, timeout=300)
            return True
        except (Failed, subprocess.TimeoutExpired):
            print(f"{image} cannot be pulled: this machine's own tools take its place", flush=True)
            return False

    def _toolchain_of_this_machine(self):
        """Arguments that build on an image with this machine's compilers, and crates from its cache."""
        run("cargo", "fetch", "--locked", cwd=ROOT, timeout=1200)
        sysroot = run("rustc", "--print", "sysroot", cwd=ROOT).strip()
        cargo_home = os.environ.get("CARGO_HOME") or str(Path.home() / ".cargo")
        stand_in = TOOLCHAIN_IMAGE + run("rustc", "--version", cwd=ROOT).split()[1]
        arguments = [
            *("--build-arg", f"RUST_IMAGE={stand_in}"),
            *("--volume", "/usr:/usr:ro"),
            *("--volume", f"{sysroot}:/opt/rust:ro"),
            *("--volume", f"{cargo_home}:/opt/cargo"),
        ]
        # Made once: on a new image every step would be done anew.
        if self.exists("image", stand_in):
            return arguments
        image = self.work / "toolchain.tar"
        with tarfile.open(image, "w") as tar:
            for name in ("usr", "opt/rust", "opt/cargo", "etc", "proc", "sys", "dev", "tmp"):
                _directory(tar, name)
            for name in ("bin", "sbin", "lib", "lib64"):
                if os.path.islink(f"/{name}"):
                    _link(tar, name, os.readlink(f"/{name}"))
            for name in ("alternatives", "ld.so.cache", "passwd", "group"):
                if os.path.exists(f"/etc/{name}"):
                    tar.add(f"/etc/{name}", f"etc/{name}")
        self.podman(
            "import",
            *("--change", "ENV PATH=/opt/rust/bin:/usr/bin:/bin"),
            *("--change", "ENV CARGO_HOME=/opt/cargo"),
            *("--change", "ENV CARGO_NET_OFFLINE=true"),
            image,
            stand_in,
        )
        return arguments


def base_of(dockerfile, argument):
    """The default of the build argument that names the base image."""
    return re.search(rf"^ARG {argument}=(\S+)", dockerfile.read_text(), re.MULTILINE).group(1)


def _directory(tar, name):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    tar.addfile(entry)


def _link(tar, name, target):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)
