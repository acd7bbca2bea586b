"""Writes docs/settings.md from the settings' rows: `python tools/settings_page.py`. A test holds the page to it."""

from __future__ import annotations

from pathlib import Path

from thrum.model.settings import SETTINGS, setting_text

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
HEAD = """\
# Settings

Every setting of `.thrum/config.json`; made from the program by `tools/settings_page.py`. `thrum config set KEY VALUE`
changes one, `thrum config show` says where each comes from. What is marked `*` counts from the next start of the daemon
(`thrum daemon restart`), the others at once; what is marked `!` is no agent's to change.

A file with a value that `config set` would refuse is refused as a whole, with every such key and its line: no daemon
starts with it, and one that runs goes on with what counted before. Unknown keys are kept and ignored. Durations are
written `30s`, `5m`, `1h30m`, `1.5h`, `250ms`, or as bare seconds.

"""
TABLE = """\
| key | must be | default | for |
|---|---|---|---|
"""
NOT_BUILT = """
## Not built yet

`config set` takes these and keeps them, so that files of other versions are no error. Nothing reads them yet.

"""


def page() -> str:
    """The page's text."""
    return HEAD + _table(built=True) + NOT_BUILT + _table(built=False)


def _table(*, built: bool) -> str:
    rows = [
        f"| `{key}`{' *' * (row.restart and built)}{' !' * row.guarded} | {row.rule.words} |"
        f" {f'`{setting_text(row.default)}`' if row.default != '' else ''} | {row.help} |\n"
        for key, row in SETTINGS.items()
        if row.built is built
    ]
    return TABLE + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
