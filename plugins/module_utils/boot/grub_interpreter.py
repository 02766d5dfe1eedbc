"""Follows GRUB's menu, grub.cfg, as GRUB does: a script in its own language.

It follows everything outside of entries. What only GRUB can know (its platform, fonts, disks) is unknown: of
a condition on that it takes both branches, and marks the entries in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Optional

from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_entry import KERNEL_FILE, Entry, MenuError
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_script import (
    Block,
    Command,
    Condition,
    GrubScriptError,
    Loop,
    Parser,
    Statement,
    Word,
    WordPart,
)

#: Variables that GRUB sets by itself at boot, whatever the environment block says now.
_UNKNOWN_VARIABLES = (
    *("grub_platform", "grub_cpu", "prefix", "root", "cmdpath", "config_directory", "config_file", "timeout_style"),
    *("recordfail", "pager", "lang", "locale_dir", "net_default_server", "shim_lock", "?", "#"),
)
#: Variables of the environment block that a system removes once it is up.
_CLEARED_VARIABLES = ("initrdfail",)
#: Features that GRUB 2 announces; menus ask for these.
_FEATURES = (
    *("200_final", "all_video_module", "chainloader_bpb", "default_font_path", "menuentry_id", "menuentry_options"),
    *("nativedisk_cmd", "ntldr", "platform_search_hint", "timeout_style"),
)
_LINUX = ("linux", "linuxefi", "linux16")
_INITRD = ("initrd", "initrdefi", "initrd16")
_XEN = ("multiboot", "multiboot2", "xen_hypervisor")
_MODULES = ("module", "module2", "xen_module")


@dataclass
class _Scope:
    """The interpreter's place: the entries of this level, and known variables."""

    variables: dict[str, Optional[str]]
    entries: list[Entry]
    parents: tuple[Entry, ...] = ()
    conditional: bool = False
    functions: dict[str, tuple[Statement, ...]] = field(default_factory=dict)
    depth: int = 0


class Interpreter:
    """The result of running a menu with the given environment block."""

    def __init__(self, text: str, block: Optional[Mapping[str, str]], sources: Mapping[str, str]) -> None:
        """Follow the menu of TEXT; SOURCES are files that it may read, by name. Raises MenuError."""
        self._block = block
        self._sources = dict(sources)
        self.boot_loader_spec = False
        self.timeouts: set[str] = set()
        self.saved: dict[str, Optional[str]] = {}  # variables that GRUB writes into the environment block before boot
        self.default_line = 0
        features: dict[str, Optional[str]] = {f"feature_{name}": "y" for name in _FEATURES}
        scope = _Scope({**dict.fromkeys(_UNKNOWN_VARIABLES), **features}, [])
        try:
            self._run(Parser(text).script(), scope)
        except GrubScriptError as error:
            raise MenuError(str(error)) from error
        self.entries: tuple[Entry, ...] = tuple(scope.entries)
        self.variables = scope.variables

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
        """Follow one of several branches, or all of them if it is unknown which one GRUB takes."""
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
                except GrubScriptError as error:
                    raise MenuError(f"{_file_name(word)}, {error}") from error

    def _assign(self, word: Word, text: Optional[str], scope: _Scope) -> None:
        # If the value is unknown, the name before the first variable is still known.
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
        """Return the result of a test, None if unknown."""
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
    """Return the result of a string test, None if unknown."""
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
    last = word.parts[-1] if word.parts else WordPart("plain", "")
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
        if name in _LINUX or (xen and name in _MODULES and KERNEL_FILE.match(files[0].rsplit("/", 1)[-1])):
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
    """Yield every command, of every branch."""
    for statement in statements:
        if isinstance(statement, Command):
            yield statement
        elif isinstance(statement, Condition):
            for test, body in statement.branches:
                yield from _commands(test)
                yield from _commands(body)
        else:
            yield from _commands(statement.body)
