"""The Debian package: built twice it is the same; dpkg installs it into a tree of its own, from which the installed program
runs with the installed configuration; what an administrator has changed stays; a purge leaves nothing.

The tree has what dpkg needs and no more, and maintainer scripts run from outside of it (DPKG_ROOT), so that nothing of
this machine changes. The program is the one that tests/run has built with both features: to build another takes minutes and
shows nothing of the package. Called by tests/run, as root, where dpkg-dev is.
"""

import contextlib
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "foreign"))

import harness
from harness import ROOT, Daemon, case, expect, require, run

# Not under the system's own folder for such: that may allow no devices.
FOLDERS = pathlib.Path(os.environ["PACKAGED_TARGET"])
FOLDERS.mkdir(parents=True, exist_ok=True)

CONFIG = "etc/revolve/revolve.toml"
DOC = "usr/share/doc/revolve"

# Debian gives its programs to systems without systemd too: there useradd makes the user.
WITHOUT = ("systemd-sysusers", "deb-systemd-helper", "deb-systemd-invoke", "systemctl")


# Of what lintian tells: a maintainer without an address, unless DEBEMAIL has one; no bug of Debian's that is closed; and that
# the user is looked for in the other tree's own file.
PASSED_OVER = (
    "malformed-contact,syntax-error-in-debian-changelog,initial-upload-closes-no-bugs,"
    "maintainer-script-should-not-parse-etc-passwd-or-group"
)


def said(*command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    require(done.returncode == 0, f"{command}: {done.returncode}, {done.stdout}{done.stderr}")
    return done.stdout


def build(folder):
    """The path of the package."""
    made = said(str(ROOT / "packaging/deb/build"), "--binary", harness.BINARY, folder)
    return pathlib.Path(made.strip())


@contextlib.contextmanager
def tree():
    """A root of a file system, in which nothing is installed and a few users are."""
    with tempfile.TemporaryDirectory(dir=FOLDERS) as folder:
        root = pathlib.Path(folder)
        root.chmod(0o755)
        for name in ("updates", "info", "triggers"):
            (root / "var/lib/dpkg" / name).mkdir(parents=True)
        for name in ("status", "available"):
            (root / "var/lib/dpkg" / name).touch()
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        # What the C library and the program ask for.
        (root / "dev").mkdir()
        os.mknod(root / "dev/urandom", stat.S_IFCHR | 0o666, os.makedev(1, 9))
        yield root


def dpkg(root, *arguments, path=os.environ["PATH"]):
    # What a package depends on is this machine's, and not in the tree.
    forced = ("--force-script-chrootless", "--force-depends", "--force-confdef", "--path-include=/usr/share/*")
    command = ("dpkg", f"--root={root}", *forced, *arguments)
    return said(*command, env={"PATH": path, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"})


@contextlib.contextmanager
def path_without_systemd():
    with tempfile.TemporaryDirectory(dir=FOLDERS) as folder:
        for place in ("/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
            for program in pathlib.Path(place).glob("*"):
                link = pathlib.Path(folder, program.name)
                if program.name not in WITHOUT and not link.is_symlink():
                    link.symlink_to(program)
        yield folder


def status(root):
    return said("dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Status}", "revolve")


@case(seconds=60)
async def the_same_program_makes_the_same_package():
    with tempfile.TemporaryDirectory(dir=FOLDERS) as folder:
        one, two = build(f"{folder}/one"), build(f"{folder}/two")
        require(one.read_bytes() == two.read_bytes(), "two builds differ")
        fields = dict(
            line.split(": ", 1) for line in said("dpkg-deb", "-f", str(one)).splitlines() if line[0] != " "
        )
        number = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        expect(fields["Version"], f"{number}-1", "its version")
        require("libc6 (>= " in fields["Depends"], f"it depends on {fields['Depends']}")
        listed = said("dpkg-deb", "-c", str(one)).splitlines()
        for line in listed:
            mode, owner = line.split()[:2]
            right = {"d": "drwxr-xr-x", "-": "-rw-r--r--"}[mode[0]]
            if line.endswith(("/usr/bin/revolve", "/examples/switch")):
                right = "-rwxr-xr-x"
            expect((mode, owner), (right, "root/root"), line)
        expect(said("dpkg-deb", "-I", str(one), "conffiles"), f"/{CONFIG}\n", "its conffiles")
        if shutil.which("lintian"):
            told = said("lintian", "--fail-on", "error,warning", "--suppress-tags", PASSED_OVER, str(one))
            expect(told, "", "lintian")


@case(seconds=60)
async def dpkg_installs_it_and_the_program_runs_from_there():
    with tempfile.TemporaryDirectory(dir=FOLDERS) as folder, tree() as root:
        package = str(build(folder))
        dpkg(root, "--install", package)
        expect(status(root), "install ok installed", "status")
        user = re.search(r"^revolve:[^:]*:(\d+):(\d+):.*:/usr/sbin/nologin$", (root / "etc/passwd").read_text(), re.M)
        require(user, (root / "etc/passwd").read_text())
        owner = (int(user[1]), int(user[2]))
        state = (root / "var/lib/revolve").stat()
        expect((state.st_uid, state.st_gid), owner, "who owns the directory of the store")
        expect(state.st_mode & 0o777, 0o700, "its mode")
        units = said("systemd-analyze", "cat-config", f"--root={root}", "systemd/system/revolve.service")
        require("ExecStart=/usr/bin/revolve" in units, units)
        again = (root / "usr/lib/systemd/system/revolve@.service").read_text()
        require(again == (root / "usr/lib/systemd/system/revolve.service").read_text(), "the template differs")
        enabled = root / "etc/systemd/system/multi-user.target.wants/revolve.service"
        require(enabled.is_symlink(), "the service is not enabled")
        page = said("man", "--local-file", str(root / "usr/share/man/man1/revolve.1.gz"))
        require("--store" in page, "the manual page")
        notices = said("zcat", str(root / DOC / "third-party.gz"))
        for crate in ("mio", "rustls", "ring", "zlib-rs"):
            require(f"\n--- {crate} " in notices, f"the licence of {crate} is not there")
        require(notices.count("Permission is hereby granted") > 5, "hardly any texts of licences")
        # Alone with what its package depends on, as its own user.
        for line in said("ldd", str(root / "usr/bin/revolve")).splitlines():
            if library := re.search(r"(/\S+)", line):
                to = root / library[1].lstrip("/")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library[1], to)
        wrapper = pathlib.Path(folder, "installed")
        in_there = f"exec chroot --userspec={owner[0]}:{owner[1]} {root} /usr/bin/revolve"
        wrapper.write_text(f'#!/bin/sh\n{in_there} "$@"\n')
        wrapper.chmod(0o755)
        plain, harness.BINARY = harness.BINARY, str(wrapper)
        try:
            for count in (1, 2):
                async with Daemon("--config", f"/{CONFIG}") as daemon:
                    async with daemon.connect("?session_id=a") as client:
                        await client.send("hello")
                        expect(await client.recv(), f'{{"count": {count}}}', "reply")
        finally:
            harness.BINARY = plain
        dpkg(root, "--purge", "revolve")
        require(not enabled.is_symlink(), "a purge leaves the service enabled")
        require(not (root / "var/lib/revolve").exists(), "a purge leaves the store")


@case(seconds=60)
async def what_is_changed_stays_and_a_purge_leaves_nothing():
    with tempfile.TemporaryDirectory(dir=FOLDERS) as folder, tree() as root, path_without_systemd() as path:
        package = str(build(folder))
        dpkg(root, "--install", package, path=path)
        require("revolve:" in (root / "etc/passwd").read_text(), "useradd has made no user")
        config = root / CONFIG
        config.write_text(config.read_text() + "port = 9000\n")
        (root / "var/lib/revolve/session").touch()
        users = (root / "etc/passwd").read_text()
        # An upgrade.
        dpkg(root, "--install", package, path=path)
        require(config.read_text().endswith("port = 9000\n"), "an upgrade has replaced the configuration")
        expect((root / "etc/passwd").read_text(), users, "users behind an upgrade")
        dpkg(root, "--remove", "revolve", path=path)
        expect(status(root), "deinstall ok config-files", "status")
        require(config.exists() and not (root / "usr/bin/revolve").exists(), "what a removal leaves")
        require((root / "var/lib/revolve/session").exists(), "a removal has taken the sessions along")
        dpkg(root, "--purge", "revolve", path=path)
        left = [
            str(file.relative_to(root))
            for file in root.rglob("*")
            if "revolve" in file.name and "var/lib/dpkg" not in str(file)
        ]
        expect(left, [], "what a purge leaves")


run()
