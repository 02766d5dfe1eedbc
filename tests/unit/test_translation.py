"""The check that keeps a translated document in step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.translation import differences

ORIGINAL = """\
# Lamps

Say `light on`.

## Rooms

```
light on  # the lamp
# Every lamp.
light all
```

| Name | What it does |
|---|---|
| `on` | lights a \\| lamp |
| `all` | lights all, as `on` does |
"""
TRANSLATION = """\
# 灯

说 `light on`。

## 房间

```
light on  # 那盏灯
# 所有的灯。
light all
```

| 名称 | 作用 |
|---|---|
| `on` | 点亮一盏 \\| 灯 |
| `all` | 像 `on` 一样点亮所有灯 |
"""


def compare(folder: Path, translation: str) -> list[str]:
    (folder / "README.md").write_text(ORIGINAL, encoding="utf-8")
    (folder / "README.zh-CN.md").write_text(translation, encoding="utf-8")
    return differences(folder / "README.md", folder / "README.zh-CN.md")


def test_a_translation_in_step_is_taken(tmp_path: Path) -> None:
    assert compare(tmp_path, TRANSLATION) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("## 房间", "### 房间", "README.zh-CN.md: heading 2 is 3; in README.md 2"),
        ("## 房间\n", "", "README.zh-CN.md: heading 2 is missing; in README.md 2"),
        ("# 灯\n", "# 灯\n\n## 更多\n\n## 还有\n", "README.zh-CN.md: heading 3 is 2; in README.md missing"),
        ("light all", "light none", "README.zh-CN.md: block of code 1"),
        ("light on  #", "light off  #", "README.zh-CN.md: block of code 1"),
        ("| `all` | 像 `on` 一样点亮所有灯 |\n", "", "README.zh-CN.md: row of a table 4 is missing"),
        ("| `all` |", "| `any` |", "README.zh-CN.md: row of a table 4"),
        ("| 名称 | 作用 |", "| 名称 | 作用 | 备注 |", "README.zh-CN.md: row of a table 1"),
        ("像 `on` 一样", "同样", "README.zh-CN.md: row of a table 4"),
    ],
)
def test_a_difference_is_named(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert old in TRANSLATION
    (problem,) = compare(tmp_path, TRANSLATION.replace(old, new))
    assert problem.startswith(complaint)
