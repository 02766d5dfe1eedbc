"""The entry of a kernel is found by id in menus as grub-mkconfig writes them."""

from __future__ import annotations

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.grub import MenuError, menu_path

UUID = "5f0c3a5e-0c3f-4b42-9b8e-6d5f4c3b2a10"
ENTRY = (
    "menuentry 'Ubuntu, with Linux {title}' --class ubuntu $menuentry_id_option '{id}' {{\n\tlinux /boot/vmlinuz\n}}\n"
)


def entry(release: str, kind: str = "advanced", suffix: str = "") -> str:
    return ENTRY.format(title=release + suffix, id=f"gnulinux-{release}-{kind}-{UUID}")


KERNELS = "".join(
    entry(release) + entry(release, "recovery", " (recovery mode)")
    for release in ("6.2.0-26-generic", "5.19.0-41-generic")
)
SIMPLE = (
    f"menuentry 'Ubuntu' --class ubuntu $menuentry_id_option 'gnulinux-simple-{UUID}' {{\n\tlinux /boot/vmlinuz\n}}\n"
)
SUBMENU = f"submenu 'Advanced options for Ubuntu' $menuentry_id_option 'gnulinux-advanced-{UUID}' {{\n{KERNELS}}}\n"
FIRMWARE = "menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {\n\tfwsetup\n}\n"
HEAD = 'function savedefault {\n  if [ -z "${boot_once}" ]; then\n    save_env saved_entry\n  fi\n}\n'


def test_an_entry_in_the_submenu() -> None:
    menu = HEAD + SIMPLE + SUBMENU + FIRMWARE
    assert (
        menu_path(menu, "5.19.0-41-generic") == f"gnulinux-advanced-{UUID}>gnulinux-5.19.0-41-generic-advanced-{UUID}"
    )


def test_a_menu_without_submenu() -> None:
    assert menu_path(HEAD + KERNELS, "6.2.0-26-generic") == f"gnulinux-6.2.0-26-generic-advanced-{UUID}"


def test_a_release_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(
        MenuError, match=r"no entry of kernel 5\.19\.0-4; it has 6\.2\.0-26-generic, 5\.19\.0-41-generic$"
    ):
        menu_path(SIMPLE + SUBMENU, "5.19.0-4")


def test_a_recovery_entry_is_not_taken() -> None:
    with pytest.raises(MenuError):
        menu_path(SIMPLE + entry("5.19.0-41-generic", "recovery"), "5.19.0-41-generic")
