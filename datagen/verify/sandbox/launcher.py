"""The inside of the sandbox (__init__.py): a script of its own, which imports nothing of this program.

Four processes. The launcher, of the user, gives the second one its user ids. The second one leaves the namespaces of
the machine and starts the third, which is the first process of its own world: it builds a root of read-only libraries,
and when it ends, the kernel ends all others in there. The fourth gives up every right and runs the program.

It reads {"program", "tests", "is_fenced", "token", limits} from standard input. Standard output gets READY when the
walls stand, the token when all tests pass, UNREAD when there is no verdict, and END when the program has ended.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

READY, UNREAD, END = "ready", "unread", "end"
NOBODY = 65_534
"""The user on the machine, for a launcher of root: no limit on processes holds for root itself."""
INNER = 1
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUTS = 0x00020000, 0x08000000, 0x04000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAPABILITIES = 64
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
MOUNT_POINTS = ("/mnt", "/media", "/srv", "/opt", "/tmp")

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """Call a function of the C library; OSError where it fails."""
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def main() -> None:
    """Launch the second process, give it its user ids, and wait for it."""
    die_with_parent()  # the clock is the parent's; the thread that starts a launcher waits for it
    request = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDWR)
    result = os.dup(1)
    for number in (0, 1, 2):
        os.dup2(null, number)
    (wait_map, mapped), (wait_leave, left) = os.pipe(), os.pipe()
    second = os.fork()
    if not second:
        run_or_say(result, lambda: leave_world(request, result, left, wait_map))
    os.close(left)
    if os.read(wait_leave, 1):
        run_or_say(result, lambda: map_users(second), ends=False)
        os.write(mapped, b"1")
    os.waitpid(second, 0)


def run_or_say(result: int, step: Any, *, ends: bool = True) -> None:
    """Take a step of the setup; write what went wrong. In a forked process it is the last one."""
    try:
        step()
    except BaseException as error:
        os.write(result, f"{error}\n".encode())
        os._exit(1)
    if ends:
        os._exit(0)


def map_users(process: int) -> None:
    """Write which users of the machine the users 0 and INNER of the new namespace are."""
    user, group = os.getuid(), os.getgid()
    if user:
        write(f"/proc/{process}/setgroups", "deny")
    more = "" if user else f"\n{INNER} {NOBODY} 1"
    write(f"/proc/{process}/gid_map", f"0 {group} 1{more}")
    write(f"/proc/{process}/uid_map", f"0 {user} 1{more}")


def write(path: str, value: str) -> None:
    with open(path, "w") as file:
        file.write(value)


def die_with_parent() -> None:
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def leave_world(request: dict[str, Any], result: int, left: int, wait_map: int) -> None:
    """Leave the namespaces of the machine, and start the first process of the new ones."""
    is_root = os.getuid() == 0
    call(
        "unshare",
        CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
    )
    os.write(left, b"1")
    if not os.read(wait_map, 1):
        raise OSError("the launcher has ended")
    die_with_parent()
    first = os.fork()
    if not first:
        run_or_say(result, lambda: rule_world(request, result, is_root))
    os.waitpid(first, 0)


def rule_world(request: dict[str, Any], result: int, is_root: bool) -> None:
    """Build the walls, run the program as another process, and say when it has ended."""
    die_with_parent()
    os.setsid()
    write("/proc/sys/user/max_user_namespaces", "0")  # no world within this one
    build_root(request["disk"])
    os.write(result, f"{READY}\n".encode())
    program = os.fork()
    if not program:
        run_or_say(result, lambda: give_up_rights(request, result, is_root))
        os._exit(0)
    _, status = os.waitpid(program, 0)
    os.write(result, f"\n{END} {status}\n".encode())


def build_root(disk: int) -> None:
    """Make a root that holds the libraries of Python, read only, and an empty /tmp; nothing else can be reached."""
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    sources = [os.path.dirname(os.__file__), *LIBRARIES]
    sources = [path for path in dict.fromkeys(map(os.path.abspath, sources)) if os.path.isdir(path)]
    point = next(
        path for path in MOUNT_POINTS if os.path.isdir(path) and not any(one.startswith(f"{path}/") for one in sources)
    )
    call("mount", b"tmpfs", point.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, b"size=1m,mode=755")
    for source in sources:
        bind(source, point + source)
    os.makedirs(f"{point}/tmp", exist_ok=True)
    options = f"size={disk},nr_inodes=4096,mode=1777".encode()
    call("mount", b"tmpfs", f"{point}/tmp".encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options)
    call("mount", None, point.encode(), None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, None)
    os.chdir(point)
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/tmp")


def bind(source: str, target: str) -> None:
    """Show a folder at another place, read only; what the machine has locked stays so."""
    if os.path.islink(source):
        source = os.path.realpath(source)
    os.makedirs(target, exist_ok=True)
    call("mount", source.encode(), target.encode(), None, MS_BIND | MS_REC, None)
    flags = os.statvfs(target).f_flag
    locked = (flags & 15) | (flags & 1024) | (flags & 2048) | ((1 << 21) if flags & 4096 else 0)
    call("mount", None, target.encode(), None, MS_REMOUNT | MS_BIND | MS_RDONLY | locked, None)


def give_up_rights(request: dict[str, Any], result: int, is_root: bool) -> None:
    """Give up every capability and descriptor, take on the limits, and run the program with its tests."""
    die_with_parent()
    for capability in range(CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if is_root:
        os.setgroups([])
        os.setresgid(INNER, INNER, INNER)
        os.setresuid(INNER, INNER, INNER)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    call("capset", header, data)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.closerange(3, result)
    os.closerange(result + 1, 4096)
    for name, most in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    outcome = run_program(request["program"], request["tests"], request["is_fenced"])
    os.write(result, (request["token"] if outcome is None else outcome).encode())


def run_program(program: str, tests: str, is_fenced: bool) -> str | None:
    """Run a program, then its tests in the same names; return None if all pass, UNREAD if that cannot be told."""
    try:
        checks = compile(tests, "<tests>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return UNREAD
    try:
        code = compile(program, "<program>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "" if is_fenced else UNREAD
    names: dict[str, Any] = {"__name__": "solution"}
    try:
        exec(code, names)
        exec(checks, names)
    except ModuleNotFoundError as error:
        return "" if (error.name or "").partition(".")[0] in sys.stdlib_module_names else UNREAD
    except BaseException:
        return ""
    return None


if __name__ == "__main__":
    main()
