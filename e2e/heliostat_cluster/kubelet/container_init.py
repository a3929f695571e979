"""Makes one container around itself and becomes its program; a script without dependencies.

`container_init.py SPEC.json REPORT_FD`: enters the pod's network, gives itself an overlay of the
machine's root, processes, hostname and mounts of its own, and waits for the program. What it writes
vanishes with it, and the kernel ends everything when the kubelet ends. On REPORT_FD it writes
`pid N`, then `error TEXT` if the program cannot be started; the end of the stream means it runs.

`container_init.py enter SPEC.json PID`: runs a further command inside a container.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_NEW_MOUNTS, _NEW_NAMES, _NEW_IPC = 0x00020000, 0x04000000, 0x08000000
_NEW_PROCESSES, _NEW_NETWORK = 0x20000000, 0x40000000
_SET_DEATH_SIGNAL, _DROP_CAPABILITY, _NO_NEW_PRIVILEGES = 1, 24, 38
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_TEMPORARY = "tmp"
_HIDDEN = (_TEMPORARY, "run", "var/lib/kubelet")

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Run as the module says."""
    if sys.argv[1] == "enter":
        _enter(_read(sys.argv[2]), int(sys.argv[3]))
    _start(_read(sys.argv[1]), int(sys.argv[2]))


def _read(path: str) -> dict[str, Any]:
    with open(path) as file:
        spec: dict[str, Any] = json.load(file)
    return spec


def _start(spec: dict[str, Any], report: int) -> None:
    os.set_inheritable(report, False)
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != spec["kubelet_pid"]:
        sys.exit(1)
    try:
        if spec["network"]:
            _join(spec["network"], _NEW_NETWORK)
        own_ipc_and_name = 0 if spec["host_network"] else _NEW_NAMES
        _call("unshare", _NEW_MOUNTS | _NEW_IPC | _NEW_PROCESSES | own_ipc_and_name)
        _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
        sources = [os.open(mount["source"], os.O_PATH) for mount in spec["mounts"]]
        programs = {path: os.open(path, os.O_PATH) for path in spec["readable"]}
        root = _overlay(spec)
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            if not os.read(ready, 1):  # nobody knows of us
                os._exit(128)
            _become_program(spec, root, sources, programs, report)
        os.write(report, f"pid {pid}\n".encode())
        os.write(go, b"x")
    except OSError as error:
        os.write(report, f"error {error}\n".encode())
        sys.exit(128)
    os.close(report)
    _wait_for(pid)


def _wait_for(pid: int) -> None:
    """End as the program did; signals are for the program, not for us."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _become_program(
    spec: dict[str, Any], root: str, sources: list[int], programs: dict[str, int], report: int
) -> None:
    try:
        _mount("proc", f"{root}/proc", "proc", _MS_NOSUID | _MS_NODEV)
        _mount("/sys", f"{root}/sys", None, _MS_BIND | _MS_REC)
        _mount(None, f"{root}/sys", None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)
        _make_devices(root)
        if not spec["host_network"]:
            name = spec["hostname"].encode()
            _call("sethostname", name, len(name))
        os.chroot(root)
        os.chdir("/")
        os.umask(0o022)
        for mount, source in zip(spec["mounts"], sources, strict=True):
            _bind(mount, source, programs)
        if spec["read_only_root"]:
            _mount(None, "/", None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)
        _run(spec)
    except OSError as error:
        os.write(report, f"error {error}\n".encode())
    os._exit(128)


def _run(spec: dict[str, Any]) -> None:
    """Give up what the container may not, and become its program."""
    _drop_capabilities(spec["capabilities"])
    os.setgroups(spec["groups"])
    os.setgid(spec["gid"])
    os.setuid(spec["uid"])
    if spec["no_new_privileges"]:
        _prctl(_NO_NEW_PRIVILEGES, 1)
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)  # the change of user took the first one away
    os.chdir(spec["working_directory"])
    os.umask(0o022)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(spec["command"][0], spec["command"], spec["environment"])  # noqa: S606


def _enter(spec: dict[str, Any], pid: int) -> None:
    """Run the spec's command where a container's first process is."""
    try:
        spaces = [
            (os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind)
            for name, kind in (
                ("net", _NEW_NETWORK),
                ("uts", _NEW_NAMES),
                ("pid", _NEW_PROCESSES),
                ("mnt", _NEW_MOUNTS),
            )
        ]
        root = os.open(f"/proc/{pid}/root", os.O_RDONLY)
        for space, kind in spaces:
            _call("setns", space, kind)
            os.close(space)
        os.fchdir(root)
        os.chroot(".")
        os.close(root)
        child = os.fork()
        if child == 0:
            _run(spec)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(126)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


def _overlay(spec: dict[str, Any]) -> str:
    """Mount the machine's root with a layer of our own in memory; return where."""
    scratch: str = spec["scratch"]
    _mount("tmpfs", scratch, "tmpfs", 0, "mode=0755")
    upper, work, root = (f"{scratch}/{name}" for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        os.mkdir(folder)
    for hidden in _HIDDEN:
        os.makedirs(f"{upper}/{hidden}")
        os.setxattr(f"{upper}/{hidden}", "trusted.overlay.opaque", b"y")
    os.chmod(f"{upper}/{_TEMPORARY}", 0o1777)  # noqa: S103 - as everywhere
    _mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={upper},workdir={work}")
    for path in spec["readable"]:
        _make_reachable(root, path)
    for path, text in spec["files"].items():
        with open(f"{root}{path}", "w") as file:
            file.write(text)
    return root


def _make_reachable(root: str, path: str) -> None:
    """Show a path of the machine in the container, for every user: programs of images live there.

    It may be on another file system than the machine's root, or below a hidden folder.
    """
    inside = root + path
    if not os.path.isdir(inside) or not os.listdir(inside):
        os.makedirs(inside, exist_ok=True)
        _mount(path, inside, None, _MS_BIND | _MS_REC)
    while inside != root:
        mode = os.stat(inside).st_mode & 0o7777
        if os.path.isdir(inside) and not os.path.ismount(inside) and mode & 0o005 != 0o005:
            os.chmod(inside, mode | 0o055)  # noqa: S103 - in the overlay
        inside = os.path.dirname(inside)


def _make_devices(root: str) -> None:
    sources = [os.open(f"/dev/{name}", os.O_PATH) for name in _DEVICES]
    _mount("tmpfs", f"{root}/dev", "tmpfs", _MS_NOSUID, "mode=0755")
    for name, source in zip(_DEVICES, sources, strict=True):
        _touch(f"{root}/dev/{name}")
        _mount(f"/proc/self/fd/{source}", f"{root}/dev/{name}", None, _MS_BIND)
        os.close(source)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"{root}/dev/{name}")
    shared = f"{root}/dev/shm"  # noqa: S108 - in the container
    os.mkdir(shared)
    _mount("tmpfs", shared, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777,size=64m")
    os.mkdir(f"{root}/dev/pts")
    _mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=0620")
    os.symlink("pts/ptmx", f"{root}/dev/ptmx")


def _bind(mount: dict[str, Any], source: int, programs: dict[str, int]) -> None:
    """Mount a volume; programs that it would hide, as below /tmp, are shown in it again."""
    target = mount["target"]
    came_from = f"/proc/self/fd/{source}"
    if os.path.isdir(came_from):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _touch(target)
    _mount(came_from, target, None, _MS_BIND | _MS_REC)
    os.close(source)
    for path, program in programs.items():
        if path.startswith(f"{target.rstrip('/')}/"):
            os.makedirs(path, exist_ok=True)
            _mount(f"/proc/self/fd/{program}", path, None, _MS_BIND | _MS_REC)
    if mount["read_only"]:
        _mount(None, target, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)


def _drop_capabilities(kept: list[int] | None) -> None:
    """Keep only these in the bounding set; None keeps all (a privileged container)."""
    if kept is None:
        return
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        if capability not in kept:
            _prctl(_DROP_CAPABILITY, capability)


def _touch(path: str) -> None:
    if not os.path.exists(path):
        with open(path, "w"):
            pass


def _join(path: str, kind: int) -> None:
    space = os.open(path, os.O_RDONLY)
    _call("setns", space, kind)
    os.close(space)


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, data: str | None = None
) -> None:
    encoded = [None if part is None else part.encode() for part in (source, target, kind)]
    options = None if data is None else data.encode()
    if _libc.mount(*encoded, ctypes.c_ulong(flags), options):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target}: {os.strerror(number)}")


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _prctl(option: int, value: int) -> None:
    _call("prctl", option, ctypes.c_ulong(value), 0, 0, 0)


if __name__ == "__main__":
    main()
