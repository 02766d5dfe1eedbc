"""GRUB's menu, settings and environment block are read as GRUB reads them; unknown syntax is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_entry import (
    MenuError,
)
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_menu import (
    Menu,
)
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_settings import (
    BlockError,
    EnvironmentBlock,
    GrubSettings,
    GrubSettingsError,
    menu_quote,
    settings_files,
    shell_quote,
)

MENUS = Path(__file__).parents[2] / "support/menus"
UUID = "5f0c3a5e-0c3f-4b42-9b8e-6d5f4c3b2a10"
BOOT_UUID = "1c2d3e4f-1111-4222-8333-944455566677"
HWE = ["6.2.0-26-generic", "5.19.0-41-generic"]


def menu(name: str, block: dict[str, str] | None = None) -> Menu:
    return Menu((MENUS / f"{name}.cfg").read_text(), block or {})


def path_of(release: str, uuid: str = UUID) -> str:
    return f"gnulinux-advanced-{uuid}>gnulinux-{release}-advanced-{uuid}"


# ------------------------------------------------------------------------------------------------- layouts of menus


@pytest.mark.parametrize(
    ("name", "releases", "uuid", "directory"),
    [
        ("ubuntu2004", ["5.15.0-67-generic", "5.4.0-144-generic"], UUID, "/boot"),
        ("ubuntu2204", HWE, UUID, "/boot"),
        ("ubuntu2204-cloud", ["5.15.0-91-generic", "5.15.0-88-generic"], UUID, "/boot"),
        ("ubuntu2204-dual", HWE, UUID, "/boot"),
        ("ubuntu2204-german", HWE, UUID, "/boot"),
        ("ubuntu2204-luks-boot", HWE, BOOT_UUID, ""),
        ("ubuntu2204-lvm", HWE, UUID, "/boot"),
        ("ubuntu2204-passwords", HWE, UUID, "/boot"),
        ("ubuntu2404", ["6.8.0-51-generic", "6.8.0-31-generic"], UUID, "/boot"),
        ("ubuntu2404-btrfs", ["6.8.0-51-generic", "6.8.0-31-generic"], UUID, "/@/boot"),
        ("debian12", ["6.1.0-28-amd64", "6.1.0-13-cloud-amd64"], UUID, "/boot"),
        ("debian12-french", ["6.1.0-28-amd64", "6.1.0-26-amd64"], UUID, "/boot"),
        ("debian12-luks", ["6.1.0-28-amd64", "6.1.0-26-amd64"], UUID, "/boot"),
        ("debian12-xen", ["6.1.0-28-amd64", "6.1.0-26-amd64"], UUID, "/boot"),
    ],
)
def test_kernels_are_found_by_id_in_menus_of_every_layout(
    name: str, releases: list[str], uuid: str, directory: str
) -> None:
    found = menu(name)
    assert found.releases() == releases
    for release in releases:
        entry = found.find(release)
        assert entry.path == path_of(release, uuid)
        assert entry.kernels == (f"{directory}/vmlinuz-{release}",)
        assert entry.initrds == (f"{directory}/initrd.img-{release}",)
        assert entry.arguments[0].startswith("root=") and "ro" in entry.arguments
        assert not any("vt_handoff" in argument for argument in entry.arguments)
        assert found.resolve(entry.path) is entry
    assert found.default_entry().release in releases
    assert found.waits() == ""


def test_a_flat_menu_has_ids_without_a_submenu() -> None:
    found = menu("ubuntu2204-flat")
    assert found.find(HWE[1]).path == f"gnulinux-{HWE[1]}-advanced-{UUID}"
    assert found.default_entry().path == f"gnulinux-{HWE[0]}-advanced-{UUID}"


def test_titles_name_entries_without_ids_in_grubs_own_quoting() -> None:
    found = menu("debian12-french-no-ids")
    path = found.find("6.1.0-26-amd64").path
    assert path == (
        "Options avancées pour L'atelier >> Debian>L'atelier >> Debian, avec Linux 6.1.0-26-amd64"
    )  # the title's own '>' is doubled
    entry = found.resolve(path)
    assert entry is not None and entry.release == "6.1.0-26-amd64"


def test_arguments_of_the_file_system_are_kept() -> None:
    assert "rootflags=subvol=@" in menu("ubuntu2404-btrfs").find("6.8.0-31-generic").arguments
    assert "root=/dev/mapper/dm_crypt-0" in menu("ubuntu2204-luks-boot").find(HWE[0]).arguments


def test_the_attempt_without_initramfs_of_cloud_images_is_the_same_entry() -> None:
    entry = menu("ubuntu2204-cloud").find("5.15.0-88-generic")
    assert entry.initrds and entry.argument("panic") == ""


def test_entries_of_other_systems_are_not_ours() -> None:
    found = menu("ubuntu2204-dual")
    foreign = [entry for entry in found.all_entries() if entry.foreign]
    assert len(foreign) == 4  # Windows and the other Ubuntu's three
    with pytest.raises(MenuError, match=r"no entry of kernel 6\.5\.0-14-generic"):
        found.find("6.5.0-14-generic")  # which only the other Ubuntu has
    assert not found.find(HWE[1]).foreign  # which both have


def test_tools_and_firmware_are_no_kernels() -> None:
    kinds = {entry.title: entry.kind for entry in menu("ubuntu2404").all_entries()}
    assert kinds["UEFI Firmware Settings"] == "other"
    found = {entry.title: entry for entry in menu("ubuntu2004").all_entries()}
    assert found["Memory test (memtest86+)"].release == ""


def test_entries_of_xen_are_told_from_those_without() -> None:
    found = menu("debian12-xen")
    xen = [entry for entry in found.all_entries() if entry.kind == "xen"]
    assert {entry.release for entry in xen} == {"6.1.0-28-amd64", "6.1.0-26-amd64"}
    assert xen[1].parents[-1].identifier == f"xen-hypervisor-4.17-amd64-{UUID}"
    assert found.find("6.1.0-26-amd64").kind == "linux"


def test_recovery_entries_are_known_in_every_language() -> None:
    for name in ("ubuntu2204", "debian12-french", "debian12-french-no-ids", "ubuntu2004"):
        recovery = [entry for entry in menu(name).all_entries() if entry.recovery]
        assert len(recovery) == 2, name


@pytest.mark.parametrize(
    "written",
    [
        ("Z $menuentry_id_option gnulinux-1.2-x-recovery-u", ""),
        ("Z $menuentry_id_option gnulinux-1.2-x-init-upstart-u", ""),
        ("'Linux 1.2-x (recovery mode)'", ""),
        ("Z", "single"),
        ("Z", "quiet recovery nomodeset"),
        ("Z", "systemd.unit=rescue.target"),
        ("Z", "rd.systemd.unit=emergency.target"),
        ("Z", "rd.break"),
        ("Z", "rd.break=pre-mount"),
        ("Z", "init=/bin/sh"),
    ],
)
def test_each_sign_of_a_recovery_entry_counts(written: tuple[str, str]) -> None:
    title, arguments = written
    assert Menu(HEAD + linux(title, "1.2-x", arguments)).entries[0].recovery
    assert not Menu(HEAD + linux("Z $menuentry_id_option gnulinux-1.2-x-advanced-u", "1.2-x")).entries[0].recovery


def test_what_a_boot_without_initramfs_left_does_not_outlive_the_system() -> None:
    found = menu("ubuntu2204-cloud", {"initrdfail": "1", "next_entry": path_of("5.15.0-88-generic")})
    assert found.default_entry().release == "5.15.0-88-generic"


def test_entries_from_boot_loader_specification_are_refused() -> None:
    assert menu("fedora-bls").boot_loader_spec
    with pytest.raises(MenuError, match="blscfg"):
        menu("fedora-bls").find("6.8.5-301.fc40.x86_64")


def test_passwords_matter_where_an_entry_is_not_free() -> None:
    found = menu("ubuntu2204-passwords")
    assert "--unrestricted" in found.asks_password(found.default_entry())
    free = Menu(
        (MENUS / "ubuntu2204-passwords.cfg").read_text().replace("--class os ", "--class os --unrestricted "), {}
    )
    assert free.asks_password(free.default_entry()) == ""
    assert menu("ubuntu2204").asks_password(menu("ubuntu2204").default_entry()) == ""


def test_a_release_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(MenuError, match=r"no entry of kernel 5\.19\.0-4; it has 6\.2\.0-26-generic, 5\.19\.0-41-gen"):
        menu("ubuntu2204").find("5.19.0-4")


# --------------------------------------------------------------------------------------- what decides the next boot


@pytest.mark.parametrize(
    ("block", "release"),
    [
        ({}, HWE[0]),
        ({"saved_entry": path_of(HWE[1])}, HWE[1]),
        ({"saved_entry": "1>2"}, HWE[1]),
        ({"saved_entry": "1"}, HWE[0]),  # the submenu, whose first entry is taken
        ({"saved_entry": f"Advanced options for Ubuntu>Ubuntu, with Linux {HWE[1]}"}, HWE[1]),
        ({"saved_entry": "gone"}, HWE[0]),  # GRUB boots the first entry then
        ({"saved_entry": "99"}, HWE[0]),
        ({"saved_entry": f"gnulinux-advanced-{UUID}>gone"}, HWE[0]),
        *(({"saved_entry": text}, HWE[1]) for text in ("1> 2", " 1>2", "1 >2 ", "0x1>0x2", "01>02", "1>\t2", "1>2>5")),
        *(
            ({"saved_entry": text}, HWE[0])
            for text in ("0 ", " 0", "saved ", "saved", "08", "4294967296", "-1", "1>", "1>9")
        ),
        ({"saved_entry": "Advanced options for Ubuntu>2"}, HWE[1]),
        ({"saved_entry": "Advanced options for Ubuntu >2"}, HWE[0]),  # no title ends in a blank
        ({"saved_entry": f"gnulinux-advanced-{UUID}> 2"}, HWE[1]),
        ({"saved_entry": f"1>gnulinux-{HWE[1]}-advanced-{UUID}"}, HWE[1]),
        ({"saved_entry": "'1>2'"}, HWE[0]),  # quotes are part of a name that nothing has
        ({"saved_entry": path_of(HWE[0]), "next_entry": path_of(HWE[1])}, HWE[1]),
        ({"saved_entry": path_of(HWE[1]), "recordfail": "1"}, HWE[1]),
    ],
)
def test_the_default_is_resolved_as_grub_does(block: dict[str, str], release: str) -> None:
    assert menu("ubuntu2204-dual", block).default_entry().release == release


def test_the_entry_for_one_boot_is_taken_away_by_the_menu() -> None:
    found = menu("ubuntu2204", {"next_entry": path_of(HWE[1])})
    assert found.saved["next_entry"] == ""
    assert "next_entry" not in menu("ubuntu2204").saved


def test_what_grub_may_or_may_not_save_is_unknown() -> None:
    text = "set next_entry=\nif [ $grub_platform = efi ]; then\n save_env next_entry\nfi\n"
    assert Menu(text).saved == {"next_entry": None}


def test_a_default_that_is_not_there_is_told_from_one_that_is() -> None:
    found = menu("ubuntu2204")
    assert found.has_named(path_of(HWE[1])) and found.has_named("0") and found.has_named("1>2")
    assert not found.has_named(path_of("6.5.0-14-generic")) and not found.has_named("9")


def test_the_script_that_set_the_default_last_is_named() -> None:
    text = (MENUS / "ubuntu2204.cfg").read_text()
    assert Menu(text).default_origin() == "/etc/grub.d/00_header"
    assert Menu(
        text.replace("# the 'exec tail' line above.", "set default=1>2".replace(">", "\\>"))
    ).default_origin() == ("/etc/grub.d/40_custom")


def test_a_file_that_the_menu_reads_counts() -> None:
    text = (MENUS / "ubuntu2204.cfg").read_text()
    found = Menu(text, {}, {"custom.cfg": f"set default='{path_of(HWE[1])}'\nset timeout=-1\n"})
    assert found.default_entry().release == HWE[1]
    assert "-1" in found.waits()
    with pytest.raises(MenuError, match=r"custom.cfg, line 1: a quote is not closed"):
        Menu(text, {}, {"custom.cfg": "set default='\n"})


@pytest.mark.parametrize(
    ("line", "timeout"),
    [("set timeout=30", "set timeout=-1"), ("set timeout=0", "set timeout=-1")],
)
def test_a_menu_that_may_wait_for_a_person_is_known(line: str, timeout: str) -> None:
    text = (MENUS / "ubuntu2204.cfg").read_text()
    assert "-1" in Menu(text.replace(line, timeout)).waits()
    assert "no timeout" in Menu("menuentry a {\n\tlinux /vmlinuz-1\n}\n").waits()


HEAD = "menuentry_id_option=--id\nset timeout=1\n"


def linux(title: str, release: str, more: str = "") -> str:
    return f"menuentry {title} {{\n\tlinux /vmlinuz-{release} root=/dev/sda1 ro {more}\n}}\n"


def test_a_default_that_only_grub_knows_is_not_guessed() -> None:
    text = HEAD + 'if [ "$grub_platform" = efi ]; then\n set default=0\nelse\n set default=1\nfi\n' + linux("a", "1")
    with pytest.raises(MenuError, match="only GRUB knows"):
        Menu(text).default_entry()


def test_a_number_after_an_entry_that_may_be_absent_is_not_guessed() -> None:
    firmware = "if [ $grub_platform = efi ]; then\n menuentry firmware {\n  fwsetup\n }\nfi\n"
    text = HEAD + linux("a", "1") + firmware + linux("b", "2")
    assert Menu(text + "set default=0\n").default_entry().release == "1"
    assert Menu(text + "set default=b\n").default_entry().release == "2"
    with pytest.raises(MenuError, match="only GRUB can determine"):
        Menu(text + "set default=2\n").default_entry()
    with pytest.raises(MenuError, match="only GRUB can determine"):
        Menu(text + "set default=firmware\n").default_entry()
    with pytest.raises(MenuError, match="only GRUB can determine"):
        Menu(text + "set default=2nd\n").default_entry()  # 2 for some versions of GRUB


@pytest.mark.parametrize(
    ("test", "truth"),
    [
        ('[ "" ]', False),
        ("[ x ]", True),
        ('[ "$nothing" ]', False),
        ("[ -z $nothing ]", True),
        ("[ -n '$nothing' ]", True),
        ("[ a = a ]", True),
        ("[ a == b ]", False),
        ("[ a != b ]", True),
        ("! true", None),
        ("[ ! a = b ]", True),
        ("[ a = b -o a = a ]", True),
        ("[ a = b -a $prefix = a ]", False),
        ("[ a = a -a $prefix = a ]", None),
        ("[ -f $prefix/custom.cfg ]", False),
        ("[ -f /else ]", None),
        ("[ -s $prefix/grubenv ]", True),
        ("[ 1 -lt 2 ]", None),
        ("true", True),
        ("false", False),
        ("test a = a", True),
        ("hwmatch x", None),
    ],
)
def test_conditions_are_known_or_not(test: str, truth: bool | None) -> None:
    found = Menu(f"set default=no\nif {test}; then\n set default=yes\nfi\n", {})
    assert found.default == {True: "yes", False: "no", None: None}[truth]


def test_the_first_condition_that_holds_decides() -> None:
    text = "if [ a = b ]; then\n default=1\nelif [ a = a ]; then\n default=2\nelse\n default=3\nfi\n"
    assert Menu(text).default == "2"
    assert Menu(text.replace("a = a", "a = c")).default == "3"


def test_functions_and_loops_are_followed() -> None:
    assert Menu("function choose {\n set default=7\n}\nchoose\n").default == "7"
    assert Menu("function choose {\n set default=7\n}\n").default == ""
    assert Menu("default=1\nfor x in 1 2; do\n set default=$x\ndone\n").default is None


# ------------------------------------------------------------------------------------- quotes, escapes, broken menus


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("'plain title'", "plain title"),
        ('"double \\"quoted\\" \\$5"', 'double "quoted" $5'),
        (r"'L'\''atelier'", "L'atelier"),
        (r"bare\ words\{x", "bare words{x"),
        ("'a'\"b\"c", "abc"),
        ('"x${nothing}y"', "xy"),
        ("'braces { } and # ; in quotes'", "braces { } and # ; in quotes"),
        ("'Größe > 1'", "Größe > 1"),
        ("--class x --id=i --hotkey=k 'after options'", "after options"),
        ("'title' argument --class gnu", "title"),
        ('"over \\\ntwo lines"', "over two lines"),
    ],
)
def test_titles_are_read_as_grub_reads_them(written: str, title: str) -> None:
    found = Menu(HEAD + linux(written, "1"))
    assert [entry.title for entry in found.entries] == [title]
    resolved = found.resolve(found.entries[0].path)
    assert resolved is found.entries[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("menuentry 'a {\n", "line 1: a quote is not closed"),
        ('set default="0\n\n', "line 1: a quote is not closed"),
        ("menuentry a {\n linux /vmlinuz-1\n", "ends in the middle"),
        ("submenu a {\nmenuentry b {\n}\n", "ends in the middle"),
        ("if [ a ]; then\n true\n", "ends in the middle"),
        ("}\n", "line 1: '}' is not supported"),
        ("true\nfi\n", "line 2: 'fi' is not supported"),
        ("menuentry a\n", "line 1"),
        ("a | b\n", r"line 1: '\|' is not supported"),
    ],
)
def test_broken_menus_are_told_with_their_line(text: str, problem: str) -> None:
    with pytest.raises(MenuError, match=problem):
        Menu(text)


def test_every_cut_of_a_menu_is_broken_or_lacks_its_end() -> None:
    text = (MENUS / "ubuntu2204.cfg").read_text()
    whole = [entry.path for entry in Menu(text).all_entries()]
    for end in range(0, len(text), 97):
        try:
            cut = Menu(text[:end])
        except MenuError:
            continue
        assert [entry.path for entry in cut.all_entries()] == whole[: len(list(cut.all_entries()))]


def test_two_entries_of_one_kernel_are_both_named() -> None:
    one, other = (
        linux(f"'{title}' $menuentry_id_option 'gnulinux-5.19.0-41-generic-advanced-{uuid}'", "5.19.0-41-generic")
        for title, uuid in (("One", "1"), ("Other", "2"))
    )
    with pytest.raises(MenuError, match=r"several entries of kernel 5.19.0-41-generic: 'One' .* and 'Other' "):
        Menu(HEAD + one + other).find("5.19.0-41-generic")


def test_an_id_is_better_than_a_title_and_a_title_than_the_kernels_file() -> None:
    by_id = linux("Z $menuentry_id_option gnulinux-1.2-x-advanced-u", "1.2-x")
    by_title = linux("'My Linux 1.2-x'", "1.2-x")
    by_file = linux("'My Linux'", "1.2-x")
    simple = linux("Ubuntu $menuentry_id_option gnulinux-simple-u", "1.2-x")
    recovery = linux("'My Linux 1.2-x (rescue)'", "1.2-x", "single")
    assert Menu(HEAD + simple + by_file + by_title + by_id).find("1.2-x").path == "gnulinux-1.2-x-advanced-u"
    assert Menu(HEAD + simple + recovery + by_file + by_title).find("1.2-x").path == "My Linux 1.2-x"
    assert Menu(HEAD + simple + recovery + by_file).find("1.2-x").path == "My Linux"
    with pytest.raises(MenuError):  # the entry on top is of another kernel after the next update
        Menu(HEAD + simple + recovery).find("1.2-x")
    with pytest.raises(MenuError, match="several entries"):
        Menu(HEAD + by_title + by_title).find("1.2-x")


def test_an_entry_that_loads_another_kernel_than_its_name_says_is_refused() -> None:
    text = HEAD + linux("Z $menuentry_id_option gnulinux-1.2-x-advanced-u", "1.3-x")
    with pytest.raises(MenuError, match=r"named after kernel 1\.2-x but loads /vmlinuz-1\.3-x"):
        Menu(text).find("1.2-x")


def test_a_path_that_leads_to_another_entry_is_refused() -> None:
    shadow = linux("gnulinux-1.2-x-advanced-u", "1.3-x")  # a title like the other one's id
    text = HEAD + shadow + linux("Z $menuentry_id_option gnulinux-1.2-x-advanced-u", "1.2-x")
    with pytest.raises(MenuError, match="GRUB would read"):
        Menu(text).find("1.2-x")


def test_kernels_are_read_from_every_kind_of_line() -> None:
    for command in ("linux", "linuxefi", "linux16"):
        text = (
            HEAD + f"menuentry a {{\n{command} ($root)/vmlinuz-1.2-x quiet $extra x=${{y}}z\ninitrd /a.img /b.img\n}}\n"
        )
        entry = Menu(text).entries[0]
        assert (entry.kind, entry.release, entry.initrds) == ("linux", "1.2-x", ("/a.img", "/b.img")), command
        assert entry.arguments == ("quiet",)


# ------------------------------------------------------------------------------------------------------ the settings


def test_later_files_win_in_grubs_order(tmp_path: Path) -> None:
    (tmp_path / "default/grub.d").mkdir(parents=True)
    (tmp_path / "default/grub").write_text("GRUB_DEFAULT=0\nGRUB_TIMEOUT=5 # seconds\n")
    (tmp_path / "default/grub.d/60-b.cfg").write_text("GRUB_DEFAULT=b\n")
    (tmp_path / "default/grub.d/50-a.cfg").write_text("GRUB_DEFAULT=a\n")
    (tmp_path / "default/grub.d/70-c.cfg.bak").write_text("GRUB_DEFAULT=c\n")
    settings = GrubSettings(settings_files(tmp_path))
    found = settings.get("GRUB_DEFAULT")
    assert found is not None and (found.value, Path(found.path).name, found.line) == ("b", "60-b.cfg", 1)
    assert settings.value("GRUB_TIMEOUT") == "5" and settings.get("GRUB_DISABLE_SUBMENU") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("KEY=plain", "plain"),
        ("KEY='single $OTHER'", "single $OTHER"),
        ('OTHER=x\nKEY="a $OTHER ${OTHER}y"', "a x xy"),
        ('KEY="a"\nKEY="$KEY b"\nexport KEY', "a b"),
        ('export KEY="a b" OTHER=c', "a b"),
        ("KEY=a; KEY=b", "b"),
        ("KEY=", ""),
        ("#KEY=a", ""),
        ("KEY=a#b # comment", "a#b"),
        ('KEY="1 \\"2\\" \\$3 \\\\"', '1 "2" $3 \\'),
        ('KEY="over\ntwo"', "over\ntwo"),
        ("KEY=a\\\nb", "ab"),
        ("GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`\nKEY=a", "a"),
        ("GRUB_DISTRIBUTOR=$(. /etc/os-release; echo ${NAME:-Debian})\nKEY=a", "a"),
        ("if [ -f /x ]; then\n  OTHER=1\nfi\nKEY=a", "a"),
        ("if true; then\n  KEY=1\nfi\nKEY=a", "a"),
        (". /etc/other\nKEY=a", "a"),
        ("KEY=a\nother() {\n echo\n}\n", "a"),
    ],
)
def test_assignments_are_read_as_a_shell_reads_them(text: str, value: str) -> None:
    assert GrubSettings({"/etc/default/grub": text}).value("KEY") == value


@pytest.mark.parametrize(
    "text",
    [
        "KEY=$(uname -r)",
        "KEY=`uname -r`",
        'KEY="a ${b:-c}"',
        "if true; then\n  KEY=1\nfi",
        "[ -f /x ] && KEY=1",
        "test -f /x || KEY=1",
        "KEY=a\n. /etc/other",
        "KEY=a\neval $x",
        "KEY=a\nread KEY < /x",
        "OTHER=$(uname)\nKEY=$OTHER",
        "KEY='never closed",
    ],
)
def test_what_is_not_understood_is_said_only_of_the_key_that_it_may_set(text: str) -> None:
    settings = GrubSettings({"/etc/default/grub": text})
    with pytest.raises(GrubSettingsError, match=r"/etc/default/grub.*cannot determine the effect on KEY"):
        settings.value("KEY")
    if "/etc/other" not in text and "eval" not in text and "closed" not in text:
        assert settings.value("UNRELATED") == ""


def test_any_title_survives_the_settings_and_the_menu() -> None:
    title = "Ärger \"$1\" 'x' \\ `y`"
    setting = GrubSettings({"f": f"GRUB_DEFAULT={shell_quote(menu_quote(title))}"}).value("GRUB_DEFAULT")
    assert Menu(f'set default="{setting}"').default == title


# ---------------------------------------------------------------------------------------------- the environment block


def test_a_block_keeps_its_size_its_comments_and_its_order() -> None:
    warning = b"# WARNING: Do not edit this file by tools other than grub-editenv!!!\n"
    content = (b"# GRUB Environment Block\n" + warning + b"saved_entry=a>b\nrecordfail=1\n").ljust(1024, b"#")
    block = EnvironmentBlock(content)
    assert block.variables == {"saved_entry": "a>b", "recordfail": "1"}
    assert block.content() == content
    block.set("next_entry", "x")
    block.set("saved_entry", "c")
    changed = block.content()
    assert changed == (b"# GRUB Environment Block\n" + warning + b"saved_entry=c\nrecordfail=1\nnext_entry=x\n").ljust(
        1024, b"#"
    )
    block.unset("next_entry")
    block.unset("recordfail")
    block.unset("never there")
    assert EnvironmentBlock(block.content()).variables == {"saved_entry": "c"}


def test_an_empty_block_is_one_that_grub_reads() -> None:
    assert EnvironmentBlock().content() == b"# GRUB Environment Block\n" + b"#" * 999
    assert EnvironmentBlock(EnvironmentBlock().content()).variables == {}


@pytest.mark.parametrize("value", ["a\\b", "two\nlines", "\\", "ends in #", "Größe", "a=b", "#"])
def test_values_are_escaped_as_grub_does(value: str) -> None:
    block = EnvironmentBlock()
    block.set("x", value)
    block.set("y", "1")
    assert EnvironmentBlock(block.content()).variables == {"x": value, "y": "1"}


def test_escapes_are_backslashes() -> None:
    block = EnvironmentBlock()
    block.set("x", "a\\b\nc")
    assert b"\nx=a\\\\b\\\nc\n###" in block.content()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "0 bytes"),
        (b"# GRUB Environment Block\n", "25 bytes"),
        (b"# GRUB Environment Block\n".ljust(2048, b"#"), "2048 bytes"),
        (b"\0" * 1024, "header"),
        (b"# Grub\n".ljust(1024, b"#"), "header"),
        (b"# GRUB Environment Block\nnonsense\n".ljust(1024, b"#"), "without a variable"),
        (b"# GRUB Environment Block\nx=1".ljust(1024, b"#"), "without a variable"),
    ],
)
def test_damaged_blocks_are_told(content: bytes, problem: str) -> None:
    with pytest.raises(BlockError, match=problem):
        EnvironmentBlock(content)


def test_a_full_block_is_told() -> None:
    block = EnvironmentBlock()
    block.set("x", "y" * (1024 - 25 - 3))
    assert len(block.content()) == 1024
    block.set("x", "y" * (1024 - 25 - 2))
    with pytest.raises(BlockError, match="full: 1025 bytes"):
        block.content()


@pytest.mark.parametrize(
    "init",
    [
        *("/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/bin/systemd", "/usr/bin/systemd"),
        *("/sbin/init", "/usr/sbin/init"),
    ],
)
def test_that_systemd_is_the_init_of_every_line_is_normal(init: str) -> None:
    text = (MENUS / "ubuntu2204.cfg").read_text()
    everywhere = "\n".join(
        f"{line} init={init}" if line.lstrip().startswith(("linux\t", "linux ")) else line for line in text.splitlines()
    )
    assert f"init={init}" in everywhere
    found = Menu(everywhere)
    assert found.releases() == HWE and found.find(HWE[1]).path == path_of(HWE[1])
    assert found.default_entry().release == HWE[0]
    assert len([entry for entry in found.all_entries() if entry.recovery]) == 2


@pytest.mark.parametrize(
    "init", ["/bin/bash", "/lib/systemd/systemd-shutdown", "/usr/lib/systemd/systemd.old", "/init", ""]
)
def test_another_init_is_no_normal_boot(init: str) -> None:
    assert Menu(HEAD + linux("Z", "1.2-x", f"init={init}")).entries[0].recovery


@pytest.mark.parametrize("where", ["09_linux", "11_linux_copy", "42_linux"])
@pytest.mark.parametrize("more", ["", " mitigations=off"])
def test_of_what_a_copy_of_10_linux_writes_once_more_the_first_is_taken(where: str, more: str) -> None:
    text = (MENUS / "ubuntu2204.cfg").read_text()
    begin, end = "### BEGIN /etc/grub.d/10_linux ###", "### END /etc/grub.d/10_linux ###\n"
    before, _, rest = text.partition(begin)
    own, _, after = rest.partition(end)
    copy = (begin + own + end).replace("10_linux", where).replace(" ro ", f" ro{more} ")
    first = where < "10"
    found = Menu(before + (copy if first else "") + begin + own + end + ("" if first else copy) + after)
    entry = found.find(HWE[1])
    assert entry.path == path_of(HWE[1]) and found.releases() == HWE
    assert ("mitigations=off" in entry.arguments) == (first and bool(more))
    assert found.resolve(entry.path) is entry
    alone = Menu(before + copy + after)
    assert alone.find(HWE[1]).path == path_of(HWE[1])


@pytest.mark.parametrize(("title", "default"), [("1.2 old", "1.2 old"), ("1 kernel", "1 kernel"), ("1.2 old", "1.9")])
def test_a_title_that_begins_with_a_number_is_not_guessed(title: str, default: str) -> None:
    text = HEAD + linux("a", "1") + linux("b", "2") + linux(f"'{title}'", "3") + f"set default='{default}'\n"
    with pytest.raises(MenuError, match="only GRUB can determine"):
        Menu(text).default_entry()


def test_a_kernel_with_special_entries_alone_is_told_from_one_without_entries() -> None:
    lines = Menu(HEAD + linux("Z", "1.2-x", "quiet init=/bin/bash"))
    with pytest.raises(
        MenuError, match=r"no entry of kernel 1\.2-x;.*'Z' \(line \d+\) boots a recovery mode or another"
    ):
        lines.find("1.2-x")
    with pytest.raises(MenuError, match=r"it has no Linux entry of this system$"):
        lines.find("1.3-x")
