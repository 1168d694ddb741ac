#!/usr/bin/env python
"""Builds the documentation site into build/site: README.md, docs/ and each file of the repository that they link to.

    python tools/site.py            (make site)

The pages are staged in build/pages in the repository's own layout, so that the links that work on the repository's
host work here. A linked file becomes a page that shows it, a linked folder a page that lists it.
"""

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
PAGES = ROOT / 'build/pages'
LINK = re.compile(r'(\]\()(?!\w+:|#)([^)#]+)')
LANGUAGES = {'': 'text', '.py': 'python', '.yml': 'yaml', '.cff': 'yaml', '.sh': 'bash', '.txt': 'text'}


def stage() -> None:
    """Writes every page that the site is to have into ``PAGES``."""
    shutil.rmtree(ROOT / 'build/site', ignore_errors=True)
    shutil.rmtree(PAGES, ignore_errors=True)
    waiting = [ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')]
    waiting += sorted((ROOT / 'docs').glob('*.md')) + sorted((ROOT / 'docs').glob('*.ipynb'))
    done = set()
    while waiting:
        source = waiting.pop()
        if source in done:
            continue
        done.add(source)
        target = PAGES / _page(source).relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = _text(source)
        if text is None:  # an image
            shutil.copy(source, target)
            continue
        folder = source if source.is_dir() else source.parent
        waiting += [path for path in ((folder / link).resolve() for _, link in LINK.findall(text)) if path.exists()]
        target.write_text(LINK.sub(partial(_address, folder), text))


def _text(source: Path) -> str | None:
    """The Markdown of a file's or folder's page; None of a file that is no text."""
    if source.is_dir():
        return _listing(source)
    if source.suffix == '.md':
        return source.read_text()
    if source.suffix == '.ipynb':
        return _notebook(source)
    return _shown(source) if source.suffix in LANGUAGES else None


def _page(source: Path) -> Path:
    """Where a file's page lies."""
    if source.is_dir():
        return source / 'index.md'
    return source.with_name(source.name + '.md') if source.suffix in (*LANGUAGES, '.ipynb') else source


def _address(folder: Path, link: re.Match) -> str:
    """A link in a page of ``folder``, to the page of what it links to."""
    linked = (folder / link[2]).resolve()
    if _page(linked) == linked:
        return link[0]
    return f'{link[1]}{link[2].rstrip("/")}{"/index.md" if linked.is_dir() else ".md"}'


HIDDEN = '---\nsearch:\n  exclude: true\nhide: [navigation]\n---\n'


def _shown(source: Path) -> str:
    name = source.relative_to(ROOT)
    return f'{HIDDEN}# {name}\n\n~~~~{LANGUAGES[source.suffix]}\n{source.read_text()}\n~~~~\n'


def _listing(source: Path) -> str:
    """The configs of a folder, with the comment at the top of each."""
    rows = []
    for path in sorted(source.glob('*.py')):
        comment = re.match(r'(?:#.*\n)*', path.read_text())[0].replace('# ', '').replace('\n', ' ')
        rows.append(f'| [{path.name}]({path.name}) | {comment} |\n')
    return f'{HIDDEN}# {source.relative_to(ROOT)}\n\n| config | |\n| --- | --- |\n{"".join(rows)}'


def _notebook(source: Path) -> str:
    cells = json.loads(source.read_text())['cells']
    texts = [(cell['cell_type'], ''.join(cell['source'])) for cell in cells]
    pages = [f'```python\n{text}\n```' if kind == 'code' else text for kind, text in texts]
    return '\n\n'.join(pages) + f'\n\nThis page is a notebook: `docs/{source.name}` in the repository.\n'


class PlainRoles(griffe.Extension):
    """Shows Sphinx's roles in docstrings, as :class:`Name`, as code. mkdocs.yml names this file as an extension."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r':\w+:(`[^`]+`)', r'\1', obj.docstring.value)


def main() -> int:
    stage()
    build = [sys.executable, '-m', 'zensical', 'build', '--strict', '--clean']
    done = subprocess.run(build, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    return done.returncode or 'griffe:' in done.stdout  # of docstrings, which --strict lets pass


if __name__ == '__main__':
    sys.exit(main())
