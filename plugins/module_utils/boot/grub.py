"""GRUB's menu: what it would boot, and why.

The menu, grub.cfg, is a script in GRUB's own language. Everything outside of its entries is followed as GRUB does it,
with what only GRUB can know (its platform, fonts, disks) as unknown: of a condition on such a thing both ways are
taken, and entries on either way are marked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Optional

from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_script import (
    Block,
    Command,
    Condition,
    Loop,
    Parser,
    Part,
    ScriptError,
    Statement,
    Word,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

#: Variables that GRUB sets by itself at boot, whatever the environment block says now.
_UNKNOWN_VARIABLES = (
    *("grub_platform", "grub_cpu", "prefix", "root", "cmdpath", "config_directory", "config_file", "timeout_style"),
    *("recordfail", "pager", "lang", "locale_dir", "net_default_server", "shim_lock", "?", "#"),
)
#: Variables of the environment block that a system takes away once it is up.
_CLEARED_VARIABLES = ("initrdfail",)
#: What GRUB 2 says that it can do; menus ask for these.
_FEATURES = (
    *("200_final", "all_video_module", "chainloader_bpb", "default_font_path", "menuentry_id", "menuentry_options"),
    *("nativedisk_cmd", "ntldr", "platform_search_hint", "timeout_style"),
)
#: Arguments of a kernel that make its boot something else than the normal one.
_SPECIAL_ARGUMENTS = re.compile(
    r"^(single|recovery|rescue|emergency|s|S|1|init=.*|rdinit=.*|break(=.*)?"
    r"|systemd\.unit=(rescue|emergency)(\.target)?)$"
)
_LINUX = ("linux", "linuxefi", "linux16")
_INITRD = ("initrd", "initrdefi", "initrd16")
_XEN = ("multiboot", "multiboot2", "xen_hypervisor")
_MODULES = ("module", "module2", "xen_module")
_KERNEL_FILE = re.compile(r"^(?:vmlinu[xz]|kernel|bzImage)-(?P<release>.+)$")
_ENTRY_ID = re.compile(
    r"^(?:xen-)?gnulinux-(?!simple-|advanced-)(?P<release>.+?)-(?P<kind>advanced|recovery|init-[^-]+)(?:-|$)"
)
_WHO_ASKS = "someone has to answer at the console"


class MenuError(FleetError):
    """The menu or the settings are not as they must be; the message is for a person."""


@dataclass(frozen=True)
class Entry:
    """An entry or a submenu of the menu."""

    title: str
    identifier: str  # "" where the menu gives none; GRUB takes the title then
    parents: tuple[Entry, ...] = ()
    submenu: bool = False
    conditional: bool = False  # only GRUB knows whether it is there
    unrestricted: bool = False
    kind: str = "other"  # linux, xen or other (another system, firmware, a tool)
    kernels: tuple[str, ...] = ()  # as the menu names them
    initrds: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()  # of the kernel, without those that only GRUB knows
    children: tuple[Entry, ...] = ()
    line: int = 0

    @property
    def path(self) -> str:
        """Return what GRUB_DEFAULT and next_entry take: ids, or titles without an id, from the top down."""
        names = [entry.identifier or entry.title for entry in (*self.parents, self)]
        return ">".join(name.replace(">", ">>") for name in names)

    @property
    def release(self) -> str:
        """Return the kernel release that it boots: of the kernel's file name, else of its id; "" where none is seen."""
        for kernel in self.kernels:
            match = _KERNEL_FILE.match(kernel.rsplit("/", 1)[-1])
            if match:
                return match["release"]
        match = _ENTRY_ID.match(self.identifier)
        return match["release"] if match and not self.submenu else ""

    @property
    def foreign(self) -> bool:
        """Tell whether os-prober wrote it for another installation."""
        return any(
            entry.identifier.startswith("osprober-") or re.search(r" \(\S+ /dev/\S+\)( |$)", entry.title)
            for entry in (*self.parents, self)
        )

    @property
    def recovery(self) -> bool:
        """Tell whether it boots a recovery mode or another init than the normal one."""
        match = _ENTRY_ID.match(self.identifier)
        if match and match["kind"] != "advanced":
            return True
        return "recovery mode" in self.title or any(_SPECIAL_ARGUMENTS.match(word) for word in self.arguments)

    def argument(self, name: str) -> str:
        """Return the value of the last NAME=value on the kernel's command line, "" without one."""
        values = [word.partition("=")[2] for word in self.arguments if word.startswith(f"{name}=")]
        return values[-1] if values else ""

    def __str__(self) -> str:
        return f"'{' > '.join(entry.title for entry in (*self.parents, self))}' (line {self.line})"


@dataclass
class _Scope:
    """Where the interpreter is: the entries of this level, and what it knows."""

    variables: dict[str, Optional[str]]
    entries: list[Entry]
    parents: tuple[Entry, ...] = ()
    conditional: bool = False
    functions: dict[str, tuple[Statement, ...]] = field(default_factory=dict)
    depth: int = 0


class Menu:
    """A menu as GRUB would see it at the next boot with the given environment block."""

    def __init__(
        self, text: str, block: Optional[Mapping[str, str]] = None, sources: Optional[Mapping[str, str]] = None
    ) -> None:
        """Follow the menu of TEXT; SOURCES are files that it may read, by name. Raises MenuError."""
        self._block = block
        self._sources = dict(sources or {})
        self._text = text
        self.boot_loader_spec = False
        self.timeouts: set[str] = set()
        self.saved: dict[str, Optional[str]] = {}  # what GRUB writes into the environment block before it boots
        self.default_line = 0
        features: dict[str, Optional[str]] = {f"feature_{name}": "y" for name in _FEATURES}
        scope = _Scope({**dict.fromkeys(_UNKNOWN_VARIABLES), **features}, [])
        try:
            self._run(Parser(text).script(), scope)
        except ScriptError as error:
            raise MenuError(str(error)) from error
        self.entries: tuple[Entry, ...] = tuple(scope.entries)
        #: What decides which entry is booted: an id path, a title or a number; None where only GRUB can know.
        self.default: Optional[str] = scope.variables.get("default", "")
        self.superusers: Optional[str] = scope.variables.get("superusers", "")

    def all_entries(self) -> Iterator[Entry]:
        """Yield every entry that boots something, submenus' too, from top to bottom."""

        def walk(entries: tuple[Entry, ...]) -> Iterator[Entry]:
            for entry in entries:
                if entry.submenu:
                    yield from walk(entry.children)
                else:
                    yield entry

        return walk(self.entries)

    def releases(self) -> list[str]:
        """Return the kernel releases of this system's own normal entries, in the menu's order."""
        own = (entry for entry in self.all_entries() if entry.kind == "linux" and not entry.foreign)
        return list(dict.fromkeys(entry.release for entry in own if entry.release and not entry.recovery))

    def find(self, release: str) -> Entry:
        """Return the normal entry of a kernel release, by id, else by title, else by the kernel that it loads.

        Raises MenuError where there is none, or where there are several and none is better than the others.
        """
        if self.boot_loader_spec:
            raise MenuError(
                "this menu takes its entries from /boot/loader/entries (blscfg), which are chosen by other means"
            )
        own = [
            entry for entry in self.all_entries() if entry.kind == "linux" and not entry.foreign and not entry.recovery
        ]
        by_id = [entry for entry in own if _id_release(entry) == release]
        named = [entry for entry in own if not _id_release(entry) and entry.release == release]
        # The entry on top of the menu stands for whichever kernel is newest: its id stays while its kernel changes.
        named = [entry for entry in named if not entry.identifier.startswith("gnulinux-simple")]
        by_title = [entry for entry in named if re.search(rf"(^|\s){re.escape(release)}(\s|$)", entry.title)]
        for candidates in (by_id, by_title, named):
            if len(candidates) > 1:
                raise MenuError(
                    f"GRUB's menu has several entries of kernel {release}: "
                    + " and ".join(f"{entry}" for entry in candidates)
                )
            if candidates:
                return self._checked(candidates[0], release)
        raise MenuError(
            f"GRUB's menu has no entry of kernel {release}; "
            f"it has {', '.join(self.releases()) or 'no Linux entry of this system'}"
        )

    def _checked(self, entry: Entry, release: str) -> Entry:
        loaded = {Entry("", "", kernels=(kernel,)).release for kernel in entry.kernels}
        if loaded != {release}:
            raise MenuError(
                f"the entry {entry} is named after kernel {release} but loads {' and '.join(entry.kernels)}"
            )
        if self.resolve(entry.path) is not entry:
            raise MenuError(f"GRUB would take '{entry.path}' for another entry than {entry}")
        return entry

    def resolve(self, default: str) -> Optional[Entry]:
        """Return the entry that GRUB boots for a value of ``default``; None where that depends on the machine."""
        entries, rest = self.entries, default
        while entries:
            name, rest = _first_name(rest)
            entry = _chosen(entries, name)
            if entry is None or not entry.submenu:
                return entry
            entries = entry.children
        return None

    def default_entry(self) -> Entry:
        """Return the entry that is booted by itself; raises MenuError where that cannot be told."""
        if self.default is None:
            raise MenuError("which entry GRUB's menu boots by itself depends on what only GRUB knows")
        entry = self.resolve(self.default)
        if entry is None:
            raise MenuError(f"GRUB's default '{self.default}' leads to an entry that only GRUB can tell")
        return entry

    def has_named(self, default: str) -> bool:
        """Tell whether the menu has what a value of ``default`` names; where not, GRUB boots the first entry."""
        entries, rest = self.entries, default
        while rest:
            name, rest = _first_name(rest)
            found = _named(entries, name)
            if found is None:
                return False
            entries = found.children
        return True

    def waits(self) -> str:
        """Return why this menu may wait for a person, "" where it does not."""
        if not self.timeouts:
            return "GRUB's menu sets no timeout, so it waits until " + _WHO_ASKS
        if any(timeout.startswith("-") for timeout in self.timeouts):
            return "GRUB's menu has a timeout of -1, so it waits until " + _WHO_ASKS
        return ""

    def asks_password(self, entry: Entry) -> str:
        """Return why GRUB would ask for a password before it boots an entry, "" where it does not."""
        if self.superusers == "" or all(level.unrestricted for level in (*entry.parents, entry)):
            return ""
        return f"GRUB's menu has passwords, and the entry {entry} is not --unrestricted, so {_WHO_ASKS}"

    def default_origin(self) -> str:
        """Return the file under /etc/grub.d that set the default last, as grub-mkconfig marks it; "" if unknown."""
        origin = ""
        for line in self._text.splitlines()[: self.default_line]:
            match = re.match(r"### (BEGIN|END) (\S+) ###$", line)
            if match:
                origin = match[2] if match[1] == "BEGIN" else ""
        return origin

    # GRUB's commands

    def _run(self, statements: tuple[Statement, ...], scope: _Scope) -> None:
        for statement in statements:
            if isinstance(statement, Command):
                self._command(statement, scope)
            elif isinstance(statement, Block):
                self._block_statement(statement, scope)
            elif isinstance(statement, Loop):
                self._either([statement.body, ()], scope)
            else:
                self._branches(statement, scope)

    def _branches(self, condition: Condition, scope: _Scope) -> None:
        possible: list[tuple[Statement, ...]] = []
        for test, body in condition.branches:
            truth = self._truth(test, scope) if test else True
            if truth is not False:
                possible.append(body)
            if truth:
                break
        else:
            possible.append(())
        self._either(possible, scope)

    def _either(self, possible: list[tuple[Statement, ...]], scope: _Scope) -> None:
        """Follow one of several ways, or all of them where it is not known which one is taken."""
        if len(possible) == 1:
            self._run(possible[0], scope)
            return
        outcomes = []
        before = dict(scope.variables)
        for body in possible:
            way = _Scope(dict(before), scope.entries, scope.parents, True, scope.functions, scope.depth)
            self._run(body, way)
            outcomes.append(way.variables)
        for name in {name for outcome in outcomes for name in outcome}:
            values = {outcome.get(name, "") for outcome in outcomes}
            scope.variables[name] = values.pop() if len(values) == 1 else None

    def _command(self, command: Command, scope: _Scope) -> None:  # noqa: PLR0912 (one branch for each of GRUB's commands)
        name = command.words[0].expand(scope.variables)
        words = [word for word in command.words[1:] if not word.vanishes(scope.variables)]
        arguments = [word.expand(scope.variables) for word in words]
        if name is None:
            return
        if name == "set":
            for word, argument in zip(words, arguments):
                self._assign(word, argument, scope)
        elif re.match(r"\w+=", name) and not words:
            self._assign(command.words[0], name, scope)
        elif name == "unset":
            for argument in arguments:
                scope.variables.pop(argument or "", None)
        elif name == "load_env":
            if "-f" not in arguments and "--file" not in arguments:
                wanted = [argument for argument in arguments if argument and not argument.startswith("-")]
                for key, value in (self._block or {}).items():
                    if (not wanted or key in wanted) and key not in (*_UNKNOWN_VARIABLES, *_CLEARED_VARIABLES):
                        scope.variables[key] = value
        elif name == "save_env":
            if not scope.depth:
                for argument in arguments:
                    self.saved[argument or ""] = None if scope.conditional else scope.variables.get(argument or "", "")
        elif name in ("source", ".", "configfile"):
            self._source(words, scope)
        elif name in ("blscfg", "bls_import"):
            self.boot_loader_spec = True
        elif name in scope.functions and scope.depth < 10:
            inner = _Scope(
                scope.variables, scope.entries, scope.parents, scope.conditional, scope.functions, scope.depth + 1
            )
            self._run(scope.functions[name], inner)

    def _source(self, words: list[Word], scope: _Scope) -> None:
        for word in words:
            text = self._sources.get(_file_name(word))
            if text is not None and scope.depth < 10:
                inner = _Scope(
                    scope.variables, scope.entries, scope.parents, scope.conditional, scope.functions, scope.depth + 1
                )
                try:
                    self._run(Parser(text).script(), inner)
                except ScriptError as error:
                    raise MenuError(f"{_file_name(word)}, {error}") from error

    def _assign(self, word: Word, text: Optional[str], scope: _Scope) -> None:
        # Where the value is not known, the name in front of the first variable still is.
        known = text if text is not None else (word.parts[0].text if word.parts[0].kind in ("plain", "quoted") else "")
        name, equals, value = known.partition("=")
        if not equals:
            return
        scope.variables[name] = value if text is not None else None
        if name == "timeout":
            self.timeouts.add(value)
        elif name == "default":
            self.default_line = word.line

    def _truth(self, test: tuple[Statement, ...], scope: _Scope) -> Optional[bool]:
        if len(test) != 1 or not isinstance(test[0], Command):
            return None
        words = [word for word in test[0].words if not word.vanishes(scope.variables)]
        name = words[0].expand(scope.variables) if words else ""
        if name in ("true", "false"):
            return name == "true"
        if name not in ("[", "test"):
            return None
        return self._test(words[1:-1] if name == "[" else words[1:], scope)

    def _test(self, words: list[Word], scope: _Scope) -> Optional[bool]:
        """Return what a test says, None where that is not known."""
        for index, word in enumerate(words):
            if word.plain in ("-o", "-a"):
                left, right = self._test(words[:index], scope), self._test(words[index + 1 :], scope)
                decisive = word.plain == "-o"
                if decisive in (left, right):
                    return decisive
                return None if None in (left, right) else not decisive
        if words and words[0].plain == "!":
            truth = self._test(words[1:], scope)
            return None if truth is None else not truth
        if len(words) == 2 and words[0].plain in ("-s", "-f", "-e"):
            return self._file_test(_file_name(words[1]))
        return _comparison([word.expand(scope.variables) for word in words])

    def _file_test(self, name: str) -> Optional[bool]:
        """Tell whether GRUB finds a file, by its name alone."""
        if name == "grubenv":
            return self._block is not None
        return name in self._sources if name in self._sources or name == "custom.cfg" else None

    def _block_statement(self, block: Block, scope: _Scope) -> None:
        keyword = block.words[0].plain
        if keyword == "function":
            if len(block.words) > 1:
                scope.functions[block.words[1].expand(scope.variables) or ""] = block.body
            return
        if keyword == "hiddenentry":
            return
        title, options = _entry_words(block.words[1:], scope.variables)
        head = Entry(
            title=title,
            identifier=options.get("id", ""),
            parents=scope.parents,
            submenu=keyword == "submenu",
            conditional=scope.conditional,
            unrestricted="unrestricted" in options,
            line=block.words[0].line,
        )
        if head.submenu:
            children: list[Entry] = []
            inner = _Scope(
                dict(scope.variables), children, (*scope.parents, head), False, dict(scope.functions), scope.depth + 1
            )
            self._run(block.body, inner)
            scope.entries.append(replace(head, children=tuple(children)))
        else:
            scope.entries.append(_boots(head, block.body, scope.variables))


def _comparison(values: list[Optional[str]]) -> Optional[bool]:
    """Return what a test of strings says, None where that is not known."""
    if None in values:
        return None
    if len(values) < 2:
        return bool(values and values[0])
    if len(values) == 2 and values[0] in ("-n", "-z"):
        return bool(values[1]) == (values[0] == "-n")
    if len(values) == 3 and values[1] in ("=", "==", "!="):
        return (values[0] == values[2]) == (values[1] != "!=")
    return None


def _file_name(word: Word) -> str:
    """Return the last component of a path in a word, whose directory may be unknown."""
    last = word.parts[-1] if word.parts else Part("plain", "")
    return last.text.rsplit("/", 1)[-1] if last.kind in ("plain", "quoted") else ""


def _entry_words(words: tuple[Word, ...], variables: Mapping[str, Optional[str]]) -> tuple[str, dict[str, str]]:
    """Return the title and the options of a menuentry's or submenu's words."""
    texts = [word.expand(variables) or "" for word in words if not word.vanishes(variables)]
    title, options = None, dict[str, str]()
    while texts:
        text = texts.pop(0)
        name, equals, value = text[2:].partition("=")
        if not text.startswith("--") or not name:
            title = text if title is None else title  # what follows is for the entry's own script
        elif name == "unrestricted":
            options[name] = ""
        else:
            options[name] = value if equals or not texts else texts.pop(0)
    return title or "", options


def _boots(head: Entry, body: tuple[Statement, ...], variables: Mapping[str, Optional[str]]) -> Entry:
    """Return an entry with what its script loads."""
    kernels: list[str] = []
    initrds: list[tuple[str, ...]] = []
    lines: list[tuple[str, ...]] = []
    xen = False
    for command in _commands(body):
        name = command.words[0].plain
        words = [word for word in command.words[1:] if not word.plain.startswith("--")]
        xen = xen or name in _XEN
        if not words:
            continue
        files = [_file(word, variables) for word in words]
        if name in _LINUX or (xen and name in _MODULES and _KERNEL_FILE.match(files[0].rsplit("/", 1)[-1])):
            kernels.append(files[0])
            # Within an entry anything may be set by then; a word with a variable of GRUB's is left out.
            unknown = [word.expand({**dict.fromkeys(_names(word)), **_known(word, variables)}) for word in words[1:]]
            lines.append(tuple(text for text in unknown if text))
        elif name in _INITRD:
            initrds.append(tuple(filter(None, files)))
    return replace(
        head,
        kind="xen" if xen else "linux" if kernels else "other",
        kernels=tuple(dict.fromkeys(kernels)),
        initrds=initrds[0] if initrds else (),
        arguments=lines[0] if lines else (),
    )


def _names(word: Word) -> list[str]:
    return [part.text for part in word.parts if part.kind == "variable"]


def _known(word: Word, variables: Mapping[str, Optional[str]]) -> dict[str, Optional[str]]:
    return {name: variables[name] for name in _names(word) if name in variables}


def _file(word: Word, variables: Mapping[str, Optional[str]]) -> str:
    """Return the path of a file without GRUB's device in parentheses."""
    path = word.expand({**dict.fromkeys(_names(word), ""), **{k: v or "" for k, v in _known(word, variables).items()}})
    return re.sub(r"^\([^)]*\)", "", path or "")


def _commands(statements: tuple[Statement, ...]) -> Iterator[Command]:
    """Yield every command, on whichever way."""
    for statement in statements:
        if isinstance(statement, Command):
            yield statement
        elif isinstance(statement, Condition):
            for test, body in statement.branches:
                yield from _commands(test)
                yield from _commands(body)
        else:
            yield from _commands(statement.body)


def _id_release(entry: Entry) -> str:
    """Return the release that the id of a normal entry names, "" for other ids."""
    match = _ENTRY_ID.match(entry.identifier)
    return match["release"] if match else ""


def _first_name(path: str) -> tuple[str, str]:
    """Split the first name off a path; '>>' in a name is one '>'."""
    match = re.match(r"(?P<name>(?:[^>]|>>)*)(?:>(?P<rest>.*))?$", path, re.DOTALL)
    return (match["name"].replace(">>", ">"), match["rest"] or "") if match else (path, "")


def _named(entries: tuple[Entry, ...], name: str) -> Optional[Entry]:
    """Return the entry that a number, title or id names."""
    if name.isdecimal():
        return entries[int(name)] if int(name) < len(entries) else None
    return next((entry for entry in entries if name in (entry.title, entry.identifier)), None)


def _chosen(entries: tuple[Entry, ...], name: str) -> Optional[Entry]:
    """Return the entry that GRUB takes for a name: the first one where none has it; None where it depends."""
    entry = _named(entries, name)
    by_number = entry is None or name.isdecimal()
    if re.match(r"\d+\D", name):
        return None  # some versions of GRUB take it for the number that it begins with
    if entry is None:
        entry = entries[0]
    if entry.conditional or (by_number and any(other.conditional for other in entries[: entries.index(entry)])):
        return None
    return entry
