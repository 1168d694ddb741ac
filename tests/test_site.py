"""The documentation site: builds without a warning, and a browser shows every page, wide and narrow, light and dark."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from html import unescape

import pytest

from tests.common import ROOT

SITE = ROOT / 'build/site'
MEASURE = """
const wanted = PAGES.flatMap(page => [1280, 390].map(width => ({page, width})));
const found = [];
async function look({page, width}) {
  const frame = Object.assign(document.createElement('iframe'), {src: page, width, height: 900});
  document.body.append(frame);
  await new Promise(done => frame.onload = done);
  const root = frame.contentDocument.documentElement, style = frame.contentWindow.getComputedStyle;
  found.push({
    page, frame: width, width: root.clientWidth, scrollWidth: root.scrollWidth,
    title: frame.contentDocument.querySelector('h1').textContent,
    background: style(frame.contentDocument.body).backgroundColor,
    ink: style(frame.contentDocument.querySelector('h1')).color,
    images: [...frame.contentDocument.querySelectorAll('article img')].map(image => image.naturalWidth),
    requests: frame.contentWindow.performance.getEntriesByType('resource').map(item => item.name),
  });
  frame.remove();
}
(async () => {
  for (const one of wanted) await look(one);
  document.body.dataset.found = JSON.stringify(found);
})();
"""


@pytest.fixture(scope='module')
def site() -> list[str]:
    """Builds the site as ``make site`` does; its pages but those of files and folders."""
    done = subprocess.run([sys.executable, 'tools/site.py'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return ['index.html', 'CONTRIBUTING.html', 'CHANGELOG.html'] + sorted(
        str(path.relative_to(SITE)) for path in (SITE / 'docs').glob('*.html')
    )


@pytest.fixture(scope='module')
def address(site):
    """A server of the site on a port of its own."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


@pytest.fixture(scope='module', params=['light', 'dark'])
def shown(request, site, address, tmp_path_factory):
    """What a headless browser shows of the pages at 1280 and 390 px, and what it writes to its console."""
    browser = shutil.which('chromium') or pytest.skip('needs chromium (apt-get install chromium)')
    pages = [*site, 'configs/retinanet/index.html', 'configs/retinanet/pvt_small_1x.py.html']
    script = MEASURE.replace('PAGES', json.dumps(pages))
    (SITE / 'frames.html').write_text(f'<!DOCTYPE html><link rel="icon" href="data:,"><body><script>{script}</script>')
    profile = tmp_path_factory.mktemp('profile')
    done = subprocess.run(
        [
            *(browser, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={profile}'),
            *('--enable-logging=stderr', '--virtual-time-budget=60000', '--dump-dom'),
            f'--blink-settings=preferredColorScheme={int(request.param == "light")}',
            f'{address}/frames.html',
        ],
        capture_output=True,
        text=True,
        timeout=180,
    )
    (SITE / 'frames.html').unlink()
    found = re.search(r'data-found="(.*?)"', done.stdout)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if 'CONSOLE' in line]
    return request.param, json.loads(unescape(found[1])), console


def test_every_page_of_the_repository_is_in_the_navigation(site):
    pages = {'README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'}
    pages |= {f'docs/{path.name}' for path in (ROOT / 'docs').glob('*.md')}
    pages |= {f'docs/{path.name}.md' for path in (ROOT / 'docs').glob('*.ipynb')}
    listed = re.findall(r'(\S+\.md)$', (ROOT / 'mkdocs.yml').read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(pages)


def test_lists_and_code_are_such_in_the_sites_markdown_too(site):
    """It asks for a blank line before a list and for four spaces where the repository's host takes fewer."""
    for page in site:
        text = (SITE / page).read_text()
        assert not re.search(r'<p>(?:(?!</p>).)*?\n\s*(?:[-*]|\d+\.) ', text, re.DOTALL), page
        assert '```' not in re.sub(r'<code.*?</code>', '', text, flags=re.DOTALL), page


def test_the_api_page_has_every_public_class(site):
    """And the functions of an export, and all of ours that the docs and the configs name by a type."""
    text = (SITE / 'docs/api.html').read_text()
    sources = '\n'.join(path.read_text() for path in (ROOT / 'pvt_mm').rglob('*.py'))
    classes = dict(re.findall(r"register_module\('(PVT\w+)'\)\nclass (\w+)", sources))
    texts = [path.read_text() for path in (*ROOT.glob('docs/*.md'), *ROOT.glob('configs/**/*.py'))]
    named = {name for text in texts for name in re.findall(r"'(PVT\w+)'", text)}
    names = ('PVT', 'PVTv2', 'ColumnarViT', 'Trans2SegHead', 'Runner', 'DetInferencer', 'MMSegInferencer')
    names += ('build_graph', 'trace', 'write', 'load', 'compare', *(classes[name] for name in named & set(classes)))
    assert {'Logits', 'LayerDecayConstructor'} < set(names)
    assert all(re.search(rf'id="pvt_mm\.[\w.]*\.{name}"', text) for name in names)


def test_a_browser_shows_every_page_on_a_phone_and_on_a_desk(shown, address):
    scheme, pages, console = shown
    assert {page['frame'] for page in pages} == {1280, 390} and len(pages) >= 34
    for page in pages:
        assert page['title'] and page['scrollWidth'] <= page['width'], page  # nothing sticks out
        assert all(page['images']), page
        assert all(name.startswith((address, 'data:', 'blob:')) for name in page['requests']), page
        background, ink = brightness(page['background']), brightness(page['ink'])
        assert (background > 600 > 300 > ink) if scheme == 'light' else (background < 150 < 500 < ink), page
    assert not console


def brightness(colour: str) -> int:
    """Of 'rgb(...)': the sum of the three."""
    return sum(map(int, re.findall(r'\d+', colour)[:3]))
